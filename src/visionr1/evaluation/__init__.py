"""Predictions in, figures out, each with the protocol it depends on; no torch."""

from visionr1.evaluation.asking import Replier, ask
from visionr1.evaluation.benchmarks import BENCHMARKS, Benchmark, Reading
from visionr1.evaluation.compare import compare
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.detection.coco_results import coco_results
from visionr1.evaluation.detection.scoring import evaluate_boxes, evaluate_replies
from visionr1.evaluation.detection.supervision import to_supervision
from visionr1.evaluation.evaluate import PredictionFiles, evaluate
from visionr1.evaluation.evaluation import Evaluation
from visionr1.evaluation.metrics import METRICS, Metric
from visionr1.evaluation.metrics.ratios import RatioScore
from visionr1.evaluation.predictions import Prediction, write_predictions
from visionr1.evaluation.protocols import COCO_RESULTS, DEFAULT, PROTOCOLS, Protocol, read_protocol
from visionr1.evaluation.reply_log import WHOLE, ReplyLog, Shard
from visionr1.evaluation.result import Result
from visionr1.evaluation.statistics import Difference, paired_difference
from visionr1.evaluation.storage import write_evaluation
from visionr1.evaluation.table import format_benchmark, format_results
from visionr1.evaluation.units import FoundUnits, Replies, Unit

__all__ = [
    "BENCHMARKS",
    "COCO_RESULTS",
    "DEFAULT",
    "METRICS",
    "PROTOCOLS",
    "WHOLE",
    "Benchmark",
    "Detections",
    "Difference",
    "Evaluation",
    "FoundUnits",
    "Metric",
    "Prediction",
    "PredictionFiles",
    "Protocol",
    "RatioScore",
    "Reading",
    "Replier",
    "Replies",
    "ReplyLog",
    "Result",
    "Shard",
    "Unit",
    "ask",
    "coco_results",
    "compare",
    "evaluate",
    "evaluate_boxes",
    "evaluate_replies",
    "format_benchmark",
    "format_results",
    "paired_difference",
    "read_protocol",
    "to_supervision",
    "write_evaluation",
    "write_predictions",
]
