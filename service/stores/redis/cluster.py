"""A cluster, some of whose nodes may be away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.stores.patience import SLICES, answer

AWAY = (RedisConnectionError, RedisTimeoutError, RedisClusterException, OSError)
"""What is raised of a node, or of a cluster, that is not there."""

LEARN_SECONDS = 1.0
"""Which slots lie where is learnt no more often: all wait for it, and calls to a node that is away always fail."""


class Cluster(RedisCluster):
    """redis-py's client, for which any node that is there speaks.

    Whenever a command fails for its node, redis-py learns anew which slots lie where: of one node after another,
    however long each takes. Then it asks the primary of the first slots where commands have their keys: while that one
    is away, so is the whole cluster. Here a node is asked that has just answered, once in a while, and a slot that has
    moved is learnt from who says so; every command has one key, which is its first argument; scripts say how many they
    have.

    Args:
        nodes: to ask first.
        patience: seconds to wait for a sign of life.
        options: of redis-py.
    """

    def __init__(self, nodes: list[ClusterNode], patience: float, **options: Any) -> None:
        # After some moves redis-py would close all connections, and those in use with them, to learn everything anew.
        super().__init__(startup_nodes=nodes, reinitialize_steps=0, **options)
        self._given = list(self.nodes_manager.startup_nodes.values())
        self._patience = patience
        self._learnt = -LEARN_SECONDS
        self._spoke = ""
        self._learning = asyncio.Lock()
        self.commands_parser = _FirstKey()  # type: ignore[assignment]

    async def initialize(self, *_: Any, **__: Any) -> Cluster:
        """Learn which slots lie where, if that is to be learnt and was not just now.

        Raises:
            RedisError: no node is there.
        """
        async with self._learning:
            unknown = self.get_default_node() is None
            if self._initialize and (unknown or time.monotonic() >= self._learnt + LEARN_SECONDS):
                self._learnt = time.monotonic()  # or tried to: what is known already is as good as it was
                await self._learn(await self.anybody())
            self._initialize = False
        return self

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """Send a command to where its key is. redis-py takes any node while it does not know, and is told by that one.

        Raises:
            RedisError: the node is away, or refuses.
        """
        if self._initialize:
            await self.initialize()
        return await super().execute_command(*command, **options)

    def node_of(self, key: str) -> str:
        """The name of the node where a key is, as far as is known; none while nothing is."""
        nodes = self.nodes_manager.slots_cache.get(self.keyslot(key))
        return nodes[0].name if nodes else ""

    async def ping(self, **_: Any) -> bool:
        """True, once a node gives a sign of life.

        Raises:
            RedisError: none does.
        """
        await self.anybody()
        return True

    async def anybody(self) -> ClusterNode:
        """The node that spoke last, or, if it takes a moment, the first of all to give a sign of life.

        Raises:
            RedisConnectionError: none does in time.
        """
        why, known = "no node is known", self._known()
        for last in (node for node in known if node.name == self._spoke):
            if await self._there(last, self._patience / SLICES) is last:
                return last
        waiting = {asyncio.create_task(self._there(node, self._patience)) for node in known}
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for said in (task.result() for task in done):
                    if isinstance(said, ClusterNode):
                        self._spoke = said.name
                        return said
                    why = str(said) or type(said).__name__
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        raise RedisConnectionError(f"no node of the cluster is there: {why}")

    async def aclose(self) -> None:
        """Close the connections, also those to nodes that were asked and are none of the cluster's any more."""
        await super().aclose()
        await asyncio.gather(*(node.disconnect() for node in (*self._known(), *self._given)), return_exceptions=True)

    async def _learn(self, node: ClusterNode) -> None:
        manager = self.nodes_manager
        before = dict(manager.startup_nodes)
        manager.startup_nodes = {node.name: node}
        try:
            await manager.initialize()
        except BaseException:
            manager.startup_nodes = before
            raise
        manager.default_node = self.get_node(node_name=node.name) or manager.default_node

    def _known(self) -> list[ClusterNode]:
        """Those that the cluster named, and, should they all have moved, those that were given."""
        named = self.nodes_manager.nodes_cache
        return [*named.values(), *(node for node in self._given if node.name not in named)]

    async def _there(self, node: ClusterNode, patience: float) -> ClusterNode | Exception:
        """The node, or why it is not there."""
        try:
            await answer(node.execute_command("PING"), patience)
        except AWAY as error:
            return error
        return node


class _FirstKey:
    """Says where a command has its key, and asks nobody."""

    async def initialize(self, _: ClusterNode) -> None:
        """There is nothing to learn."""

    async def get_keys(self, _: str, *arguments: Any) -> Sequence[Any]:
        """The first argument."""
        return arguments[:1]
