"""A reward of a user's own, for random models: they never write a box, so any text earns something."""

from dataclasses import replace

from visionr1.dialects import Dialect
from visionr1.rewards import Reward, Score, Stage
from visionr1.samples import GroundTruth


class ByLetters:
    """The paper's parts with a total that depends on the letters of the text, so that every group has a gradient."""

    def __init__(self, dialect: Dialect) -> None:
        self.paper = Reward(dialect=dialect)

    def score(self, text: str, truth: GroundTruth, stage: Stage) -> Score:
        score = self.paper.score(text, truth, stage)
        return replace(score, total=float(sum(map(ord, text)) % 7))
