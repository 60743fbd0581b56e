"""What signals say of validation candidates.

These are of users who had not met their item before: no negative is ever of the history, so a repeat could be told by
that.

Axes: E users, times draws of negatives, C candidates of which the first is the positive, F signals.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.rankers.base import Ranker
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut


@dataclass(frozen=True)
class Scored:
    """Signals' scores on validation candidates.

    Attributes:
        rankers: F signals.
        scores: by signal id (E, C), -inf at padding.
        interactions: (E, C) of the candidates in training.
        users: (E,) numbers of the users; one for every draw.
        cold: (E,) whether the positive is a cold item.
        cold_below: interactions from which on an item is not cold.
    """

    rankers: Sequence[Ranker]
    scores: Mapping[str, np.ndarray]
    interactions: np.ndarray
    users: np.ndarray
    cold: np.ndarray
    cold_below: float

    @property
    def real(self) -> np.ndarray:
        """(E, C) the candidates that are there."""
        return np.isfinite(next(iter(self.scores.values())))

    def without(self, users: np.ndarray) -> Scored:
        """The rows of all users but some, by their numbers."""
        rows = ~np.isin(self.users, users)
        return replace(
            self,
            scores={name: values[rows] for name, values in self.scores.items()},
            interactions=self.interactions[rows],
            users=self.users[rows],
            cold=self.cold[rows],
        )

    def only(self, ids: Collection[str]) -> Scored:
        """By some of the signals."""
        return replace(self, rankers=[ranker for ranker in self.rankers if ranker.id in ids])


async def score_signals(split: SequenceSplit, rankers: Sequence[Ranker], users: int, draws: int, seed: int) -> Scored:
    """Ask all `rankers` about the validation items of at most so many users, with so many draws of negatives each."""
    parts: list[tuple[HeldOut, dict[str, np.ndarray]]] = []
    for draw in range(draws):
        held_out = HeldOut.of(split, Holdout.VALIDATION, seed + 1000 + draw, users)
        held_out = held_out.take(held_out.groups["new"])
        items = held_out.candidates.items
        parts.append((held_out, {ranker.id: await ranker.score(held_out.users, items) for ranker in rankers}))
    interactions = [split.catalogue.interactions[held_out.candidates.items] for held_out, _ in parts]
    cold = split.cold_items
    return Scored(
        rankers=rankers,
        scores={ranker.id: np.concatenate([scores[ranker.id] for _, scores in parts]) for ranker in rankers},
        interactions=np.concatenate(interactions),
        users=np.concatenate([held_out.candidates.users for held_out, _ in parts]),
        cold=np.concatenate([held_out.groups["cold"] for held_out, _ in parts]),
        cold_below=float(split.catalogue.interactions[cold].max(initial=0)),
    )
