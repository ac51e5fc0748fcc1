"""Predictions in, figures out, each with the protocol it depends on; no torch."""

from visionr1.evaluate.compare import Comparison, compare
from visionr1.evaluate.detection import DetectionResult, evaluate_boxes, evaluate_detection, evaluate_replies
from visionr1.evaluate.engine import Detections
from visionr1.evaluate.export import coco_results, to_supervision
from visionr1.evaluate.odinw import OdinwResult, OdinwSet, evaluate_suite, find_odinw, odinw_sets, read_odinw
from visionr1.evaluate.offline import evaluate_file, write_evaluation
from visionr1.evaluate.parts import WHOLE, ReplyLog, Shard
from visionr1.evaluate.predictions import Prediction, write_predictions
from visionr1.evaluate.protocols import COCO_RESULTS, DEFAULT, PROTOCOLS, Protocol, read_protocol
from visionr1.evaluate.statistics import Difference, paired_difference
from visionr1.evaluate.table import format_results

__all__ = [
    "COCO_RESULTS",
    "DEFAULT",
    "PROTOCOLS",
    "WHOLE",
    "Comparison",
    "DetectionResult",
    "Detections",
    "Difference",
    "OdinwResult",
    "OdinwSet",
    "Prediction",
    "Protocol",
    "ReplyLog",
    "Shard",
    "coco_results",
    "compare",
    "evaluate_boxes",
    "evaluate_detection",
    "evaluate_file",
    "evaluate_replies",
    "evaluate_suite",
    "find_odinw",
    "format_results",
    "odinw_sets",
    "paired_difference",
    "read_odinw",
    "read_protocol",
    "to_supervision",
    "write_evaluation",
    "write_predictions",
]
