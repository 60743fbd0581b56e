"""User vectors by history, bundle version and, where a backbone reads users, user: from this process, the store, or
computed. The backbones' are computed here, the LLM's is given by who asked it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import torch

from models.rankers.of_model import ENCODER
from models.recommending.person import Person, persons
from service.deployments.deployment import Deployment
from service.metrics import Metrics
from service.stores.lru import LRU
from service.stores.port import StoreError, VectorCache

MAX_PUTS = 64


class Representations:
    """A cache in two tiers. Its keys hold all that a representation depends on, so no entry can be stale.

    Args:
        cache: shared between replicas.
        executor: runs the backbone.
        metrics: counts hits.
        size: representations kept in this process.
        precision: of the LLM, whose vectors of a history are others in another one.
    """

    def __init__(
        self, cache: VectorCache, executor: Executor, metrics: Metrics, size: int, precision: str = ""
    ) -> None:
        self._encoder = f"{ENCODER} {precision}"
        self._cache = cache
        self._puts: set[asyncio.Task[None]] = set()
        self._executor = executor
        self._metrics = metrics
        self._local: LRU[bytes, torch.Tensor] = LRU(size)

    async def of(
        self,
        deployment: Deployment,
        history: np.ndarray,
        user_id: str | None = None,
        patience: float | None = None,
    ) -> Person:
        """Who has a history, with vectors in float32.

        Args:
            deployment: whose backbones.
            history: item numbers, oldest first.
            user_id: whose it is; nobody known if not given.
            patience: seconds to wait for the cache at most.
        """
        recent = deployment.recent(history)
        user_id = deployment.known_to_backbone(user_id)
        key = representation_key(recent, deployment.version, user_id)
        values = await self._known(key, deployment, deployment.model.person_size, patience)
        if values is None:
            loop = asyncio.get_running_loop()
            users = None if user_id is None else [user_id]
            found = await loop.run_in_executor(self._executor, persons, deployment.model, [recent], users)
            values = found[0].values
            self._keep(key, values)
        return Person.of_values(values, history, deployment.model.backbone.embedding_size)

    async def encoded(
        self, deployment: Deployment, history: np.ndarray, patience: float | None = None
    ) -> torch.Tensor | None:
        """(d,) float32 what the LLM as user encoder made of a history; None if it has to be asked.

        Args:
            deployment: whose LLM and head.
            history: item numbers, oldest first.
            patience: seconds to wait for the cache at most.
        """
        key = representation_key(deployment.listed(history), deployment.version, encoder=self._encoder)
        return await self._known(key, deployment, deployment.bundle.manifest.user_size, patience)

    def keep_encoded(self, deployment: Deployment, history: np.ndarray, vector: torch.Tensor) -> None:
        """Remember (d,) for `encoded`."""
        self._keep(representation_key(deployment.listed(history), deployment.version, encoder=self._encoder), vector)

    async def _known(
        self, key: bytes, deployment: Deployment, size: int, patience: float | None
    ) -> torch.Tensor | None:
        """(size,) what is kept under `key`."""
        vector = self._local.get(key)
        self._count("local", "miss" if vector is None else "hit")
        if vector is not None:
            return vector
        vector = await self._stored(key, size, patience)
        if vector is None:
            return None
        vector = vector.to(deployment.model.cf_vectors.device)
        self._local.put(key, vector)
        return vector

    def _keep(self, key: bytes, vector: torch.Tensor) -> None:
        self._put(key, vector.cpu().numpy().astype("<f4").tobytes())
        self._local.put(key, vector)

    async def apart(
        self, deployment: Deployment, histories: Sequence[np.ndarray], user_id: str | None = None
    ) -> list[Person]:
        """Who would have histories that nobody has and that will not come again: computed, not kept.

        Args:
            deployment: whose backbones.
            histories: of item numbers, oldest first.
            user_id: whose they would be; nobody known if not given.
        """
        user_id = deployment.known_to_backbone(user_id)
        users = None if user_id is None else [user_id] * len(histories)
        recent = [deployment.recent(history) for history in histories]
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._executor, persons, deployment.model, recent, users)
        return [replace(person, history=history) for person, history in zip(found, histories, strict=True)]

    def _put(self, key: bytes, value: bytes) -> None:
        """Nobody waits for the cache to take it. Where it does not keep up, it does without."""
        if len(self._puts) < MAX_PUTS:
            put = asyncio.create_task(self._put_quietly(key, value))
            self._puts.add(put)
            put.add_done_callback(self._puts.discard)

    async def _put_quietly(self, key: bytes, value: bytes) -> None:
        with contextlib.suppress(StoreError):
            await self._cache.put(key, value)

    async def _stored(self, key: bytes, size: int, patience: float | None) -> torch.Tensor | None:
        try:
            value = await self._cache.get(key, patience)
        except StoreError:
            self._count("redis", "error")
            return None
        if value is None or len(value) != 4 * size:
            self._count("redis", "miss")
            return None
        self._count("redis", "hit")
        return torch.from_numpy(np.frombuffer(value, dtype="<f4").astype(np.float32))

    async def close(self) -> None:
        """Finish what is being cached."""
        await asyncio.gather(*self._puts)

    def _count(self, tier: str, result: str) -> None:
        self._metrics.user_cache.labels(tier, result).inc()


def representation_key(
    history: np.ndarray, bundle_version: str, user_id: str | None = None, encoder: str = ""
) -> bytes:
    """The cache key of a history under a bundle, and of a user where the backbone reads who that is.

    Args:
        history: item numbers.
        bundle_version: whose they are.
        user_id: who.
        encoder: what reads it, if that is not the backbone.
    """
    digest = hashlib.sha256(f"{bundle_version}\0{encoder}".encode())
    if user_id is not None:
        digest.update(hashlib.sha256(user_id.encode()).digest())
    digest.update(np.asarray(history, dtype="<i8").tobytes())
    return digest.digest()
