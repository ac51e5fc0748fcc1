"""What a model is asked: the paper's instruction templates, those of models that it leaves out, and the thought's.

Table 8 of Vision-R1 (arXiv 2503.18013) words them for Qwen and Griffon. InternVL is asked as its documentation does for
its own form of boxes (internvl.readthedocs.io, "Grounding/Detection Data"), with the paper's sentence for the category
set. A dialect that thinks first is asked to as VLM-R1 asks (om-ai-lab/VLM-R1@90052f4, `qwen_module.py`, the template of
no particular task).
"""

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
"""Table 8, word for word."""

INTERNVL: dict[Task, str] = {
    "detection": "Please detect and label all objects in the following image and mark their positions. "
    "The category set includes {}.",
    "grounding": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
    "referring": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
}

THINK = (
    " First output the thinking process in <think> </think> tags and then output the final answer in "
    "<answer> </answer> tags."
)

_FAMILIES = {**TEMPLATES, "internvl": INTERNVL}


def instruction(query: Query, family: str = "qwen", template: str = "") -> str:
    """What a model of `family` is asked for `query`; categories are joined with a comma and a blank.

    `template`, with {} for the categories, takes the place of the family's. A family named think+ and another one is
    asked what that one is, and then to think first.
    """
    plain = family.removeprefix("think+")
    if plain not in _FAMILIES:
        raise ValueError(f"unknown prompt family {family!r}; known: {', '.join(_FAMILIES)}, each also after think+")
    asked = (template or _FAMILIES[plain][query.task]).replace("{}", ", ".join(query.categories))
    return asked if family == plain else asked + THINK
