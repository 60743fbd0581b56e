"""What the users known in training met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl


class UserHistories:
    """User id to item numbers, oldest first, in one flat array.

    Args:
        user_ids: unique ids.
        histories: per user its item numbers, oldest first.
    """

    def __init__(self, user_ids: Sequence[str], histories: Sequence[Sequence[int] | np.ndarray]) -> None:
        self._row = {user_id: row for row, user_id in enumerate(user_ids)}
        self._offsets = np.concatenate([[0], np.cumsum([len(items) for items in histories])]).astype(np.int64)
        empty = np.zeros(0, dtype=np.int32)
        self._items = np.concatenate([empty, *(np.asarray(items, dtype=np.int32) for items in histories)])

    def __len__(self) -> int:
        """The number of users."""
        return len(self._row)

    def __contains__(self, user_id: object) -> bool:
        """Whether the user was known in training."""
        return user_id in self._row

    def of(self, user_id: str) -> np.ndarray:
        """(n,) item numbers of the user, oldest first; empty for an unknown user."""
        row = self._row.get(user_id)
        if row is None:
            return self._items[:0]
        return self._items[self._offsets[row] : self._offsets[row + 1]]

    def numbers_of(self, user_ids: Sequence[str]) -> np.ndarray:
        """(n,) each user's number in training, 1..U in the order given; 0 for somebody unknown."""
        return np.asarray([self._row.get(user_id, -1) + 1 for user_id in user_ids], dtype=np.int64)

    def user_ids(self) -> list[str]:
        """All user ids, in the order given."""
        return list(self._row)

    def to_frame(self) -> pl.DataFrame:
        """One row a user: the layout of a bundle's `users.parquet` and `seen.parquet`."""
        histories = [self.of(user_id) for user_id in self._row]
        return pl.DataFrame(
            {"user_id": self.user_ids(), "items": pl.Series(histories, dtype=pl.List(pl.Int32))},
            schema={"user_id": pl.String, "items": pl.List(pl.Int32)},
        )

    @classmethod
    def from_frame(cls, frame: pl.DataFrame) -> UserHistories:
        """The inverse of `to_frame`."""
        return cls(frame["user_id"].to_list(), frame["items"].to_list())

    @classmethod
    def nobody(cls) -> UserHistories:
        """Of no user."""
        return cls([], [])

    @classmethod
    def from_mapping(cls, histories: Mapping[str, Sequence[int] | np.ndarray]) -> UserHistories:
        """From user id to item numbers."""
        return cls(list(histories), list(histories.values()))
