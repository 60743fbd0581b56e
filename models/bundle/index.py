"""The item index: maximum inner product over the CF-space vectors of all items, warm and cold.

Every answer is exact, or walks the index wide enough that nearly all of it is: how wide is measured when the index is
built (`tuning`), and where the walk would cost more than scoring what is allowed, that is scored. A filter narrows
nothing in a walk: it goes on until enough of what it met is allowed, and what it did not find is scored exactly.

Axes: B queries, D CF size, N items, K results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import faiss
import numpy as np

from models.bundle.tuning import Probes, narrowest
from models.errors import BundleError

FLAT_LIMIT = 200_000
HNSW_LINKS = 32
GATHERED = 4096
"""So few allowed items are copied together and scored at once; more are picked out of a scan, which reads in order."""
TESTED_ROWS = 32
"""A row that a scan passes over costs as much less than one that it scores."""
WALKED_ROWS = 2 * HNSW_LINKS
"""Rows that a step of a walk through the graph scores."""
KEPT_ROWS = 16
"""What keeping one more result in order costs, in rows."""
SEEN = 20_000
"""So few that are left out may be the very best for a user, who met them; more are a category's complement."""
SPARE = 1.25
"""A walk fetches so many times what would be enough if what is allowed were spread evenly."""


class IndexKind(StrEnum):
    """How FAISS searches. FLAT is exact."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"

    @classmethod
    def for_size(cls, items: int) -> IndexKind:
        """Exact while it is cheap, inverted lists beyond: at equal recall faster than the graph, and built sooner."""
        return cls.FLAT if items <= FLAT_LIMIT else cls.IVF


@dataclass(frozen=True)
class _Filter:
    """Which rows may be found, as a bit for each; all if `kept` is None."""

    kept: np.ndarray | None
    count: int

    @classmethod
    def of(cls, items: int, allowed: np.ndarray | None, excluded: np.ndarray | None) -> _Filter:
        dropped = np.zeros(0, np.int64) if excluded is None else _rows(excluded, items)
        if allowed is None and not len(dropped):
            return cls(None, items)
        kept = np.full(items, allowed is None)
        if allowed is not None:
            kept[_rows(allowed, items)] = True
        kept[dropped] = False
        return cls(kept, int(np.count_nonzero(kept)))

    @property
    def selector(self) -> faiss.IDSelector | None:
        return None if self.kept is None else faiss.IDSelectorBitmap(np.packbits(self.kept, bitorder="little"))

    def passes(self, rows_B_K: np.ndarray) -> np.ndarray:
        """(B, K) bool; rows that FAISS did not fill never pass."""
        filled = rows_B_K >= 0
        return filled if self.kept is None else filled & self.kept[rows_B_K]


class ItemIndex:
    """A FAISS index over items 1..N.

    Args:
        index: a FAISS index whose row r is item r + 1: flat or inverted lists by inner product, or a graph by L2 over
            rows that a last coordinate brings to equal length, which orders them as the inner product does. (A graph
            by inner product leaves parts of a catalogue with popular items unreachable, and is scanned instead.)
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index
        self._graph = isinstance(index, faiss.IndexHNSW)
        self._lists = isinstance(index, faiss.IndexIVF)
        if self._lists:
            index.make_direct_map()
        self._stored_N_D = (
            np.zeros((0, 0), np.float32) if self._lists else _view(index.storage if self._graph else index)
        )
        self._walks = self._lists or (self._graph and index.metric_type == faiss.METRIC_L2)

    def __len__(self) -> int:
        """The number of items N."""
        return int(self._index.ntotal)

    @classmethod
    def build(cls, item_vectors: np.ndarray, kind: IndexKind | None = None) -> ItemIndex:
        """Index the rows 1..N of `item_vectors` (N+1, d); the kind follows from N if not given."""
        vectors = np.ascontiguousarray(item_vectors[1:], dtype=np.float32)
        items, size = vectors.shape
        match kind or IndexKind.for_size(items):
            case IndexKind.FLAT:
                index = faiss.IndexFlatIP(size)
                index.add(vectors)
                return cls(index)
            case IndexKind.HNSW:
                index = faiss.IndexHNSWFlat(size + 1, HNSW_LINKS)
                index.hnsw.efConstruction = 200
                index.add(_of_equal_length(vectors))
            case IndexKind.IVF:
                lists = max(1, min(int(4 * items**0.5), items // 39))
                index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
                index.train(vectors)
                index.add(vectors)
        built = cls(index)
        built._tune(vectors)
        return built

    def search(
        self,
        queries_B_D: np.ndarray,
        count: int,
        *,
        allowed: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items for each query by inner product, best first; of equals the lower number first.

        Args:
            queries_B_D: (B, d) user representations.
            count: how many items to return.
            allowed: item numbers to search among; all if not given.
            excluded: item numbers never to return.

        Returns:
            Items (B, count) with 0 where fewer were found, and their scores (B, count), -inf there.
        """
        queries = np.ascontiguousarray(queries_B_D, dtype=np.float32)
        among = _Filter.of(len(self), allowed, excluded)
        depth = self._depth(count, among)
        if depth is None:
            return self._exact(queries, count, among)
        rows_B_K, scores_B_K = self._walk(queries, depth)
        scores_B_K[~among.passes(rows_B_K)] = -np.inf
        enough = np.isfinite(scores_B_K).sum(axis=1) >= min(count, among.count)
        items, scores = _ranked(rows_B_K, scores_B_K, count)
        if not enough.all():
            items[~enough], scores[~enough] = self._exact(queries[~enough], count, among)
        return items, scores

    def _depth(self, count: int, among: _Filter) -> int | None:
        """How many items a walk must fetch so that `count` allowed ones are among them; None if exact is cheaper."""
        if not self._walks or among.count <= max(count, GATHERED):
            return None
        dropped = len(self) - among.count
        depth = count
        if dropped:
            # All that a user met may come first, however little of the catalogue it is; a category may lie anywhere.
            spread = math.ceil(SPARE * count * len(self) / among.count)
            depth = max(spread, count + dropped) if dropped <= SEEN else spread
        scan = among.count + len(self) / TESTED_ROWS
        return depth if depth < len(self) and self._cost(depth) < scan else None

    def _cost(self, depth: int) -> float:
        """Of a walk, in rows that a scan scores."""
        width = self._width(depth)
        walked = width * WALKED_ROWS if self._graph else len(self) * width / self._index.nlist + self._index.nlist
        return walked + KEPT_ROWS * depth

    def _width(self, depth: int) -> int:
        """How wide a walk must be for the first `depth` items: it grows slower than they do."""
        growth = max(1.0, depth / Probes.DEPTH) ** 0.5
        if self._graph:
            return int(max(self._index.hnsw.efSearch * growth, 2.5 * depth))
        return min(int(self._index.nprobe * growth), self._index.nlist)

    def _walk(self, queries: np.ndarray, depth: int, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows (B, depth) that lists or graph find, -1 where none, and their inner products."""
        width = self._width(depth) if width is None else width
        if self._lists:
            scores_B_K, rows_B_K = self._index.search(queries, depth, params=faiss.SearchParametersIVF(nprobe=width))
            return rows_B_K, scores_B_K
        _, rows_B_K = self._index.search(
            self._like_stored(queries), depth, params=faiss.SearchParametersHNSW(efSearch=width)
        )
        found_B_K_D = self._stored_N_D[rows_B_K][..., : queries.shape[1]]
        return rows_B_K, np.einsum("bkd,bd->bk", found_B_K_D, queries)

    def _exact(self, queries: np.ndarray, count: int, among: _Filter) -> tuple[np.ndarray, np.ndarray]:
        if among.kept is not None and among.count <= GATHERED:
            rows_K = np.flatnonzero(among.kept)
            scores_B_K = queries @ self._vectors(rows_K)[:, : queries.shape[1]].T
            return _ranked(np.broadcast_to(rows_K, scores_B_K.shape), scores_B_K, count)
        found = min(count, among.count)
        selector = among.selector
        if self._lists:
            every = faiss.SearchParametersIVF(nprobe=self._index.nlist, sel=selector)
            scores_B_K, rows_B_K = self._index.search(queries, found, params=every)
        else:
            rows_B_K, scores_B_K = self._scan(queries, found, selector)
        scores_B_K[rows_B_K < 0] = -np.inf
        return _ranked(rows_B_K, scores_B_K, count)

    def _scan(
        self, queries: np.ndarray, count: int, selector: faiss.IDSelector | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every stored row by inner product, whatever the index orders by."""
        queries = self._like_stored(queries)
        scores_B_K = np.empty((len(queries), count), dtype=np.float32)
        rows_B_K = np.empty((len(queries), count), dtype=np.int64)
        given = [faiss.swig_ptr(array) for array in (queries, self._stored_N_D, scores_B_K, rows_B_K)]
        sizes = (self._stored_N_D.shape[1], len(queries), len(self), count)
        faiss.knn_inner_product(*given[:2], *sizes, *given[2:], selector)
        return rows_B_K, scores_B_K

    def _like_stored(self, queries: np.ndarray) -> np.ndarray:
        """Queries (B, d) with zeros at the coordinates that only stored rows have."""
        extra = self._index.d - queries.shape[1]
        return np.pad(queries, ((0, 0), (0, extra))) if extra else queries

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        return self._index.reconstruct_batch(rows) if self._lists else self._stored_N_D[rows]

    def _tune(self, vectors: np.ndarray) -> None:
        """Find the narrowest walk that is nearly exact, and keep it in what `save` writes."""
        probes = Probes.of(vectors)
        depth = min(Probes.DEPTH, len(self))
        truth_B_K, _ = self._exact(probes.queries_B_D, depth, _Filter(None, len(self)))
        most = self._index.nlist if self._lists else len(self)

        def found(width: int) -> np.ndarray:
            return self._walk(probes.queries_B_D, depth, width)[0] + 1

        width = narrowest(probes, truth_B_K, found, most)
        if self._lists:
            self._index.nprobe = width
        else:
            self._index.hnsw.efSearch = width

    def save(self, path: Path) -> None:
        """Write the index in FAISS's own format."""
        faiss.write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path) -> ItemIndex:
        """Read what `save` wrote.

        Raises:
            BundleError: FAISS cannot read it.
        """
        try:
            return cls(faiss.read_index(str(path)))
        except RuntimeError as error:
            raise BundleError(f"{path}: not a readable FAISS index: {error}") from error


def _rows(items: np.ndarray, count: int) -> np.ndarray:
    """The rows of those item numbers that the index has."""
    rows = np.asarray(items, dtype=np.int64) - 1
    return rows[(rows >= 0) & (rows < count)]


def _ranked(rows_B_K: np.ndarray, scores_B_K: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` items by score, then number; 0 and -inf where rows have no score or run out."""
    found = min(count, rows_B_K.shape[1])
    items_B_K = np.zeros((len(rows_B_K), count), dtype=np.int64)
    best_B_K = np.full((len(rows_B_K), count), -np.inf, dtype=np.float32)
    order_B_K = np.lexsort((rows_B_K, -scores_B_K), axis=1)[:, :found]
    best_B_K[:, :found] = np.take_along_axis(scores_B_K, order_B_K, axis=1)
    items_B_K[:, :found] = np.take_along_axis(rows_B_K, order_B_K, axis=1) + 1
    items_B_K[np.isneginf(best_B_K)] = 0
    return items_B_K, best_B_K


def _of_equal_length(vectors_N_D: np.ndarray) -> np.ndarray:
    """Rows (N, d+1) of one length: the nearest to (q, 0) is then the one with the largest inner product with q."""
    squares_N = np.square(vectors_N_D, dtype=np.float64).sum(axis=1)
    missing_N = np.sqrt(squares_N.max(initial=0.0) - squares_N)
    return np.column_stack([vectors_N_D, missing_N.astype(np.float32)])


def _view(index: faiss.Index) -> np.ndarray:
    """(N, d) the rows that a flat index holds, not copied."""
    flat = faiss.downcast_index(index)
    return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
