"""Instruction templates of the paper, word for word (Vision-R1, arXiv 2503.18013, Table 8)."""

from __future__ import annotations

from visionr1.samples import Query, Task

# family -> task -> template; {} stands for the category list, the category or the expression.
TEMPLATES: dict[str, dict[Task, str]] = {
    "qwen": {
        "detection": "Locate every item from the category list in the image and output the coordinates in JSON format. "
        "The category set includes {}.",
        "grounding": "Locate every {} in the image and output the coordinates in JSON format.",
        "referring": "Locate every {} in the image and output the coordinates in JSON format.",
    },
    "griffon": {
        "detection": "Examine the image for any objects from the category set. Report the coordinates of each detected "
        "object. The category set includes {}.",
        "grounding": "Locate the exact position of {} in the picture, if you can.",
        "referring": "Can you point out {} in the image and provide the coordinates of its location?",
    },
}


def instruction(query: Query, family: str = "qwen", template: str = "") -> str:
    """What a model of `family` is asked for `query`; categories are joined with a comma and a blank.

    `template`, with {} for the categories, takes the place of the family's.
    """
    if family not in TEMPLATES:
        raise ValueError(f"unknown prompt family {family!r}; known: {', '.join(TEMPLATES)}")
    return (template or TEMPLATES[family][query.task]).replace("{}", ", ".join(query.categories))
