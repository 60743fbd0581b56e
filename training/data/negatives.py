"""Uniform negatives, vectorised, that end on any catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.catalogue import PADDING_ITEM
from training.data.sequences import Sequences

REJECTION_ROUNDS = 8

Propose = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Items (n,) for n places, given by row and column: what may be a negative there. 0 for none."""


class NegativeSampler:
    """Draws items that a user has not interacted with.

    Args:
        interacted: for each of U users the numbers of the items never to be drawn.
        population: the item numbers to draw from, unique.
    """

    def __init__(self, interacted: Sequence[np.ndarray], population: np.ndarray) -> None:
        self._population = np.asarray(population, dtype=np.int64)
        self._interacted = interacted
        if len(self._population) == 0:
            raise ValueError("there are no items to draw from")
        flat = Sequences.of(interacted)
        self._stride = 1 + max(int(self._population.max()), int(flat.items.max(initial=0)))
        self._keys = np.unique(flat.owners * self._stride + flat.items)

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether each user has interacted with each item; the arguments are broadcast."""
        keys = np.asarray(users, dtype=np.int64) * self._stride + items
        if len(self._keys) == 0:
            return np.zeros(keys.shape, dtype=bool)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[places] == keys)

    def sample(self, users: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw independently, repeats allowed: one negative for each of `count` positions, as BCE wants.

        Args:
            users: (B,) user rows.
            count: draws per user.
            rng: the source of randomness.

        Returns:
            (B, count) item numbers; padding for a user who has interacted with the whole population.
        """
        users_B = np.asarray(users, dtype=np.int64)
        drawn = self._population[rng.integers(len(self._population), size=(len(users_B), count))]
        for _ in range(REJECTION_ROUNDS):
            rows, columns = np.nonzero(self.contains(users_B[:, None], drawn))
            if len(rows) == 0:
                return drawn
            drawn[rows, columns] = self._population[rng.integers(len(self._population), size=len(rows))]
        for row in np.flatnonzero(self.contains(users_B[:, None], drawn).any(axis=1)):
            free = self._free(int(users_B[row]))
            drawn[row] = rng.choice(free, size=count) if len(free) else PADDING_ITEM
        return drawn

    def sample_distinct(
        self, users: np.ndarray, count: int, rng: np.random.Generator, propose: Propose | None = None
    ) -> np.ndarray:
        """Draw without repeats, as evaluation candidates want.

        Args:
            users: (B,) user rows.
            count: draws per user.
            rng: the source of randomness.
            propose: what to try for some places, instead of uniform draws. What is refused at last is drawn uniformly.

        Returns:
            (B, count) item numbers; rows are filled up with padding where a user has fewer free items.
        """
        users_B = np.asarray(users, dtype=np.int64)
        if propose is None:
            drawn = self.uniform((len(users_B), count), rng)
        else:
            drawn = propose(*np.indices((len(users_B), count)).reshape(2, -1)).reshape(len(users_B), count)
        bad = self._refused(users_B, drawn)
        for round_ in range(REJECTION_ROUNDS):
            rows, columns = np.nonzero(bad)
            if len(rows) == 0:
                return drawn
            tried = propose is not None and round_ < REJECTION_ROUNDS // 2
            drawn[rows, columns] = propose(rows, columns) if propose and tried else self.uniform(len(rows), rng)
            bad = self._refused(users_B, drawn)
        for row in np.flatnonzero(bad.any(axis=1)):
            free = self._free(int(users_B[row]))
            chosen = rng.choice(free, size=min(count, len(free)), replace=False)
            drawn[row] = PADDING_ITEM
            drawn[row, : len(chosen)] = chosen
        return drawn

    def uniform(self, size: int | tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Items of the population, drawn independently, whoever met them."""
        return np.asarray(self._population[rng.integers(len(self._population), size=size)])

    def _refused(self, users_B: np.ndarray, drawn_B_K: np.ndarray) -> np.ndarray:
        """(B, K) what is no negative: repeated further left, met, or padding."""
        met_B_K = self.contains(users_B[:, None], drawn_B_K)
        return np.asarray(self._repeated(drawn_B_K) | met_B_K | (drawn_B_K == PADDING_ITEM))

    @staticmethod
    def _repeated(drawn_B_K: np.ndarray) -> np.ndarray:
        """(B, K) whether the same item stands further left in the row."""
        order = np.argsort(drawn_B_K, axis=1, kind="stable")
        ordered = np.take_along_axis(drawn_B_K, order, axis=1)
        repeated = np.zeros(drawn_B_K.shape, dtype=bool)
        np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        return repeated

    def _free(self, user: int) -> np.ndarray:
        return np.setdiff1d(self._population, self._interacted[user])
