"""Rankers that know nothing of the user."""

from __future__ import annotations

import numpy as np

from models.rankers.base import Audience, LocalRanker, mask_padding

_MIX = np.uint64(0x9E3779B97F4A7C15)


class RandomRanker(LocalRanker):
    """Chance: a number that is drawn once for every user and item.

    Args:
        seed: of the numbers.
    """

    id, title = "random", "Random"
    ranks_catalogue = True

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        return mask_padding(drawn_numbers(users, candidates_E_C, self._seed), candidates_E_C)


class PopularityRanker(LocalRanker):
    """log(interactions + 1); equal counts are told apart at random, by less than one interaction.

    Args:
        interactions: (N+1,) training interactions of every item.
        seed: of what tells equal counts apart.
    """

    id, title = "popularity", "Popularity"
    ranks_catalogue = True

    def __init__(self, interactions: np.ndarray, seed: int = 0) -> None:
        self._interactions, self._seed = interactions, seed

    def compute(self, users: Audience, candidates_E_C: np.ndarray) -> np.ndarray:
        """See `Ranker.score`."""
        noise_E_C = drawn_numbers(users, candidates_E_C, self._seed)
        return mask_padding(np.log(self._interactions[candidates_E_C] + 1 + noise_E_C), candidates_E_C)


def drawn_numbers(users: Audience, items_E_C: np.ndarray, seed: int) -> np.ndarray:
    """(E, C) numbers in [0, 1) that only user, item and seed decide: the history stands for the user."""
    rows_E = [hash_of(np.asarray([seed, *history], dtype=np.uint64)) for history in users.histories]
    keys_E_C = np.asarray(rows_E, dtype=np.uint64).reshape(-1, 1) ^ (items_E_C.astype(np.uint64) * _MIX)
    return _scrambled(keys_E_C) / np.float64(2**64)


def hash_of(numbers: np.ndarray) -> np.uint64:
    """A hash of (n,) uint64 in their order."""
    places = np.arange(1, len(numbers) + 1, dtype=np.uint64)
    return np.bitwise_xor.reduce(_scrambled(numbers + places * _MIX))


def _scrambled(values: np.ndarray) -> np.ndarray:
    """splitmix64: every bit of the input changes half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
