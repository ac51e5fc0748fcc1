"""The model families that were tested, as `benchmarks/families.py` measured them with small random models."""

from typing import Any

from visionr1.assets import families_path
from visionr1.files import read_json
from visionr1.models.families import FAMILIES
from visionr1.models.loading import DEFAULT_DIALECTS

TOLERANCE = 1e-5
"""The largest difference in a log-probability, and relative one of all gradients, that counts as equal in float32."""


def read_families() -> list[dict[str, Any]]:
    """Return a row for each family: those measured, and those registered since, whose status says that they are not."""
    rows = []
    for measured in read_json(families_path()):
        row = dict(measured)
        fault = find_fault(row)
        if fault:
            row["status"] = f"not exact: {fault}"
        rows.append(row)

    known = {row["model_type"] for row in rows}
    for name in dict.fromkeys((*FAMILIES, *DEFAULT_DIALECTS)):
        if name not in known:
            rows.append({"family": name, "model_type": name, "status": "not run"})
    return rows


def find_fault(row: dict[str, Any]) -> str:
    """Return which check a measured family did not pass; empty if it passed all, or was not run."""
    if row["status"] != "ok":
        return ""
    for name in ("logprobs", "gradients", "sampled"):
        if row[name] > TOLERANCE:
            return f"{name} differ by {row[name]:.0e}"
    for name in ("greedy", "together", "reloads"):
        if not row[name]:
            return name
    return "" if row["grpo_step"] == "ok" else f"a step of GRPO: {row['grpo_step']}"
