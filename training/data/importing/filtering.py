"""Which interactions stay: each user-item pair once, and the k-core."""

from __future__ import annotations

import numpy as np


def first_of_pairs(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """(R,) bool: whether a row is the first of its user-item pair.

    Args:
        users, items: (R,) codes, in the order in which the first is meant.
    """
    pairs = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    keep = np.zeros(len(pairs), dtype=bool)
    keep[np.unique(pairs, return_index=True)[1]] = True
    return keep


def k_core(users: np.ndarray, items: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """(R,) bool: the largest set of rows in which each user has `min_user` and each item `min_item` rows.

    Dropping an item may leave a user short and the other way round, so both are repeated up to the fixed point.

    Args:
        users, items: (R,) codes from 0.
        min_user, min_item: the least number of rows; 1 or less asks for nothing.
    """
    rows = np.arange(len(users))
    while len(rows):
        user_counts = np.bincount(users[rows])
        item_counts = np.bincount(items[rows])
        enough = (user_counts[users[rows]] >= min_user) & (item_counts[items[rows]] >= min_item)
        if enough.all():
            break
        rows = rows[enough]
    keep = np.zeros(len(users), dtype=bool)
    keep[rows] = True
    return keep
