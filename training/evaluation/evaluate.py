"""The evaluation: every ranker on the same users and candidates (A-LLMRec section 5), none known by name.

Axes: E users, C candidates of which the first is the positive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field as ConfigField

from models.config import Config
from models.files import written_atomically
from models.rankers.base import Ranker
from models.threads import one_thread
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import (
    Estimate,
    RankingReport,
    hit_at,
    paired_difference,
    positive_ranks,
    rank_correlation,
    report,
)
from training.evaluation.retrieval import Retriever, recalls
from training.runs.context import RunContext

PART = 128
"""Users that are scored at a time: what an interrupted evaluation loses at most."""
SCORES_FILE = "scores.npz"


class EvaluationConfig(Config):
    """The stage `evaluate`.

    Attributes:
        users: at most this many users are ranked for, the same by all rankers.
        resamples: of the bootstrap.
        seed: of the candidates and the bootstrap.
    """

    users: int = ConfigField(2000, gt=0)
    resamples: int = ConfigField(2000, gt=0)
    seed: int = 0


class RankerReport(Config):
    """How one ranker did.

    Attributes:
        title: for people.
        groups: `overall`, and the groups of `HeldOut`.
        differences: Hit@1 less the reference's, user by user, for every group with users.
        rank_correlation: mean Spearman correlation with the reference's order of the candidates.
        known_correlation: that over the candidates with training interactions: of the others a backbone's order says
            nothing.
        reading_correlation: that with the order of the ranker that it `reads`, if there is one.
    """

    title: str
    groups: dict[str, RankingReport]
    differences: dict[str, Estimate] = ConfigField(default_factory=dict)
    rank_correlation: float
    known_correlation: float | None = None
    reading_correlation: float | None = None


class EvaluationReport(Config):
    """`report.json`.

    Attributes:
        dataset: its name.
        llm: its name.
        reference: id of the ranker that all are compared with.
        items: N.
        users: users who have a test item.
        ranked_users: how many of them the rankers were compared on.
        seed: of the candidates.
        rankers: by id.
        all_users: the rankers that need no LLM on all users, by id and group.
        retrieval: share of positives among the first 20 and 100 of all items, by retriever, group and `recall@K`.
        retrievers: their titles by id.
        genres: how often each way of guessing names the user's favourite genre.
    """

    dataset: str = ""
    llm: str = ""
    reference: str
    items: int
    users: int
    ranked_users: int
    seed: int
    rankers: dict[str, RankerReport]
    all_users: dict[str, dict[str, RankingReport]]
    retrieval: dict[str, dict[str, dict[str, Estimate]]]
    retrievers: dict[str, str]
    genres: dict[str, Estimate] = ConfigField(default_factory=dict)


@dataclass(frozen=True)
class Field:
    """What is compared.

    Attributes:
        rankers: their ids are unique.
        reference: id of the ranker that all are compared with.
        retrievers: ways to search the whole catalogue.
    """

    rankers: Sequence[Ranker]
    reference: str
    retrievers: Sequence[Retriever] = ()

    def __post_init__(self) -> None:
        if len({ranker.id for ranker in self.rankers}) != len(self.rankers):
            raise ValueError(f"rankers with the same id: {sorted(ranker.id for ranker in self.rankers)}")


def evaluate(
    everyone: HeldOut, field: AbstractAsyncContextManager[Field], config: EvaluationConfig, run: RunContext
) -> EvaluationReport:
    """Evaluate on the held-out items of `everyone`.

    Args:
        everyone: all users who have a held-out item. The rankers are compared on `config.users` of them.
        field: what is compared, entered for as long as it takes.
        config: of the stage.
        run: gets `scores.npz`: users, candidates and the scores of the rankers that are done, from which an interrupted
            evaluation goes on.
    """
    sample = everyone.at_most(config.users)

    async def work() -> EvaluationReport:
        async with field as compared:
            fast = [ranker for ranker in compared.rankers if not ranker.needs_llm]
            scores = await score_all(compared.rankers, sample, run)
            for_all = {ranker.id: await ranker.score(everyone.users, everyone.candidates.items) for ranker in fast}
            return EvaluationReport(
                reference=compared.reference,
                items=len(everyone.catalogue),
                users=len(everyone),
                ranked_users=len(sample),
                seed=config.seed,
                rankers=compare(compared, scores, sample, config),
                all_users={
                    name: report(values, everyone.groups, config.resamples, config.seed)
                    for name, values in for_all.items()
                },
                retrieval={
                    retriever.id: recalls(retriever, everyone, config.resamples, config.seed)
                    for retriever in compared.retrievers
                },
                retrievers={retriever.id: retriever.title for retriever in compared.retrievers},
            )

    with one_thread():
        return asyncio.run(work())


async def score_all(rankers: Sequence[Ranker], held_out: HeldOut, run: RunContext) -> dict[str, np.ndarray]:
    """By ranker id the scores (E, C), kept in `scores.npz` of the run's directory as they come."""
    path = run.directory / SCORES_FILE
    candidates = {"users": held_out.candidates.users, "candidates": held_out.candidates.items}
    scores = _load_scores(path, candidates)
    with run.progress() as bar:
        task = bar.add_task("ranking", total=len(rankers) * len(held_out))
        for ranker in rankers:
            bar.update(task, description=ranker.title)
            if ranker.id in scores:
                bar.advance(task, len(held_out))
                continue
            parts = []
            for start in range(0, len(held_out), PART):
                stop = min(start + PART, len(held_out))
                parts.append(
                    await ranker.score(held_out.users.part(start, stop), held_out.candidates.items[start:stop])
                )
                bar.advance(task, stop - start)
            scores[ranker.id] = np.concatenate(parts)
            with written_atomically(path) as partial, partial.open("wb") as file:
                np.savez_compressed(file, **{**candidates, **scores})  # type: ignore[arg-type]
    return {ranker.id: scores[ranker.id] for ranker in rankers}


def _load_scores(path: Path, candidates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What was scored before, for the same users and candidates."""
    if not path.is_file():
        return {}
    with np.load(path) as saved:
        if not all(np.array_equal(saved[name], values) for name, values in candidates.items()):
            return {}
        return {name: saved[name] for name in saved.files if name not in candidates}


def compare(
    field: Field, scores: Mapping[str, np.ndarray], held_out: HeldOut, config: EvaluationConfig
) -> dict[str, RankerReport]:
    """By ranker id how good its scores (E, C) are."""
    others = scores[field.reference]
    known = np.where(held_out.catalogue.trained[held_out.candidates.items], others, -np.inf)
    return {
        ranker.id: RankerReport(
            title=ranker.title,
            groups=report(scores[ranker.id], held_out.groups, config.resamples, config.seed),
            differences=_differences(scores[ranker.id], others, held_out, config),
            rank_correlation=rank_correlation(scores[ranker.id], others),
            known_correlation=rank_correlation(scores[ranker.id], known),
            reading_correlation=None
            if ranker.reads is None
            else rank_correlation(scores[ranker.id], scores[ranker.reads]),
        )
        for ranker in field.rankers
    }


def _differences(
    scores_E_C: np.ndarray, reference_E_C: np.ndarray, held_out: HeldOut, config: EvaluationConfig
) -> dict[str, Estimate]:
    """By group Hit@1 less that of the reference."""
    hits, others = (hit_at(positive_ranks(scores), 1) for scores in (scores_E_C, reference_E_C))
    return {
        name: paired_difference(hits[mask], others[mask], config.resamples, config.seed)
        for name, mask in held_out.all_groups.items()
        if mask.any()
    }
