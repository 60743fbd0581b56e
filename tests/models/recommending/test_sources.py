"""Candidates from several sources, and the best of them by the blend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.bundle.catalogue_model import CatalogueModel
from models.bundle.retrieval import Retrieval, Source
from models.catalogue import Catalogue
from models.errors import BundleError
from models.recommending.person import persons
from models.recommending.retrieve import IndexFinder, Pool, retrieve
from models.recommending.shortlist import ListRanker
from models.recommending.sources import Sources
from tests.tiny import tiny_blends, tiny_contents, tiny_split
from training.allmrec.signals import SignalsConfig, build_signals
from training.data.splits import SequenceSplit

EVERY = tuple(Source)
ANYTHING = Pool(None, None, set(), 100)


@pytest.fixture(scope="module")
def model() -> CatalogueModel:
    return tiny_contents(tiny_split())


def gather(model: CatalogueModel, pool: Pool, history: list[int], *sources: Source, depth: int = 1) -> list[int]:
    """What the sources give."""
    items = np.asarray(history)
    found = Sources(model, Retrieval(sources=sources, depth=depth))
    return found.gather(pool, persons(model, [items])[0]).tolist()


@pytest.mark.parametrize("sources", [(source,) for source in Source] + [EVERY])
def test_only_what_may_be_is_given_and_once(model: CatalogueModel, sources: tuple[Source, ...]) -> None:
    """Nothing but even items, none of them seen; all of the index's with room for them."""
    allowed, history = np.arange(2, 31, 2), [2, 5, 4]
    pool = Pool(None, allowed, {2, 4, 5}, 100)
    found = gather(model, pool, history, *sources)
    assert found
    assert len(set(found)) == len(found)
    assert set(found) <= set(allowed.tolist()) - {2, 4}
    if Source.CF in sources:
        assert len(found) == 13


@pytest.mark.parametrize("source", EVERY)
def test_a_source_gives_so_many_times_as_many(model: CatalogueModel, source: Source) -> None:
    """Two of each, or six at depth three, of which the first two are the same."""
    pool = Pool(None, None, {7}, 2)
    shallow, deep = (gather(model, pool, [3, 7], source, depth=depth) for depth in (1, 3))
    assert (len(shallow), len(deep)) == (2, 6)
    assert deep[:2] == shallow


def test_text_gives_what_is_like_an_item_of_the_history(model: CatalogueModel) -> None:
    """The neighbours in the order of their likeness, the item itself first where it may be."""
    tables = model.signals
    order = np.argsort(-tables.neighbour_weights[3].astype(float), kind="stable")
    expected = [item for item in tables.neighbours[3][order].tolist() if item]
    found = gather(model, ANYTHING, [3], Source.TEXT)
    weights = dict(zip(tables.neighbours[3].tolist(), tables.neighbour_weights[3].tolist(), strict=True))
    assert found[0] == 3
    assert set(found) == {item for item in expected if weights[item] > 0}
    assert [weights[item] for item in found] == sorted((weights[item] for item in found), reverse=True)


def test_sequences_give_what_came_near(model: CatalogueModel) -> None:
    """After 1 came 2 twice and 3 once, and nothing else: 2 / sqrt(2 + 2) is more than 1 / sqrt(1 + 2).

    Of two items of a history the later counts more.
    """
    train = [np.asarray(items) for items in ([1, 2], [1, 2], [1, 3], [4, 5], [4, 5])]
    counts = np.bincount(np.concatenate(train), minlength=31)[1:]
    old = model.catalogue
    catalogue = Catalogue(old.item_ids[1:], old.titles[1:], old.descriptions[1:], old.categories[1:], counts)
    nobody = np.zeros(5, dtype=np.int64)
    split = SequenceSplit(list("abcde"), catalogue, train, nobody, nobody)
    signals = build_signals(split, np.ones((31, 2)), SignalsConfig(neighbours=0))
    changed = replace(model, catalogue=catalogue, signals=signals)
    assert gather(changed, Pool(None, None, {1}, 100), [1], Source.FOLLOWED) == [2, 3]
    for latest, expected in ([1, 4], 5), ([4, 1], 2):
        assert gather(changed, Pool(None, None, {1, 4}, 100), latest, Source.FOLLOWED)[0] == expected


def test_the_index_alone_is_the_index(model: CatalogueModel) -> None:
    """What a bundle does that chose nothing else."""
    history = np.asarray([3, 7])
    person = persons(model, [history])[0]
    pool = Pool(None, None, {3, 7}, 5)
    expected = retrieve(model, pool, person.vector)[0].tolist()
    assert Sources(model, Retrieval()).gather(pool, person).tolist() == expected
    assert IndexFinder(model).find(pool, person).tolist() == expected


def test_of_all_that_is_gathered_the_best_by_the_blend_are_kept(model: CatalogueModel) -> None:
    """Of six times five, which is everything, the first five that the blend would put first; in its order."""
    history = np.asarray([3, 7])
    person = persons(model, [history])[0]
    pool = Pool(None, None, {3, 7}, 5)
    by_popularity = tiny_blends().blend.signals[0].model_copy(update={"id": "item_popularity"})
    blend = tiny_blends().blend.model_copy(update={"signals": (by_popularity,)})
    lists = ListRanker(model, tiny_blends().model_copy(update={"blend": blend, "retrieval": Retrieval(depth=6)}))
    everything = np.setdiff1d(np.arange(1, 31), history)
    best = lists.shortlist(person, everything).first(5)
    found = lists.retrieve(pool, person)
    assert found.logits.tolist() == best.logits.tolist()
    assert lists.find(pool, person).tolist() == found.items.tolist()
    by_index = lists.shortlist(person, retrieve(model, pool, person.vector)[0])
    assert by_index.logits.sum() < best.logits.sum()


def test_given_candidates_are_ranked_as_they_are(model: CatalogueModel) -> None:
    """All that pass, however few are to be kept of what is retrieved."""
    history = np.asarray([3])
    pool = Pool([9, 3, 12, 5], None, {3}, 1)
    found = ListRanker(model, tiny_blends()).retrieve(pool, persons(model, [history])[0])
    assert sorted(found.items.tolist()) == [5, 9, 12]
    assert len(found.logits) == 3


@pytest.mark.parametrize("signal", ["of_tomorrow", "title_prior"])
def test_what_cannot_be_weighed_is_refused_by_name(signal: str) -> None:
    """A later release's signal, and one that needs what the bundle lacks: before anybody is answered."""
    with pytest.raises(BundleError, match=f"{signal}.*export it again"):
        ListRanker(tiny_contents(tiny_split()), tiny_blends(llm=[signal]))
