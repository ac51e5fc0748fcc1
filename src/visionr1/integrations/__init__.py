"""The reward inside other training frameworks: TRL, verl, ms-swift, EasyR1 and OpenRLHF.

One file per framework holds the function or class that its plug-in call expects, a few lines over `core.score`. All
read one JSON ground truth (`ground_truth.to_json` writes it). `docs/integrations.md` says how each is used.
"""

from visionr1.integrations.ground_truth import HostTruth, from_json, to_json

__all__ = ["HostTruth", "from_json", "to_json"]
