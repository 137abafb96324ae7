"""The vocabulary of a network: frozen values for layers, heads and whole architectures, with shape arithmetic and JSON.

Nothing here imports torch. A network is a tree of these values; its shapes, cost, drawing, module and exported files
are functions of that tree, so a channel count is written once.

Paths name layers and, later, parameters: a chain counts its layers from zero, a concatenation names its branches,
`grid17.2.doubled.3` is layer 3 of the branch `doubled` of module 2 of the stage `grid17`.
"""

from reinception.spec.changes import change_layers as change_layers
from reinception.spec.changes import change_stage as change_stage
from reinception.spec.changes import count_border as count_border
from reinception.spec.changes import rebuild as rebuild
from reinception.spec.changes import scale_depth as scale_depth
from reinception.spec.changes import scale_width as scale_width
from reinception.spec.changes import with_scale as with_scale
from reinception.spec.checks import Size as Size
from reinception.spec.checks import SpecError as SpecError
from reinception.spec.document import current_path as current_path
from reinception.spec.shapes import Shape as Shape
from reinception.spec.shapes import Step as Step
from reinception.spec.shapes import feature_shape as feature_shape
from reinception.spec.shapes import minimum_input_size as minimum_input_size
from reinception.spec.shapes import trace as trace
from reinception.spec.values import AdaptivePool as AdaptivePool
from reinception.spec.values import Arch as Arch
from reinception.spec.values import Aux as Aux
from reinception.spec.values import BatchNorm as BatchNorm
from reinception.spec.values import Chain as Chain
from reinception.spec.values import ChannelRange as ChannelRange
from reinception.spec.values import Concat as Concat
from reinception.spec.values import Conv as Conv
from reinception.spec.values import Layer as Layer
from reinception.spec.values import LocalResponseNorm as LocalResponseNorm
from reinception.spec.values import Pool as Pool
from reinception.spec.values import as_chain as as_chain
from reinception.spec.values import endpoints as endpoints
