"""Lua that runs inside Redis, in one step for one user."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from service.stores.redis.connect import Client


class Script:
    """A script beside this module. Sent by its digest, and whole to a server that does not know it yet."""

    def __init__(self, name: str) -> None:
        self.text = (Path(__file__).parent / f"{name}.lua").read_text(encoding="utf-8")
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[str | int]) -> tuple[str | int, ...]:
        """How it is asked to run."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)

    async def run(self, client: Client, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """Run it, once: a script that is not known does nothing."""
        try:
            return await self._run(client, keys, arguments)
        except NoScriptError:
            await self.load(client)
            return await self._run(client, keys, arguments)

    async def load(self, client: Client) -> None:
        """Make it known, to every node of a cluster."""
        await client.script_load(self.text)

    async def _run(self, client: Client, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        return await client.evalsha(self.digest, len(keys), *keys, *arguments)
