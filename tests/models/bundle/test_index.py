"""Retrieval under filters: nearly exact for every kind of index, and never an item that was not asked for."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from models.bundle.index import IndexKind, ItemIndex

ITEMS, SIZE, QUERIES, COUNT = 20_000, 16, 12, 100
KINDS = list(IndexKind)
SELECTIVITIES = (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.9, 1.0)


class Shop:
    """Items in clusters, popular ones longer; users between three items of theirs."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        centres = self.random.standard_normal((60, SIZE))
        self.clusters = self.random.integers(60, size=ITEMS)
        vectors = centres[self.clusters] + 0.7 * self.random.standard_normal((ITEMS, SIZE))
        vectors *= np.exp(0.25 * self.random.standard_normal((ITEMS, 1)))
        self.table = np.concatenate([np.zeros((1, SIZE)), vectors]).astype(np.float32)
        baskets = vectors[self.random.integers(ITEMS, size=(QUERIES, 3))].mean(axis=1)
        self.queries = (baskets + 0.3 * self.random.standard_normal(baskets.shape)).astype(np.float32)
        self.scores = self.queries @ self.table.T
        self.scores[:, 0] = -np.inf

    def truth(self, query: int, allowed: np.ndarray | None, excluded: np.ndarray) -> np.ndarray:
        """The best items by a full sort; of equals the lower number first."""
        scores = self.scores[query].copy()
        if allowed is not None:
            scores[np.setdiff1d(np.arange(ITEMS + 1), allowed)] = -np.inf
        scores[excluded] = -np.inf
        order = np.argsort(-scores, kind="stable")[:COUNT]
        return order[np.isfinite(scores[order])]

    def seen(self, query: int, count: int) -> np.ndarray:
        """What a user met is what they like best."""
        return np.argsort(-self.scores[query])[:count]


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def indices(shop: Shop) -> dict[IndexKind, ItemIndex]:
    return {kind: ItemIndex.build(shop.table, kind) for kind in KINDS}


@pytest.mark.parametrize("seen", [0, 3000])
@pytest.mark.parametrize("shape", ["scattered", "category"])
@pytest.mark.parametrize("selectivity", SELECTIVITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_recall_under_filters(
    shop: Shop, indices: dict[IndexKind, ItemIndex], kind: IndexKind, selectivity: float, shape: str, seen: int
) -> None:
    """At least .95 of the true first hundred, best first, for a set scattered anywhere or lying in one corner.

    A user's thousands of seen items are the very best ones: what is left begins deep in the order.
    """
    size = max(1, round(selectivity * ITEMS))
    random = np.random.default_rng(size)
    towards = shop.table[1:] @ random.standard_normal(SIZE).astype(np.float32)
    members = random.permutation(ITEMS) if shape == "scattered" else np.argsort(-towards)
    allowed = members[:size] + 1
    shares = []
    for query in range(QUERIES):
        excluded = shop.seen(query, seen)
        items, scores = indices[kind].search(
            shop.queries[query][None], COUNT, allowed=None if selectivity == 1 else allowed, excluded=excluded
        )
        truth = shop.truth(query, None if selectivity == 1 else allowed, excluded)
        found = items[0][items[0] > 0]
        assert len(found) == len(truth)
        assert set(found.tolist()) <= set(allowed.tolist()) - set(excluded.tolist()) or selectivity == 1
        assert not set(found.tolist()) & set(excluded.tolist())
        assert np.allclose(scores[0][: len(found)], shop.scores[query][found], atol=1e-4)
        assert (np.diff(scores[0][: len(found)]) <= 0).all()
        assert np.isneginf(scores[0][len(found) :]).all()
        shares.append(np.isin(truth, found).mean() if len(truth) else 1.0)
    assert np.mean(shares) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_small_sets_are_exact(shop: Shop, indices: dict[IndexKind, ItemIndex], kind: IndexKind) -> None:
    """A category of a few hundred, in the order of the full sort."""
    allowed = np.flatnonzero(shop.clusters == 7) + 1
    items, _ = indices[kind].search(shop.queries, COUNT, allowed=allowed)
    for query in range(QUERIES):
        assert items[query].tolist() == shop.truth(query, allowed, np.zeros(0, np.int64)).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_queries_of_a_batch_do_not_touch_each_other(
    shop: Shop, indices: dict[IndexKind, ItemIndex], kind: IndexKind
) -> None:
    """Under a filter that some queries find enough of in a walk, and others do not."""
    allowed = np.argsort(-shop.scores[0])[: ITEMS // 2]
    together, _ = indices[kind].search(shop.queries, COUNT, allowed=allowed)
    for query in range(QUERIES):
        alone, _ = indices[kind].search(shop.queries[query][None], COUNT, allowed=allowed)
        assert together[query].tolist() == alone[0].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_no_items_change_nothing(
    shop: Shop, indices: dict[IndexKind, ItemIndex], kind: IndexKind
) -> None:
    """Padding, numbers beyond the catalogue, and repetitions."""
    index = indices[kind]
    odd = np.array([0, -3, 5, 5, 9, ITEMS + 1, 10**9])
    items, scores = index.search(shop.queries[:1], 4, allowed=odd, excluded=np.array([0, 9]))
    assert items.tolist() == [[5, 0, 0, 0]]
    assert np.isneginf(scores[0, 1:]).all()
    nothing, _ = index.search(shop.queries[:1], 4, allowed=np.array([], dtype=np.int64))
    assert nothing.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scores_come_in_the_catalogues_order(kind: IndexKind) -> None:
    """Fifty vectors of twenty items each."""
    random = np.random.default_rng(1)
    table = np.concatenate([np.zeros((1, 4)), np.tile(random.standard_normal((50, 4)), (20, 1))]).astype(np.float32)
    index = ItemIndex.build(table, kind)
    items, scores = index.search(random.standard_normal((3, 4)).astype(np.float32), 60, allowed=np.arange(1, 901))
    for row in range(3):
        pairs = list(zip(-scores[row], items[row], strict=True))
        assert pairs == sorted(pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_finds_what_was_saved(
    shop: Shop, indices: dict[IndexKind, ItemIndex], kind: IndexKind, tmp_path: Path
) -> None:
    """How wide to search included."""
    indices[kind].save(tmp_path / "items.faiss")
    loaded = ItemIndex.load(tmp_path / "items.faiss")
    for excluded in (None, shop.seen(0, 500)):
        expected, _ = indices[kind].search(shop.queries, COUNT, excluded=excluded)
        assert loaded.search(shop.queries, COUNT, excluded=excluded)[0].tolist() == expected.tolist()


def test_a_graph_of_before_is_scanned(shop: Shop) -> None:
    """By inner product it leads to less than .9 of the best, however wide one looks."""
    index = faiss.IndexHNSWFlat(SIZE, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 40
    index.add(shop.table[1:])
    items, _ = ItemIndex(index).search(shop.queries, COUNT)
    for query in range(QUERIES):
        assert items[query].tolist() == shop.truth(query, None, np.zeros(0, np.int64)).tolist()


def test_more_than_there_is_can_be_asked_for() -> None:
    """Three items, ten places."""
    index = ItemIndex.build(np.array([[0.0], [1.0], [3.0], [2.0]], dtype=np.float32))
    items, scores = index.search(np.ones((1, 1)), 10)
    assert items.tolist() == [[2, 3, 1, 0, 0, 0, 0, 0, 0, 0]]
    assert scores[0, :3].tolist() == [3.0, 2.0, 1.0]


def test_the_kind_follows_from_the_size() -> None:
    assert IndexKind.for_size(200_000) == IndexKind.FLAT
    assert IndexKind.for_size(200_001) == IndexKind.IVF
