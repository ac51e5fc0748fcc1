"""Predictions in, figures out, each with the protocol it depends on; no torch."""

from visionr1.evaluation.asking import ask
from visionr1.evaluation.benchmarks.suite import (
    BENCHMARKS,
    Benchmark,
    BenchmarkResult,
    DetectionUnit,
    Result,
    Unit,
    evaluate_benchmark,
    get_benchmark,
)
from visionr1.evaluation.compare import compare
from visionr1.evaluation.detection.coco import Detections
from visionr1.evaluation.detection.export import coco_results, to_supervision
from visionr1.evaluation.detection.scoring import DetectionResult, evaluate_boxes, evaluate_detection, evaluate_replies
from visionr1.evaluation.offline import evaluate_file, write_evaluation
from visionr1.evaluation.predictions import Prediction, write_predictions
from visionr1.evaluation.protocols import COCO_RESULTS, DEFAULT, PROTOCOLS, Protocol, ReplyProtocol, read_protocol
from visionr1.evaluation.reply_log import WHOLE, ReplyLog, Shard
from visionr1.evaluation.statistics import Difference, paired_difference
from visionr1.evaluation.table import format_results

__all__ = [
    "BENCHMARKS",
    "COCO_RESULTS",
    "DEFAULT",
    "PROTOCOLS",
    "WHOLE",
    "Benchmark",
    "BenchmarkResult",
    "DetectionResult",
    "DetectionUnit",
    "Detections",
    "Difference",
    "Prediction",
    "Protocol",
    "ReplyLog",
    "ReplyProtocol",
    "Result",
    "Shard",
    "Unit",
    "ask",
    "coco_results",
    "compare",
    "evaluate_benchmark",
    "evaluate_boxes",
    "evaluate_detection",
    "evaluate_file",
    "evaluate_replies",
    "format_results",
    "get_benchmark",
    "paired_difference",
    "read_protocol",
    "to_supervision",
    "write_evaluation",
    "write_predictions",
]
