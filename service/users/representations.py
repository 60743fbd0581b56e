"""x_u by history and bundle version: from this process, from the store, or computed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from concurrent.futures import Executor

import numpy as np
import torch

from service.deployments.deployment import Deployment
from service.metrics import Metrics
from service.stores.lru import LRU
from service.stores.port import StoreError, UserStore


class Representations:
    """A cache in two tiers. Its keys hold all that a representation depends on, so no entry can be stale.

    Args:
        store: shared between replicas.
        executor: runs the backbone.
        metrics: counts hits.
        size: representations kept in this process.
    """

    def __init__(self, store: UserStore, executor: Executor, metrics: Metrics, size: int) -> None:
        self._store = store
        self._executor = executor
        self._metrics = metrics
        self._local: LRU[str, torch.Tensor] = LRU(size)

    async def of(self, deployment: Deployment, history: np.ndarray) -> torch.Tensor:
        """x_u (d,) float32 of a history of item numbers, oldest first."""
        recent = deployment.recent(history)
        key = representation_key(recent, deployment.version)
        vector = self._local.get(key)
        self._count("local", "miss" if vector is None else "hit")
        if vector is not None:
            return vector
        vector = await self._stored(key, deployment.bundle.manifest.user_size)
        if vector is None:
            loop = asyncio.get_running_loop()
            vectors = await loop.run_in_executor(self._executor, deployment.model.user_vectors, [recent])
            vector = vectors[0].float()
            with contextlib.suppress(StoreError):
                await self._store.put_vector(key, vector.cpu().numpy().astype("<f4").tobytes())
        else:
            vector = vector.to(deployment.model.cf_vectors.device)
        self._local.put(key, vector)
        return vector

    async def _stored(self, key: str, size: int) -> torch.Tensor | None:
        try:
            value = await self._store.vector(key)
        except StoreError:
            self._count("redis", "error")
            return None
        if value is None or len(value) != 4 * size:
            self._count("redis", "miss")
            return None
        self._count("redis", "hit")
        return torch.from_numpy(np.frombuffer(value, dtype="<f4").astype(np.float32))

    def _count(self, tier: str, result: str) -> None:
        self._metrics.user_cache.labels(tier, result).inc()


def representation_key(history: np.ndarray, bundle_version: str) -> str:
    """The cache key of a history under a bundle."""
    digest = hashlib.sha256(bundle_version.encode() + b"\0")
    digest.update(np.asarray(history, dtype="<i8").tobytes())
    return digest.hexdigest()
