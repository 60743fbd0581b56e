"""The port of rankers: what evaluation, serving and batch jobs order items with.

To add one: subclass `Ranker` in a module of its own, and have a method (`training.evaluation.methods`) return it. No
other file changes; the behaviour suite in `tests/models/rankers/suite.py` says what every ranker keeps to.

Axes: E users, C candidates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.catalogue import PADDING_ITEM


@dataclass(frozen=True)
class Audience:
    """E users and what they did.

    Attributes:
        user_ids: public ids, for rankers that know users by name; "" for somebody unknown.
        histories: E arrays of item numbers, oldest first.
        vectors: (E, d) x_u as a bundle's model has them, where they are at hand; computed where not.
        seconds: (E, d_2) what its second backbone makes of the histories, likewise.
    """

    user_ids: Sequence[str]
    histories: Sequence[np.ndarray]
    vectors: torch.Tensor | None = None
    seconds: torch.Tensor | None = None

    def __len__(self) -> int:
        """The number of users E."""
        return len(self.histories)

    def part(self, start: int, stop: int) -> Audience:
        """The users from row `start` up to `stop`."""
        vectors = None if self.vectors is None else self.vectors[start:stop]
        seconds = None if self.seconds is None else self.seconds[start:stop]
        return Audience(self.user_ids[start:stop], self.histories[start:stop], vectors, seconds)


class Ranker(ABC):
    """Gives every candidate a logit: within a user, higher is better.

    A candidate's logit depends on the user and on which the candidates are, not on their order; padding has -inf.

    Attributes:
        id: stable and unique, for reports, settings and bundles; lower case with underscores.
        title: for people.
        reads: id of the ranker that reads exactly what this one is told, to be compared with it; None if there is none.
        beside: id of the ranker that it was before it learned, with which it is compared user by user; None if none.
        needs_llm: whether it asks an LLM, and so takes its time.
        ranks_catalogue: whether it can score all items of a catalogue for thousands of users; see `score_all`.
    """

    id: str
    title: str
    reads: str | None = None
    beside: str | None = None
    needs_llm: bool = False
    ranks_catalogue: bool = False

    @abstractmethod
    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """(E, C) logits, -inf at padding.

        Args:
            users: E users.
            candidates_E_C: int64 item numbers, 0 at padding.
        """

    async def score_all(self, users: Audience, items: int) -> np.ndarray:
        """(E, N+1) logits of a whole catalogue, -inf at padding; as `score` gives them, perhaps faster.

        Args:
            users: E users, few enough for a table of this size and what it takes to fill it.
            items: N.
        """
        everything_E_N = np.broadcast_to(np.arange(items + 1, dtype=np.int64), (len(users), items + 1))
        return await self.score(users, everything_E_N)


class LocalRanker(Ranker):
    """A ranker that computes its scores here and now, so that code outside an event loop can have them too."""

    @abstractmethod
    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """As `score`."""

    async def score(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        return self.compute(users, candidates_E_C)


def mask_padding(logits_E_C: np.ndarray, candidates_E_C: np.ndarray) -> np.ndarray:
    """`logits_E_C` in float64 with -inf where there is no candidate."""
    return np.where(candidates_E_C != PADDING_ITEM, logits_E_C, -np.inf).astype(np.float64)
