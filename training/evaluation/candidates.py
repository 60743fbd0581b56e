"""What rankers are compared on: each user's held-out item among sampled negatives (A-LLMRec section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.catalogue import PADDING_ITEM
from training.data.negatives import NegativeSampler
from training.data.splits import Holdout, SequenceSplit

NEGATIVES = 19


@dataclass(frozen=True)
class Candidates:
    """E users, each with one positive and some negatives.

    Attributes:
        users: (E,) rows of the split.
        items: (E, C) item numbers, the positive first; padding where the catalogue is too small for C - 1 negatives.
    """

    users: np.ndarray
    items: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(E, C) bool: the real candidates."""
        return self.items != PADDING_ITEM

    def __len__(self) -> int:
        """The number of users E."""
        return len(self.users)

    def take(self, rows: np.ndarray) -> Candidates:
        """Those of some users, by row number or mask."""
        return Candidates(self.users[rows], self.items[rows])

    def at_most(self, users: int) -> Candidates:
        """Those of at most so many users, spread evenly: enough to validate on."""
        rows = np.linspace(0, len(self) - 1, min(users, len(self)))
        return self.take(np.unique(rows.astype(np.int64)))


def draw_candidates(split: SequenceSplit, holdout: Holdout, seed: int = 0, negatives: int = NEGATIVES) -> Candidates:
    """The candidates of every evaluated user: the target and uniform items that the user had not met by then.

    Who had met every item is no evaluated user.

    The same seed gives the same candidates, for every ranker that is compared. What is held out for later counts as
    not met: on validation the user's test item may be a negative, as it would be if it were not known.
    """
    users = np.flatnonzero(split.rankable(holdout))
    met = [split.known(int(user), holdout) for user in users]
    sampler = NegativeSampler(met, np.arange(1, len(split.catalogue) + 1))
    rng = np.random.default_rng([seed, list(Holdout).index(holdout)])
    drawn = sampler.sample_distinct(np.arange(len(users)), negatives, rng)
    return Candidates(users, np.column_stack([split.target(holdout)[users], drawn]))


def draw_by_weight(weights: np.ndarray, never: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` rows of `weights` (n,) without replacement, none of weight 0 and none of `never`.

    The rows with the first arrivals of exponential clocks that run as fast as the weights: drawing one after the other
    by weight (Efraimidis and Spirakis, 2006).
    """
    weights = weights.copy()
    weights[never] = 0
    drawable = np.flatnonzero(weights)
    arrivals = rng.exponential(size=len(drawable)) / weights[drawable]
    count = min(count, len(drawable))
    first = np.argpartition(arrivals, count - 1)[:count] if count else np.zeros(0, dtype=np.int64)
    return drawable[first[np.argsort(arrivals[first])]]
