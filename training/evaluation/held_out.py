"""What one evaluation needs, built once: who is asked about, what they did before, among what, and in which groups.

Axes: E users, C candidates of which the first is the positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.catalogue import PADDING_ITEM, Catalogue
from models.rankers.base import Audience
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import Candidates, draw_by_weight, draw_candidates

POPULAR_NEGATIVES = 99


@dataclass(frozen=True)
class HeldOut:
    """Held-out items to be found.

    Attributes:
        catalogue: all items, with their training interactions.
        candidates: of E users, the held-out item first.
        users: the same E users with their histories before the held-out item.
        groups: name to (E,) mask by the positive: `warm` and `cold` (top and bottom 35 % by training interactions),
            `unseen` (no training interaction; part of `cold`) and `new` (the user did not meet it before; negatives
            never are of the history, so a positive that is can be told by it).
    """

    catalogue: Catalogue
    candidates: Candidates
    users: Audience
    groups: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, split: SequenceSplit, holdout: Holdout, seed: int = 0, users: int | None = None) -> HeldOut:
        """The held-out items of `split`.

        Args:
            split: the data.
            holdout: which items.
            seed: of the negatives.
            users: at most so many, spread evenly; all if not given.
        """
        candidates = draw_candidates(split, holdout, seed)
        candidates = candidates if users is None else candidates.at_most(users)
        histories = [split.history(int(user), holdout) for user in candidates.users]
        audience = Audience([split.user_ids[user] for user in candidates.users], histories)
        positives = candidates.items[:, 0]
        masks = {"warm": split.warm_items, "cold": split.cold_items, "unseen": ~split.catalogue.trained}
        groups = {name: mask[positives] for name, mask in masks.items()}
        new = [positive not in history for positive, history in zip(positives, histories, strict=True)]
        return cls(split.catalogue, candidates, audience, groups | {"new": np.asarray(new, dtype=bool)})

    def __len__(self) -> int:
        """The number of users E."""
        return len(self.candidates)

    @property
    def positives(self) -> np.ndarray:
        """(E,) the held-out items."""
        return self.candidates.items[:, 0]

    @property
    def all_groups(self) -> dict[str, np.ndarray]:
        """`groups` with `overall` before them."""
        return {"overall": np.ones(len(self), dtype=bool), **self.groups}

    def at_most(self, users: int) -> HeldOut:
        """Those of at most so many users, spread evenly."""
        return self.take(np.isin(self.candidates.users, self.candidates.at_most(users).users))

    def among_popular(self, seed: int = 0, negatives: int = POPULAR_NEGATIVES) -> HeldOut:
        """The same with negatives drawn without replacement by training interactions, among what a user had not met.

        Popularity tells next to nothing among these. A user's negatives follow from seed and user alone, whoever else
        is evaluated. Who had met every item with training interactions is left out: nothing would be held against
        the held-out item.
        """
        weights = self.catalogue.interactions.astype(np.float64)
        items = np.full((len(self), 1 + negatives), PADDING_ITEM, dtype=np.int64)
        items[:, 0] = self.positives
        for row, (user, history) in enumerate(zip(self.candidates.users, self.users.histories, strict=True)):
            rng = np.random.default_rng([seed, 1, int(user)])
            drawn = draw_by_weight(weights, np.append(history, items[row, 0]), negatives, rng)
            items[row, 1 : 1 + len(drawn)] = drawn
        return self.among(items).take((items[:, 1:] != PADDING_ITEM).any(axis=1))

    def among(self, items: np.ndarray) -> HeldOut:
        """The same with other candidates (E, C'), the held-out item first."""
        return replace(self, candidates=Candidates(self.candidates.users, items))

    def shuffled(self, seed: int) -> HeldOut:
        """The same with every history in a random order."""
        rng = np.random.default_rng(seed)
        histories = [rng.permutation(history) for history in self.users.histories]
        return replace(self, users=Audience(self.users.user_ids, histories))

    def part(self, start: int, stop: int) -> HeldOut:
        """The users from row `start` up to `stop`."""
        return self.take(np.arange(start, min(stop, len(self))))

    def take(self, mask: np.ndarray) -> HeldOut:
        """Those of some users, by a mask (E,) or by row numbers."""
        rows = (np.flatnonzero(mask) if mask.dtype == bool else mask).tolist()
        users = Audience([self.users.user_ids[row] for row in rows], [self.users.histories[row] for row in rows])
        groups = {name: group[rows] for name, group in self.groups.items()}
        return HeldOut(self.catalogue, self.candidates.take(np.asarray(rows, dtype=np.int64)), users, groups)
