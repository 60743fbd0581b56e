"""Protocols: what rankers are asked about held-out items, and what of it is kept. None knows a ranker by name.

Axes: E users, C candidates of which the first is the positive, N items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

import numpy as np

from models.catalogue import PADDING_ITEM
from models.rankers.base import Ranker
from models.recommending.serving import Serving
from training.evaluation.held_out import HeldOut
from training.evaluation.measures import FULL, POPULAR, SERVED, Measure
from training.evaluation.metrics import positive_ranks
from training.evaluation.tables import ScoreTables, facts_of
from training.runs.context import RunContext

SLOW_PART, FAST_PART = 32, 1024
"""Users that are scored at a time, with an LLM, whose answers are kept as they come, and without."""
CELLS = 500_000
"""Of a table of scores that is made at a time: rankers may hold a vector for every cell."""


class Protocol(ABC):
    """A way to ask rankers.

    Args:
        held_out: whom they are asked about, and among what.
        measure: what it is called.
    """

    def __init__(self, measure: Measure, held_out: HeldOut) -> None:
        self.measure, self.held_out = measure, held_out

    def admits(self, ranker: Ranker) -> bool:  # noqa: ARG002
        """Whether `ranker` can be asked."""
        return True

    @property
    def width(self) -> int:
        """Candidates of a user."""
        return self.held_out.candidates.items.shape[1]

    @abstractmethod
    async def ask(self, ranker: Ranker, part: HeldOut) -> np.ndarray:
        """What is kept of the users `part`: (E, C) scores, or (E,) ranks where the measure keeps those."""

    def facts(self, fewer: int, made_from: str = "") -> dict[str, np.ndarray]:
        """What the scores are about; see `facts_of`."""
        return facts_of(self.held_out, fewer, made_from)


class Sampled(Protocol):
    """The candidates as they are."""

    async def ask(self, ranker: Ranker, part: HeldOut) -> np.ndarray:
        """See `Protocol.ask`."""
        scores_E_C = await ranker.score(part.users, part.candidates.items)
        return positive_ranks(scores_E_C) if self.measure.keeps_ranks else scores_E_C


class Windowed(Protocol):
    """The candidates as serving ranks them: an LLM, whose prompt has no room for all, is asked about the first ones."""

    def __init__(self, measure: Measure, held_out: HeldOut, serving: Serving) -> None:
        super().__init__(measure, held_out)
        self._serving = serving

    async def ask(self, ranker: Ranker, part: HeldOut) -> np.ndarray:
        """See `Protocol.ask`."""
        return await self._serving.rank(ranker, part.users, part.candidates.items)


def popular(held_out: HeldOut, seed: int, serving: Serving | None) -> Protocol:
    """1 + 99 negatives by popularity."""
    asked = held_out.among_popular(seed)
    return Sampled(POPULAR, asked) if serving is None else Windowed(POPULAR, asked, serving)


class Served(Windowed):
    """What serving does end to end: the positive counts only where it is retrieved, and nothing is that was seen.

    Candidates (E, 1 + K) are the positive, never ranked if it was not retrieved, and what else was.
    """

    def __init__(self, held_out: HeldOut, serving: Serving) -> None:
        found_E_K = serving.retrieve(held_out.users)
        positives = held_out.positives
        others_E_K = np.where(found_E_K == positives[:, None], PADDING_ITEM, found_E_K)
        super().__init__(SERVED, held_out.among(np.column_stack([positives, others_E_K])), serving)
        self._found = set(held_out.candidates.users[(found_E_K == positives[:, None]).any(axis=1)].tolist())

    async def ask(self, ranker: Ranker, part: HeldOut) -> np.ndarray:
        """See `Protocol.ask`."""
        found = np.asarray([user in self._found for user in part.candidates.users.tolist()], dtype=bool)
        items = part.candidates.items.copy()
        items[~found, 0] = PADDING_ITEM
        scores_E_C = await self._serving.rank(ranker, part.users, items)
        # What was not retrieved stands behind all that could have been: no metric looks that far.
        return np.where(items == PADDING_ITEM, -np.inf, scores_E_C)


class FullCatalogue(Protocol):
    """All items that the user did not know; a positive that the user met before counts as new, as among candidates."""

    def __init__(self, held_out: HeldOut) -> None:
        super().__init__(FULL, held_out.among(held_out.positives[:, None]))

    def admits(self, ranker: Ranker) -> bool:
        """Those that say that they can."""
        return ranker.ranks_catalogue

    @property
    def width(self) -> int:
        """N + 1."""
        return len(self.held_out.catalogue) + 1

    def facts(self, fewer: int, made_from: str = "") -> dict[str, np.ndarray]:
        """With as many choices as a user has items to meet."""
        known = [len(np.setdiff1d(items, [positive])) for items, positive in self._known]
        return {**super().facts(fewer, made_from), "choices": self.width - 1 - np.asarray(known, dtype=np.int64)}

    async def ask(self, ranker: Ranker, part: HeldOut) -> np.ndarray:
        """See `Protocol.ask`."""
        logits_E_N = await ranker.score_all(part.users, len(part.catalogue))
        return full_ranks(logits_E_N, part.users.histories, part.positives)

    @property
    def _known(self) -> Sequence[tuple[np.ndarray, int]]:
        return list(zip(self.held_out.users.histories, self.held_out.positives.tolist(), strict=True))


def full_ranks(logits_E_N: np.ndarray, histories: Sequence[np.ndarray], positives: np.ndarray) -> np.ndarray:
    """(E,) the positives' ranks in logits (E, N+1) of all items, without those of the histories. Ties count against."""
    rows = np.arange(len(positives))
    ahead_E_N = ~(logits_E_N < logits_E_N[rows, positives][:, None])
    for row, history in enumerate(histories):
        ahead_E_N[row, history] = False
    ahead_E_N[:, PADDING_ITEM] = False
    ahead_E_N[rows, positives] = False
    return 1 + ahead_E_N.sum(axis=1)


async def ask_all(
    protocol: Protocol, rankers: Sequence[Ranker], fewer: int, run: RunContext, label: str | None = None
) -> ScoreTables:
    """What all `rankers` that the protocol admits say, kept in the run's directory ranker by ranker.

    Args:
        protocol: how they are asked.
        rankers: those that need an LLM are asked about `fewer` users.
        fewer: at most so many, spread evenly.
        run: whose directory and console.
        label: stands before the progress bar; the measure's title if not given.
    """
    tables = ScoreTables.open(protocol.measure, run.directory, protocol.facts(fewer, run.fingerprint))
    admitted = [ranker for ranker in rankers if protocol.admits(ranker)]
    with run.progress() as bar:
        task = bar.add_task(label or protocol.measure.title, total=len(admitted) * len(protocol.held_out))
        for ranker in admitted:
            bar.update(task, description=f"{label or protocol.measure.title}: {ranker.title}")
            if ranker.id not in tables:
                asked = protocol.held_out.take(tables.facts["fewer"]) if ranker.needs_llm else protocol.held_out
                share = len(protocol.held_out) / len(asked)
                async for said in _ask(protocol, ranker, asked, tables):
                    bar.advance(task, said * share)
            else:
                bar.advance(task, len(protocol.held_out))
    return tables


async def _ask(protocol: Protocol, ranker: Ranker, asked: HeldOut, tables: ScoreTables) -> AsyncIterator[int]:
    """Ask a ranker about the users that it was not yet asked about, and say of how many it has told."""
    rows = max(1, min(SLOW_PART if ranker.needs_llm else FAST_PART, CELLS // protocol.width))
    before = tables.part(ranker.id)
    parts = [] if before is None else [before]
    start = sum(map(len, parts))
    yield start
    while start < len(asked):
        parts.append(await protocol.ask(ranker, asked.part(start, start + rows)))
        start += len(parts[-1])
        if ranker.needs_llm and start < len(asked):
            tables.add_part(ranker.id, np.concatenate(parts))
        yield len(parts[-1])
    tables.add(ranker.id, np.concatenate(parts))
