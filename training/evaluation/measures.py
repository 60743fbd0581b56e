"""What is measured, by stable ids: of each measure, which metrics it has and in which file its scores are kept."""

from __future__ import annotations

from dataclasses import dataclass

from training.evaluation.metrics import CANDIDATE_METRICS

FULL_METRICS = ("ndcg@10", "hit@1", "recall@20", "recall@100")
SERVED_METRICS = ("ndcg@10", "hit@1", "hit@10", "recall@100")


@dataclass(frozen=True)
class Measure:
    """One of an evaluation.

    Attributes:
        id: stable, for reports and files.
        title: for people.
        metrics: names of those that are reported.
        keeps_ranks: the file holds (E,) ranks of the positives, not (E, C) scores of candidates.
        chance: whether a random order has a figure to compare with.
    """

    id: str
    title: str
    metrics: tuple[str, ...] = CANDIDATE_METRICS
    keeps_ranks: bool = False
    chance: bool = True

    @property
    def file(self) -> str:
        """Where scores or ranks are kept, in the evaluation's directory."""
        if self.id == "uniform":
            return "scores.npz"
        return f"{'ranks' if self.keeps_ranks else 'scores'}-{self.id.replace('_', '-')}.npz"


UNIFORM = Measure("uniform", "1 + 19 uniform negatives")
POPULAR = Measure("popular", "1 + 99 negatives by popularity")
FULL = Measure("full", "The whole catalogue", FULL_METRICS, keeps_ranks=True)
SERVED = Measure("served", "As served: 100 retrieved, 20 ranked by the LLM", SERVED_METRICS, chance=False)
PROTOCOLS = {measure.id: measure for measure in (UNIFORM, POPULAR, FULL, SERVED)}

ALL_USERS = Measure("all_users", "All users, without the LLM", keeps_ranks=True)
VALIDATION = Measure("validation", "Validation", keeps_ranks=True)
RETRIEVAL = Measure("retrieval", "Retrieval", ("recall@20", "recall@100"), keeps_ranks=True)

PERMUTED_TITLES = Measure("permuted_titles", "Titles permuted among items")
SHUFFLED_HISTORIES = Measure("shuffled_histories", "Histories shuffled")
CHECKS = {measure.id: measure for measure in (PERMUTED_TITLES, SHUFFLED_HISTORIES)}
