"""Several fits that differ by their seeds alone: means over all, intervals over users and seeds.

Axes: S seeds, U users, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from models.config import Config
from models.errors import DataError
from training.evaluation.comparison import COMPARED_METRICS, Bootstrap, Differences, Entry
from training.evaluation.evaluate import EvaluationReport
from training.evaluation.measures import PROTOCOLS
from training.evaluation.metrics import METRICS, Estimate, estimate_of
from training.evaluation.report import JSON_FILE
from training.evaluation.tables import ScoreTables


class SeedRanker(Config):
    """One ranker over all seeds.

    Attributes:
        title: for people.
        needs_llm: whether it asks an LLM.
        users: how many it was asked about.
        groups: by group and metric, of the users that all rankers of the protocol were asked about; groups without
            users are left out.
        of_all: the same of all that it was asked about itself; empty where these are no more.
        by_seed: the means of each seed over the users of `groups`, by metric.
        lead: of the default ranker over this one, user by user, by group and metric.
    """

    title: str
    needs_llm: bool
    users: int
    groups: Differences
    of_all: Differences = Field(default_factory=dict)
    by_seed: dict[str, list[float]]
    lead: Differences = Field(default_factory=dict)


class SeedProtocol(Config):
    """One protocol over all seeds.

    Attributes:
        title: for people.
        shared_users: how many all rankers were asked about.
        rankers: by id.
    """

    title: str
    shared_users: int = 0
    rankers: dict[str, SeedRanker]


class SeedReport(Config):
    """The results on one dataset.

    Attributes:
        dataset: its name.
        llm: its name.
        seeds: how many.
        items: N.
        users: that were ranked for, by group.
        default_ranker: id of the ranker that is served unless told otherwise.
        opponent: id of the strongest that needs no LLM, by its mean NDCG@10 on validation items.
        chance: Hit@1 of a random order of 1 + 19.
        protocols: by id.
    """

    dataset: str
    llm: str
    seeds: int
    items: int
    users: dict[str, int]
    default_ranker: str | None
    opponent: str | None
    chance: float
    protocols: dict[str, SeedProtocol]


@dataclass(frozen=True)
class Resampling:
    """Seeds and the users of groups, both drawn anew with replacement, R times.

    Attributes:
        seeds: (R, S) how often each seed is drawn, as shares.
        groups: (U,) masks by name; groups without users are left out.
        bootstrap: R, and the seed of the draws.
    """

    seeds: np.ndarray
    groups: Mapping[str, np.ndarray]
    bootstrap: Bootstrap

    @classmethod
    def of(cls, seeds: int, groups: Mapping[str, np.ndarray], bootstrap: Bootstrap) -> Resampling:
        """For S seeds and (U,) masks by group."""
        rng = np.random.default_rng(bootstrap.seed)
        drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=bootstrap.resamples) / seeds
        return cls(drawn, {name: mask for name, mask in groups.items() if mask.any()}, bootstrap)

    def estimate(self, values_S_U: np.ndarray, group: str) -> Estimate:
        """The mean of a metric over seeds and the users of a group, and its interval over both."""
        means_R, mean, users = self._means(values_S_U, group)
        return estimate_of(means_R, mean, users)

    def difference(self, values_S_U: np.ndarray, others_S_U: np.ndarray, group: str) -> Estimate:
        """How much more the same seeds and users have of one than of another."""
        means_R, mean, _ = self._means(values_S_U - others_S_U, group)
        low, high = np.percentile(means_R, [2.5, 97.5])
        return Estimate(mean=mean, low=float(low), high=float(high))

    def _means(self, values_S_U: np.ndarray, group: str) -> tuple[np.ndarray, float, int]:
        """(R,) resampled means, the mean itself, and of how many users.

        Users with the same values cannot be told apart, so what is drawn is how many there are of each kind.
        """
        inside_S_U = values_S_U[:, self.groups[group]]
        kinds_S_K, counts_K = np.unique(inside_S_U, axis=1, return_counts=True)
        users = int(counts_K.sum())
        # Not the draws of the seeds once more.
        rng = np.random.default_rng([self.bootstrap.seed, 1])
        shares_R_K = rng.multinomial(users, counts_K / users, size=self.bootstrap.resamples) / users
        return (self.seeds * (shares_R_K @ kinds_S_K.T)).sum(axis=1), float(inside_S_U.mean()), users


def aggregate(directories: Sequence[Path], bootstrap: Bootstrap) -> SeedReport:
    """The results of the evaluations in `directories`, one a seed.

    Raises:
        DataError: they are not of the same users.
    """
    reports = [EvaluationReport.model_validate_json((path / JSON_FILE).read_text("utf-8")) for path in directories]
    first = reports[0]
    opponents = {name: np.mean([report.validation.get(name, 0.0) for report in reports]) for name in first.validation}
    opponents.pop(first.default_ranker or "", None)
    return SeedReport(
        dataset=first.dataset,
        llm=first.llm,
        seeds=len(reports),
        items=first.items,
        users={name: found.users for name, found in next(iter(first.rankers.values())).groups.items()},
        default_ranker=first.default_ranker,
        opponent=max(opponents, key=lambda name: opponents[name], default=None),
        chance=float(np.mean([report.chance["hit@1"] for report in reports])),
        protocols={
            measure.id: _protocol([ScoreTables.load(measure, path) for path in directories], first, bootstrap)
            for measure in PROTOCOLS.values()
            if all((path / measure.file).is_file() for path in directories)
        },
    )


def _protocol(tables: Sequence[ScoreTables], report: EvaluationReport, bootstrap: Bootstrap) -> SeedProtocol:
    first = tables[0]
    if not all(np.array_equal(first.facts["users"], other.facts["users"]) for other in tables):
        raise DataError(f"{first.measure.title}: the seeds were evaluated on different users: evaluate them again")
    names = [name for name in report.entries if all(name in table for table in tables)]
    ranks = {name: np.stack([table.ranks(name) for table in tables]) for name in names}
    shared_U = ~np.any([np.isnan(ranks_S_U).any(axis=0) for ranks_S_U in ranks.values()], axis=0)
    shared = Resampling.of(len(tables), {name: mask & shared_U for name, mask in first.groups.items()}, bootstrap)
    # Who was asked about more than that, was asked about all.
    everyone = shared if shared_U.all() else Resampling.of(len(tables), {"overall": first.groups["overall"]}, bootstrap)
    best = report.default_ranker
    rankers = {}
    for name, ranks_S_U in ranks.items():
        entry = _ranker(report.entries[name], first, ranks_S_U, shared_U, shared)
        if entry.users > shared_U.sum():
            entry = entry.model_copy(update={"of_all": _estimates(first, ranks_S_U, everyone)})
        if best in ranks and name != best:
            entry = entry.model_copy(update={"lead": _lead(ranks[best], ranks_S_U, shared)})
        rankers[name] = entry
    return SeedProtocol(title=first.measure.title, shared_users=int(shared_U.sum()), rankers=rankers)


def _ranker(
    entry: Entry, tables: ScoreTables, ranks_S_U: np.ndarray, shared_U: np.ndarray, resampling: Resampling
) -> SeedRanker:
    return SeedRanker(
        title=entry.title,
        needs_llm=entry.needs_llm,
        users=int((~np.isnan(ranks_S_U[0])).sum()),
        groups=_estimates(tables, ranks_S_U, resampling),
        by_seed={name: _values(name, ranks_S_U[:, shared_U]).mean(axis=1).tolist() for name in tables.measure.metrics},
    )


def _estimates(tables: ScoreTables, ranks_S_U: np.ndarray, resampling: Resampling) -> Differences:
    values = {name: _values(name, ranks_S_U) for name in tables.measure.metrics}
    return {
        group: {name: resampling.estimate(table, group) for name, table in values.items()}
        for group in resampling.groups
    }


def _lead(ranks_S_U: np.ndarray, others_S_U: np.ndarray, resampling: Resampling) -> Differences:
    return {
        group: {
            name: resampling.difference(_values(name, ranks_S_U), _values(name, others_S_U), group)
            for name in COMPARED_METRICS
        }
        for group in resampling.groups
    }


def _values(name: str, ranks_S_U: np.ndarray) -> np.ndarray:
    """(S, U) the metric, 0 where a user was not asked about: such users have no share in any resample."""
    return np.where(np.isnan(ranks_S_U), 0.0, METRICS[name](np.nan_to_num(ranks_S_U, nan=1.0)))
