"""The item index: maximum inner product over the CF-space vectors of all items, warm and cold."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import faiss
import numpy as np

from models.errors import BundleError

FLAT_LIMIT = 200_000
HNSW_LIMIT = 2_000_000


class IndexKind(StrEnum):
    """How FAISS searches. FLAT is exact."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"

    @classmethod
    def for_size(cls, items: int) -> IndexKind:
        """Exact while it is cheap, a graph up to millions, inverted lists beyond."""
        if items <= FLAT_LIMIT:
            return cls.FLAT
        return cls.HNSW if items <= HNSW_LIMIT else cls.IVF


class ItemIndex:
    """A FAISS index over items 1..N.

    Args:
        index: a FAISS inner-product index whose row r is item r + 1.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

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
            case IndexKind.HNSW:
                index = faiss.IndexHNSWFlat(size, 32, faiss.METRIC_INNER_PRODUCT)
                index.hnsw.efConstruction = 200
                index.hnsw.efSearch = 256
            case IndexKind.IVF:
                lists = max(1, min(int(4 * items**0.5), items // 39))
                index = faiss.IndexIVFFlat(faiss.IndexFlatIP(size), size, lists, faiss.METRIC_INNER_PRODUCT)
                index.nprobe = min(lists, 64)
                index.train(vectors)
        index.add(vectors)
        return cls(index)

    def search(
        self,
        queries_B_D: np.ndarray,
        count: int,
        *,
        allowed: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best items for each query by inner product.

        Args:
            queries_B_D: (B, d) user representations.
            count: how many items to return.
            allowed: item numbers to search among; all if not given.
            excluded: item numbers never to return.

        Returns:
            Items (B, count) with 0 where fewer were found, and their scores (B, count), -inf there.
        """
        if allowed is not None:
            kept = np.setdiff1d(allowed, excluded) if excluded is not None else np.asarray(allowed)
            selector = faiss.IDSelectorBatch(kept.astype(np.int64) - 1)
        elif excluded is not None and len(excluded):
            dropped = faiss.IDSelectorBatch(np.asarray(excluded, dtype=np.int64) - 1)
            selector = faiss.IDSelectorNot(dropped)
        else:
            selector = None
        queries = np.ascontiguousarray(queries_B_D, dtype=np.float32)
        scores, rows = self._index.search(queries, count, params=self._parameters(selector))
        return rows + 1, np.where(rows < 0, -np.inf, scores)

    def _parameters(self, selector: faiss.IDSelector | None) -> faiss.SearchParameters | None:
        if selector is None:
            return None
        if isinstance(self._index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(sel=selector, efSearch=self._index.hnsw.efSearch)
        if isinstance(self._index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(sel=selector, nprobe=self._index.nprobe)
        return faiss.SearchParameters(sel=selector)

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
