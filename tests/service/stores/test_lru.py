"""The bounded mapping."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.stores.lru import LRU


@given(st.lists(st.tuples(st.integers(0, 5), st.integers()), max_size=50), st.integers(1, 4))
def test_an_lru_keeps_the_entries_put_last(puts: list[tuple[int, int]], size: int) -> None:
    lru: LRU[int, int] = LRU(size)
    for key, value in puts:
        lru.put(key, value)
    kept: dict[int, int] = {}
    for key, value in reversed(puts):
        if len(kept) < size:
            kept.setdefault(key, value)
    assert len(lru) == len(kept)
    assert {key: lru.get(key) for key in kept} == kept


def test_an_lru_forgets_what_was_not_looked_at() -> None:
    lru: LRU[str, int] = LRU(2)
    lru.put("a", 1)
    lru.put("b", 2)
    lru.get("a")
    lru.put("c", 3)
    assert (lru.get("a"), lru.get("b"), lru.get("c")) == (1, None, 3)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=50), st.integers(1, 4), st.integers(0, 20))
def test_an_lru_keeps_what_it_can_carry(puts: list[tuple[int, int]], size: int, capacity: int) -> None:
    """Of the entries put last, as many as fit, and the latest whatever it weighs; values weigh themselves."""
    lru: LRU[int, int] = LRU(size, lambda value: value, capacity)
    for key, value in puts:
        lru.put(key, value)
        kept = {key: kept for key in range(6) if (kept := lru.get(key)) is not None}
        assert len(lru) == len(kept) <= size
        assert kept[key] == value
        assert sum(kept.values()) <= capacity or len(kept) == 1
        for each in [other for other in kept if other != key]:
            lru.get(each)
        lru.get(key)
