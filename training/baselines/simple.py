"""What every evaluation is measured against: chance and popularity."""

from __future__ import annotations

from models.rankers.base import Ranker
from models.rankers.simple import PopularityRanker, RandomRanker
from training.data.splits import SequenceSplit
from training.evaluation.methods import method
from training.runs.context import RunContext


@method("chance")
def chance(_: SequenceSplit, __: RunContext) -> list[Ranker]:
    """Numbers at random."""
    return [RandomRanker()]


@method("popularity")
def popularity(split: SequenceSplit, _: RunContext) -> list[Ranker]:
    """The items with the most training interactions first."""
    return [PopularityRanker(split.catalogue.interactions)]
