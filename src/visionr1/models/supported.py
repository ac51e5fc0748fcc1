"""The model families that were tested, as `benchmarks/families.py` measured them with small random models."""

from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from visionr1.assets import families_path
from visionr1.files import read_json
from visionr1.models.families import FAMILIES
from visionr1.models.loading import DEFAULT_DIALECTS, default_dialect
from visionr1.models.unsupported import UNSUPPORTED

TOLERANCE = 1e-5
"""The largest difference in a log-probability, and relative one of all gradients, that counts as equal in float32."""
DIFFERENCES = ("logprobs", "gradients", "sampled", "checkpointed", "features")
"""What a row has the largest differences of."""
CHECKS = ("greedy", "together", "reloads")
LEAST_VISION_SHARE = 0.1
"""The least share of the vision part's weights with a gradient: parts for videos or for making images have none."""
NOT_TRIED = "not tried"


def read_families() -> list[dict[str, Any]]:
    """Return a row for each family: those measured, those that are refused, and those that nobody tried.

    The status of a measured one is "ok", or which check it did not pass.
    """
    rows = []
    for measured in read_json(families_path()):
        fault = find_fault(measured)
        row = {**measured, "dialect": default_dialect(measured["model_type"])}
        if fault:
            row["status"] = f"not exact: {fault}"
        else:
            row["difference"] = max(row[name] for name in DIFFERENCES)
        rows.append(row)

    # A type of a family that is registered or known to transformers may have come since.
    known = {row["model_type"] for row in rows}
    for model_type in dict.fromkeys((*FAMILIES, *DEFAULT_DIALECTS, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)):
        if model_type not in known and model_type not in UNSUPPORTED:
            rows.append({"family": model_type, "model_type": model_type, "status": NOT_TRIED})
    for model_type, reason in UNSUPPORTED.items():
        rows.append({"family": model_type, "model_type": model_type, "status": f"refused: {reason}"})
    return rows


def count_exact(rows: list[dict[str, Any]]) -> int:
    """Return how many model types were measured and are exact."""
    return len({row["model_type"] for row in rows if row["status"] == "ok"})


def find_fault(row: dict[str, Any]) -> str:
    """Return which check a measured family did not pass; empty if it passed all."""
    if row["status"] != "ok":
        return str(row["status"])
    for name in DIFFERENCES:
        if row[name] > TOLERANCE:
            return f"{name} differ by {row[name]:.0e}"
    for name in CHECKS:
        if not row[name]:
            return name
    if row["vision_share"] < LEAST_VISION_SHARE:
        return "images change nothing, or their tower has no gradient"
    return "" if row["grpo_step"] == "ok" else f"a step of GRPO: {row['grpo_step']}"
