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
