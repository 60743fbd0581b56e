"""Item ids that users share."""

from __future__ import annotations

import sys

from service.stores.names import Names
from service.stores.trail import Met, Trail


def fresh(name: str) -> str:
    """A text of its own."""
    return "".join([name[:1], name[1:]])


def test_names_are_one_text() -> None:
    names = Names(2)
    first = names.share(fresh("film"))
    assert fresh("film") is not first
    assert names.share(fresh("film")) is first


def test_names_are_bounded_and_those_in_use_stay() -> None:
    """A thousand that are met once, beside one that is met all the time."""
    names = Names(10)
    often = names.share(fresh("film"))
    for number in range(1000):
        names.share(f"sent-{number}")
        assert names.share(fresh("film")) is often
        assert len(names) <= 20


def test_trails_share_names_and_keep_none_for_ever() -> None:
    """What is interned stays in some versions of Python."""
    one, other = (Trail.of([Met(fresh("sent-by-a-client"), 1, 1)]) for _ in range(2))
    assert one.item_ids[0] is other.item_ids[0]
    assert sys.intern(fresh("sent-by-a-client")) is not one.item_ids[0]
