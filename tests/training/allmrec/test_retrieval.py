"""The choice of sources: more than the index only where that finds more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle.blend import Blends, SignalWeight
from models.bundle.retrieval import Retrieval, Source
from tests.tiny import tiny_blends, tiny_contents, tiny_split
from training.allmrec.retrieval import RetrievalConfig, choose_retrieval
from training.allmrec.signals import SignalsConfig, build_signals
from training.data.splits import SequenceSplit

USERS, ITEMS = 120, 30


def ringed_split() -> SequenceSplit:
    """Users who go round a ring of items: after every item comes the next one."""
    rng = np.random.default_rng(0)
    base = tiny_split(users=USERS, items=ITEMS)
    starts = rng.integers(ITEMS, size=USERS)
    train = [1 + (start + np.arange(5)) % ITEMS for start in starts]
    validation, test = (1 + (starts + 5 + ahead) % ITEMS for ahead in (0, 1))
    return SequenceSplit(base.user_ids, base.catalogue, train, validation, test)


def blends_of(*ids: str) -> Blends:
    """A blend of some signals, each by the same weight."""
    first = tiny_blends().blend.signals[0]
    signals: tuple[SignalWeight, ...] = tuple(first.model_copy(update={"id": name}) for name in ids)
    blend = tiny_blends().blend.model_copy(update={"signals": signals})
    return tiny_blends().model_copy(update={"blend": blend})


def test_what_finds_more_is_chosen() -> None:
    """A random backbone finds 4 of 25 by chance, what followed in training finds nearly all."""
    split = ringed_split()
    signals = build_signals(split, np.ones((ITEMS + 1, 2)), SignalsConfig(neighbours=0, discount=0.3))
    model = replace(tiny_contents(split), signals=signals)
    config = RetrievalConfig(kept=4, depth=1)
    chosen = choose_retrieval(split, model, blends_of("followed"), config.model_copy(update={"depth": 3}))
    assert Source.FOLLOWED in chosen.sources
    assert chosen.validation[chosen.name] > 0.9
    assert chosen.validation["cf"] < 0.5
    assert set(chosen.validation) == {"cf", "cf x3", "cf+followed x3", "cf+text x3", "cf+followed+text x3"}


def test_the_index_stays_alone_where_nothing_is_gained() -> None:
    """With room for everything every option finds everything."""
    split = tiny_split()
    chosen = choose_retrieval(split, tiny_contents(split), tiny_blends(), RetrievalConfig(kept=ITEMS))
    assert (chosen.sources, chosen.depth) == (Retrieval().sources, 1)
    assert set(chosen.validation.values()) == {1.0}
    assert chosen.in_words.startswith("retrieval: cf; Recall@100 on validation items: cf 1.000, cf x3 1.000")


@pytest.mark.parametrize("users", [10, 30])
def test_test_items_are_never_looked_at(users: int) -> None:
    """The choice and its figures are the same whatever these are."""
    split = tiny_split()
    other = replace(split, test=np.roll(split.test, 1))
    model, config = tiny_contents(split), RetrievalConfig(users=users, kept=5)
    first, second = (choose_retrieval(each, model, tiny_blends(), config) for each in (split, other))
    assert first == second


def test_too_few_users_choose_nothing() -> None:
    """The index alone, of which nothing is claimed."""
    split = ringed_split()
    assert choose_retrieval(split, tiny_contents(split), blends_of("followed"), RetrievalConfig(users=1)) == Retrieval()
