"""FID, KID, Inception score, precision and recall: exact, streaming, with intervals; functions of arrays or tensors.

`fid`, `kid`, `inception_score`, `precision_recall` and `compare_fid` take features; `score` takes folders and files;
`GenerativeMetrics` takes batches. Each name is loaded when it is first used, and only what reads images loads torch.
"""

from reinception.generative.classifier_score import InceptionScoreResult as InceptionScoreResult
from reinception.generative.classifier_score import inception_score as inception_score
from reinception.generative.extractor import Extractor as Extractor
from reinception.generative.extractor import load_extractor as load_extractor
from reinception.generative.frechet import Difference as Difference
from reinception.generative.frechet import FrechetResult as FrechetResult
from reinception.generative.frechet import compare_fid as compare_fid
from reinception.generative.frechet import fid as fid
from reinception.generative.frechet import frechet_distance as frechet_distance
from reinception.generative.kernel import KernelResult as KernelResult
from reinception.generative.kernel import kid as kid
from reinception.generative.modes import MODES as MODES
from reinception.generative.modes import Mode as Mode
from reinception.generative.moments import Moments as Moments
from reinception.generative.moments import moments_of as moments_of
from reinception.generative.neighbours import NeighbourResult as NeighbourResult
from reinception.generative.neighbours import precision_recall as precision_recall
from reinception.generative.score_config import ScoreConfig as ScoreConfig
from reinception.generative.scoring import ScoreReport as ScoreReport
from reinception.generative.scoring import score as score
from reinception.generative.statistics_file import FeatureRows as FeatureRows
from reinception.generative.statistics_file import Statistics as Statistics
from reinception.generative.statistics_file import read_file as read_file
from reinception.generative.statistics_file import save_statistics as save_statistics
from reinception.generative.streaming import GenerativeMetrics as GenerativeMetrics
