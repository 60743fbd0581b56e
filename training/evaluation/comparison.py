"""From what rankers said to what is reported of them: functions of the saved tables alone.

Axes: E users, C candidates of which the first is the positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from models.config import Config
from models.rankers.base import Ranker
from training.evaluation.metrics import (
    METRICS,
    Estimate,
    RankingReport,
    calibration_error,
    chance_metrics,
    paired_difference,
    rank_correlation,
    report_ranks,
)
from training.evaluation.tables import ScoreTables

COMPARED_METRICS = ("hit@1", "ndcg@10")

Differences = dict[str, dict[str, Estimate]]
"""By group and metric."""


class Entry(Config):
    """Who takes part.

    Attributes:
        title: for people.
        needs_llm: whether it asks an LLM.
        reads: id of the ranker that reads exactly what this one is told.
        beside: id of the ranker that it was before it learned.
    """

    title: str
    needs_llm: bool = False
    reads: str | None = None
    beside: str | None = None

    @classmethod
    def of(cls, ranker: Ranker) -> Entry:
        """As `ranker` presents itself."""
        return cls(title=ranker.title, needs_llm=ranker.needs_llm, reads=ranker.reads, beside=ranker.beside)


class RankerReport(Config):
    """How one ranker did under one protocol.

    Attributes:
        title: for people.
        groups: `overall`, and the groups of `HeldOut`; of the users that all rankers of the protocol were asked about,
            so that these can be compared.
        of_all: the same of all that it was asked about itself; empty where these are no more.
        differences: to the reference, to the strongest opponent and to what it was before it learned, by their ids:
            this ranker less the other, user by user, by group and metric; of the users of `groups`.
        calibration_error: expected, of the probabilities that its logits stand for; None where it gives none.
        rank_correlation: mean Spearman correlation with the reference's order of the candidates.
        known_correlation: that over the candidates with training interactions: of the others a backbone's order says
            nothing.
        reading_correlation: that with the order of the ranker that it `reads`, if there is one.
    """

    title: str
    groups: dict[str, RankingReport]
    of_all: dict[str, RankingReport] = Field(default_factory=dict)
    differences: dict[str, Differences] = Field(default_factory=dict)
    calibration_error: float | None = None
    rank_correlation: float | None = None
    known_correlation: float | None = None
    reading_correlation: float | None = None


class ProtocolReport(Config):
    """How all did under one protocol.

    Attributes:
        title: for people.
        users: how many any ranker was asked about.
        shared_users: how many of these all rankers were asked about; the figures of `groups` are of them.
        chance: what a random order has on them, by metric; empty where there is no such thing.
        rankers: by id.
    """

    title: str
    users: int
    shared_users: int = 0
    chance: dict[str, float] = Field(default_factory=dict)
    rankers: dict[str, RankerReport]


class CheckReport(Config):
    """What rankers lose when something is taken from them: it says what they use.

    Attributes:
        title: of the check, for people.
        losses: by ranker id: with it less without, user by user, by group and metric.
    """

    title: str
    losses: dict[str, Differences]


class Bootstrap(Config):
    """How intervals are found.

    Attributes:
        resamples: of the users.
        seed: of these.
    """

    resamples: int
    seed: int


def compare(
    tables: ScoreTables, entries: Mapping[str, Entry], others: Sequence[str], bootstrap: Bootstrap
) -> ProtocolReport:
    """How the rankers of `tables` did on the users that all of them were asked about.

    Args:
        tables: what they said.
        entries: who they are, in the order of the report.
        others: ids of those that all are compared with.
        bootstrap: how intervals are found.
    """
    measure = tables.measure
    asked = {name: tables.ranks(name) for name in entries if name in tables}
    shared_E = ~np.any([np.isnan(ranks_E) for ranks_E in asked.values()], axis=0)
    ranks = {name: np.where(shared_E, ranks_E, np.nan) for name, ranks_E in asked.items()}
    more = {name for name, ranks_E in asked.items() if not np.isnan(ranks_E[~shared_E]).all()}
    rankers = {
        name: RankerReport(
            title=entries[name].title,
            groups=group_reports(ranks_E, tables, bootstrap),
            of_all=group_reports(asked[name], tables, bootstrap) if name in more else {},
            differences={
                other: differences(ranks_E, ranks[other], tables, bootstrap)
                for other in dict.fromkeys([*others, entries[name].beside or ""])
                if other in ranks
            },
        )
        for name, ranks_E in ranks.items()
    }
    chance = chance_metrics(tables.facts["choices"][shared_E], measure.metrics) if measure.chance else {}
    shared = int(shared_E.sum())
    return ProtocolReport(title=measure.title, users=tables.users, shared_users=shared, chance=chance, rankers=rankers)


def with_orders(
    found: ProtocolReport, tables: ScoreTables, entries: Mapping[str, Entry], reference: str
) -> dict[str, RankerReport]:
    """The rankers of `found` with what only tables of logits tell: calibration, and whose order theirs is like."""
    others = tables.scores(reference)
    known = np.where(tables.facts["known"], others, -np.inf)
    reports = {}
    for name, ranker in found.rankers.items():
        rows, reads = tables.rows(name), entries[name].reads
        scores = tables.scores(name)[rows]
        reports[name] = ranker.model_copy(
            update={
                "calibration_error": calibration_error(scores),
                "rank_correlation": rank_correlation(scores, others[rows]),
                "known_correlation": rank_correlation(scores, known[rows]),
                "reading_correlation": None if reads is None else rank_correlation(scores, tables.scores(reads)[rows]),
            }
        )
    return reports


def group_reports(ranks_E: np.ndarray, tables: ScoreTables, bootstrap: Bootstrap) -> dict[str, RankingReport]:
    """By group the metrics of the users with a rank."""
    asked = ~np.isnan(ranks_E)
    masks = {name: mask[asked] for name, mask in tables.groups.items()}
    return report_ranks(ranks_E[asked], masks, bootstrap.resamples, bootstrap.seed, tables.measure.metrics)


def differences(ranks_E: np.ndarray, others_E: np.ndarray, tables: ScoreTables, bootstrap: Bootstrap) -> Differences:
    """By group and metric how much better one is than another, of the users that both have a rank for."""
    both = ~(np.isnan(ranks_E) | np.isnan(others_E))
    names = [name for name in COMPARED_METRICS if name in tables.measure.metrics]
    found: Differences = {}
    for group, mask in tables.groups.items():
        chosen = both & mask
        if chosen.any():
            found[group] = {
                name: paired_difference(
                    METRICS[name](ranks_E[chosen]), METRICS[name](others_E[chosen]), bootstrap.resamples, bootstrap.seed
                )
                for name in names
            }
    return found


def check(changed: ScoreTables, unchanged: ScoreTables, bootstrap: Bootstrap) -> CheckReport:
    """What every ranker of `changed` loses; both tables are of the same users."""
    losses = {
        name: differences(unchanged.ranks(name), changed.ranks(name), changed, bootstrap)
        for name in changed.ranker_ids
        if name in unchanged
    }
    return CheckReport(title=changed.measure.title, losses=losses)


def strongest(
    tables: ScoreTables, entries: Mapping[str, Entry], without: Sequence[str]
) -> tuple[str | None, dict[str, float]]:
    """The id of the ranker with the best NDCG@10 of those that need no LLM, and that figure of all; None if none is.

    Args:
        tables: of validation users: what is best on test users is not chosen there.
        entries: who takes part.
        without: ids of those that are no opponents.
    """
    means = {
        name: float(METRICS["ndcg@10"](tables.ranks(name)).mean())
        for name, entry in entries.items()
        if not entry.needs_llm and name in tables
    }
    opponents = {name: mean for name, mean in means.items() if name not in without}
    return max(opponents, key=lambda name: opponents[name], default=None), means
