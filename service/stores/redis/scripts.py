"""Lua that runs inside Redis, in one step for one user."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
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
        """Run it, once: a script that is not known does nothing. In a cluster only the node of `keys` is asked."""
        try:
            return await client.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(self.text, len(keys), *keys, *arguments)

    async def load(self, client: Redis) -> None:
        """Make it known to a server."""
        await client.script_load(self.text)
