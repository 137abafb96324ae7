"""The network family: the paper's figures as functions, its tables as values, every network by its name."""

from reinception.family.catalog import EXPERIMENTS as EXPERIMENTS
from reinception.family.catalog import NETWORKS as NETWORKS
from reinception.family.catalog import VARIANTS as VARIANTS
from reinception.family.catalog import AuxChoice as AuxChoice
from reinception.family.catalog import adaptive as adaptive
from reinception.family.catalog import check_input_size as check_input_size
from reinception.family.catalog import entry as entry
from reinception.family.catalog import network as network
from reinception.family.inception import INCEPTION_V2 as INCEPTION_V2
from reinception.family.inception import INCEPTION_V3 as INCEPTION_V3
from reinception.family.inception import TABLE_1 as TABLE_1
from reinception.family.inception import TABLE_3 as TABLE_3
from reinception.family.inception import Entry as Entry
from reinception.family.inception import Reported as Reported
from reinception.family.inception import table_2 as table_2
