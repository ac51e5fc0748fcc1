"""The model families that share a prefix: one file each, or one of an installed package (`visionr1.model_family`).

A record is a `family.Family`; its name is the `model_type` in the config.json of its checkpoints.
"""

from visionr1.models.family import Family
from visionr1.registry import Registry

FAMILIES = Registry[Family]("model family", packages=("visionr1.models.families",), attribute="FAMILY")
