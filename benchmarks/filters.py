"""Retrieval under filters: recall against a full sort, and latency, by kind of index and share of items allowed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from models.bundle.index import IndexKind, ItemIndex

SELECTIVITIES = (1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 1.0)
CLUSTER_ITEMS = 1000


def catalogue(items: int, size: int, queries: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Item vectors (N+1, d) in clusters, popular ones longer, and users (Q, d) between three items each."""
    centres = random.standard_normal((max(50, items // CLUSTER_ITEMS), size))
    vectors = centres[random.integers(len(centres), size=items)] + 0.7 * random.standard_normal((items, size))
    vectors *= np.exp(0.25 * random.standard_normal((items, 1)))
    baskets = vectors[random.integers(items, size=(queries, 3))].mean(axis=1)
    users = baskets + 0.3 * random.standard_normal(baskets.shape)
    return np.concatenate([np.zeros((1, size)), vectors]).astype(np.float32), users.astype(np.float32)


def filters(table: np.ndarray, random: np.random.Generator) -> Iterator[tuple[str, float, np.ndarray | None]]:
    """Sets that may be found: scattered over the catalogue, or what lies furthest in one direction."""
    items = len(table) - 1
    for selectivity in SELECTIVITIES:
        if selectivity == 1:
            yield "none", 1.0, None
            continue
        size = max(1, round(selectivity * items))
        yield "scattered", selectivity, random.permutation(items)[:size] + 1
        towards = table[1:] @ random.standard_normal(table.shape[1]).astype(np.float32)
        yield "category", selectivity, np.argsort(-towards)[:size] + 1


def measure(
    items: int, kinds: Sequence[IndexKind], size: int, queries: int, seen: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of the table: every kind under every filter, with and without the user's best `seen` items left out."""
    random = np.random.default_rng(seed)
    table, users = catalogue(items, size, queries, random)
    scores_Q_N = users @ table[1:].T
    order_Q_N = [np.argsort(-scores)[:seen] + 1 for scores in scores_Q_N]
    built = {}
    for kind in kinds:
        started = time.perf_counter()
        built[kind] = ItemIndex.build(table, kind), time.perf_counter() - started
    rows = []
    for shape, selectivity, allowed in filters(table, random):
        for count_seen in (0, seen):
            excluded = [met[:count_seen] for met in order_Q_N]
            truth = [_best(*pair, allowed) for pair in zip(scores_Q_N, excluded, strict=True)]
            for kind, (index, seconds) in built.items():
                row = {"items": items, "index": kind.value, "filter": shape, "share": selectivity, "seen": count_seen}
                rows.append({**row, **_ask(index, users, allowed, excluded, truth), "built_s": round(seconds, 1)})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over all shares, for each catalogue, index and form of filter: the least recall, and the range of latency.

    Processor time, unlike latency, says the same on a busy machine.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in ("items", "index", "filter", "seen")), []).append(row)
    lines = []
    for (items, index, shape, seen), members in groups.items():
        least = min(members, key=lambda row: row["recall@100"])
        medians = [row["p50_ms"] for row in members]
        lines.append(
            {
                "items": items,
                "index": index,
                "filter": shape,
                "seen": seen,
                "least recall@100": least["recall@100"],
                "at share": least["share"],
                "least p50_ms": min(medians),
                "largest p50_ms": max(medians),
                "largest p99_ms": max(row["p99_ms"] for row in members),
                "largest cpu_ms": max(row["cpu_ms"] for row in members),
                "built in s": members[0]["built_s"],
            }
        )
    return sorted(lines, key=lambda line: (line["items"], line["index"], line["filter"], line["seen"]))


def _best(scores: np.ndarray, excluded: np.ndarray, allowed: np.ndarray | None, count: int = 100) -> np.ndarray:
    kept = np.full(len(scores), -np.inf, dtype=np.float32)
    rows = slice(None) if allowed is None else allowed - 1
    kept[rows] = scores[rows]
    kept[excluded - 1] = -np.inf
    best = np.argpartition(-kept, min(count, len(kept) - 1))[:count]
    return best[np.isfinite(kept[best])] + 1


def _ask(
    index: ItemIndex,
    users: np.ndarray,
    allowed: np.ndarray | None,
    excluded: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
) -> dict[str, Any]:
    seconds, computed, shares = [], [], []
    for user, met, best in zip(users, excluded, truth, strict=True):
        started, began = time.perf_counter(), time.process_time()
        found, _ = index.search(user[None], 100, allowed=allowed, excluded=met)
        seconds.append(time.perf_counter() - started)
        computed.append(time.process_time() - began)
        shares.append(np.isin(best, found).mean() if len(best) else 1.0)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "recall@100": round(float(np.mean(shares)), 3),
        "worst": round(float(np.min(shares)), 3),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "cpu_ms": round(1000 * float(np.median(computed)), 2),
    }
