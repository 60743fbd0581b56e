"""An engine that does as its config says, for the process that hosts it: no LLM, so it starts at once."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np

from models.config import Config
from models.errors import ConfigError, EngineError
from models.prompts.layout import Prompt
from models.scoring.choices import Branching


class TwoPartError(EngineError):
    """One that pickle cannot make again."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


class ScriptedConfig(Config):
    """What happens.

    Attributes:
        start: "well", "refuses", "raises" or "never".
        lives: a file in which each life leaves a line; none if not given.
        later: what the second life does at its start, and the third does not: as `start`, or "another LLM".
        score: "zeros", "late" (an hour), "two parts", "raises", "dies", "cancelled" or "not to be sent".
        close: "well" or "never".
        well_seconds: after so long the engine says that it is not well.
        forks: it starts with a child that has all that it has.
    """

    start: str = "well"
    lives: str = ""
    later: str = "well"
    score: str = "zeros"
    close: str = "well"
    well_seconds: float = 3600.0
    forks: bool = False


class ScriptedEngine:
    """See `ScriptedConfig`."""

    def __init__(self, config: ScriptedConfig) -> None:
        self.config = config
        self.tokenizer, self.token_size, self.context_length, self.depth = None, 4, 256, 2
        self.fingerprint = ""
        self._since = 0.0
        self.on_batch: Callable[[int], None] = lambda _: None

    @property
    def healthy(self) -> bool:
        """For as long as the config says."""
        return asyncio.get_running_loop().time() - self._since < self.config.well_seconds

    async def start(self) -> None:
        """As the config says."""
        start = self.config.later if self._life() == 2 else self.config.start
        if start == "refuses":
            raise ConfigError("there is no such LLM")
        if start == "raises":
            raise OSError("the disk is gone")
        if start == "never":
            await asyncio.sleep(3600)
        if self.config.forks and not os.fork():
            while True:
                time.sleep(3600)
        self._since = asyncio.get_running_loop().time()
        self.fingerprint = "another" if start == "another LLM" else "scripted"

    def _life(self) -> int:
        if not self.config.lives:
            return 1
        with Path(self.config.lives).open("a+") as file:
            file.write(f"{os.getpid()}\n")
            file.seek(0)
            return len(file.readlines())

    async def close(self) -> None:
        """As the config says."""
        if self.config.close == "never":
            await asyncio.sleep(3600)

    async def score(self, prompt: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:  # noqa: ARG002
        """As the config says."""
        self.on_batch(3)
        if self.config.score == "late":
            await asyncio.sleep(3600)
        if self.config.score == "two parts":
            raise TwoPartError("a node", "it is gone")
        if self.config.score == "cancelled":
            raise asyncio.CancelledError
        if self.config.score == "not to be sent":
            return [lambda: None]  # type: ignore[list-item]
        if self.config.score == "raises":
            raise ZeroDivisionError("by zero")
        if self.config.score == "dies":
            self._since = -math.inf
            raise EngineError("it died of the question")
        return [np.zeros(len(branch.children), dtype=np.float32) for branch in trie.branches]

    async def encode(self, prompt: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:  # noqa: ARG002
        """Zeros."""
        return np.zeros((len(places), self.token_size), dtype=np.float32)

    async def generate(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> AsyncIterator[str]:  # noqa: ARG002
        """Letters without end, each of them a batch."""
        for number in range(max_tokens):
            await asyncio.sleep(0.001)
            self.on_batch(1)
            yield chr(ord("a") + number % 26)


def mark() -> None:
    """What a process does first: it says so in its error output."""
    print("prepared", file=sys.stderr, flush=True)  # noqa: T201


def broken_measure() -> bytes:
    """What is asked for and cannot be had."""
    raise OSError("no such file")
