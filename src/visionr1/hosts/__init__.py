"""The reward inside other training frameworks: TRL, verl, ms-swift, EasyR1 and OpenRLHF.

One file per host holds the function or class that its public plug-in call expects, a few lines over `core.score`. All
read one JSON ground truth (`ground_truth.to_json` writes it). `docs/hosts.md` says how each is used and what was tried.
"""

from visionr1.hosts.ground_truth import HostTruth, from_json, to_json

__all__ = ["HostTruth", "from_json", "to_json"]
