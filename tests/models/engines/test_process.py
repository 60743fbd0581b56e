"""The life of the process that hosts an engine: how it starts, dies, hangs and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from models.engines.base import warm_up_question
from models.engines.process import EngineProcess, EngineProcessConfig
from models.errors import AllmrecError, ConfigError, EngineError, OverloadedError
from models.prompts.layout import Prompt
from tests.models.engines.hosting import engine_processes, lives
from tests.models.engines.scripted import ScriptedConfig, ScriptedEngine, broken_measure, mark

pytestmark = pytest.mark.anyio

SECONDS = 60.0
PROMPT, TRIE = warm_up_question(4)
ENDS_WITH_PARENT = """
import asyncio, sys
from models.engines.process import EngineProcess, EngineProcessConfig
from tests.models.engines.hosting import engine_processes
from tests.models.engines.scripted import ScriptedConfig, ScriptedEngine

async def main():
    config = EngineProcessConfig(end_seconds=2.0)
    engine = EngineProcess(ScriptedEngine(ScriptedConfig(close=sys.argv[1])), config=config)
    await engine.start()
    print(engine._host.process.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def made(times: dict[str, float] | None = None, **script: str | float) -> EngineProcess:
    config = EngineProcessConfig(**{"restart_seconds": 0.1, **(times or {})})
    return EngineProcess(ScriptedEngine(ScriptedConfig(**script)), config=config)


@asynccontextmanager
async def running(times: dict[str, float] | None = None, **script: str | float) -> AsyncIterator[EngineProcess]:
    engine = made(times, **script)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def until(engine: EngineProcess, healthy: bool) -> None:
    async with asyncio.timeout(SECONDS):
        while engine.healthy is not healthy:
            await asyncio.sleep(0.01)


def pid_of(engine: EngineProcess) -> int:
    assert engine._host is not None
    return engine._host.process.pid


async def test_is_asked_as_an_engine_here_would_be() -> None:
    async with running() as engine:
        batches: list[int] = []
        engine.on_batch = batches.append
        assert engine.fingerprint == "scripted"
        assert [len(logits) for logits in await engine.score(PROMPT, TRIE)] == [len(b.children) for b in TRIE.branches]
        assert (await engine.encode(PROMPT, np.asarray([1, 2]))).shape == (2, 4)
        assert [piece async for piece in engine.generate(PROMPT, 3)] == ["a", "b", "c"]
        assert batches == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ({"score": "two parts"}, EngineError, "a node: it is gone"),
        ({"score": "raises"}, EngineError, "ZeroDivisionError: by zero"),
        ({"score": "cancelled"}, EngineError, "gave the request up"),
        ({"score": "not to be sent"}, EngineError, "Answer cannot be sent"),
    ],
    ids=["of ours, not to be pickled", "of nobody's", "nobody left", "an answer that cannot be pickled"],
)
async def test_an_error_there_is_one_here(script: dict[str, str], error: type[AllmrecError], words: str) -> None:
    async with running(**script) as engine:
        with pytest.raises(error, match=words):
            await engine.score(PROMPT, TRIE)
        assert engine.healthy


async def test_whoever_is_told_of_a_death_finds_the_engine_dead() -> None:
    async with running(score="dies") as engine:
        with pytest.raises(EngineError, match="died of the question"):
            await engine.score(PROMPT, TRIE)
        assert not engine.healthy


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [("refuses", ConfigError, "there is no such LLM"), ("raises", EngineError, "OSError: the disk is gone")],
)
async def test_an_engine_that_does_not_start_says_why(start: str, error: type[AllmrecError], words: str) -> None:
    """The error is the engine's own, and no process is left."""
    engine = made(start=start)
    with pytest.raises(error, match=words):
        await engine.start()
    assert not engine.healthy
    assert not engine_processes()


async def test_killed_it_fails_what_waits_and_comes_back() -> None:
    async with running(score="late") as engine:
        asked = [asyncio.create_task(engine.score(PROMPT, TRIE)) for _ in range(3)]
        await asyncio.sleep(0.1)
        first = pid_of(engine)
        os.kill(first, signal.SIGKILL)
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(result) for result in results] == ["the LLM's process ended"] * 3
        assert not engine.healthy
        with pytest.raises(EngineError, match="not running"):
            await engine.score(PROMPT, TRIE)
        await until(engine, healthy=True)
        assert pid_of(engine) != first
        assert (await engine.encode(PROMPT, np.asarray([1]))).shape == (1, 4)


async def test_nothing_that_it_started_outlives_it() -> None:
    """Nor does a child that has its socket, too, hide its death."""
    async with running(forks=True) as engine:
        first = psutil.Process(pid_of(engine))
        (child,) = first.children()
        first.kill()
        await until(engine, healthy=False)
        await until(engine, healthy=True)
        assert not lives(child)


async def test_a_second_start_that_hangs_is_given_up(tmp_path: Path) -> None:
    async with running({"hang_seconds": 2.0}, lives=str(tmp_path / "lives"), later="never") as engine:
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(engine, healthy=False)
        await until(engine, healthy=True)
        assert len((tmp_path / "lives").read_text().splitlines()) == 3


async def test_another_llm_is_not_served_in_the_place_of_the_first(tmp_path: Path) -> None:
    """The bundle was checked against the first: the second life is refused, the third serves."""
    async with running(lives=str(tmp_path / "lives"), later="another LLM") as engine:
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(engine, healthy=False)
        await until(engine, healthy=True)
        assert engine.fingerprint == "scripted"
        assert len((tmp_path / "lives").read_text().splitlines()) == 3


async def test_an_engine_that_stays_unwell_is_started_again() -> None:
    async with running({"unwell_seconds": 1.0}, well_seconds=0.5) as engine:
        first = pid_of(engine)
        await until(engine, healthy=False)
        await until(engine, healthy=True)
        assert pid_of(engine) != first


async def test_a_supervisor_survives_what_it_did_not_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no thread to be had at the first try."""
    real, failures = asyncio.to_thread, [RuntimeError("can't start new thread")]

    async def to_thread(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(*arguments)

    async with running() as engine:
        monkeypatch.setattr(asyncio, "to_thread", to_thread)
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(engine, healthy=False)
        await until(engine, healthy=True)
        assert not failures


async def test_what_cannot_be_measured_kills_nobody() -> None:
    engine = EngineProcess(ScriptedEngine(ScriptedConfig()), measure=broken_measure)
    await engine.start()
    try:
        assert await engine.measured() == b""
        assert (await engine.encode(PROMPT, np.asarray([1]))).shape == (1, 4)
    finally:
        await engine.close()


async def test_a_question_that_cannot_be_sent_is_an_engine_s_error() -> None:
    async with running() as engine:
        with pytest.raises(EngineError, match="Score cannot be sent"):
            await engine.score(PROMPT, TRIE, due=lambda: 0.0)  # type: ignore[arg-type]
        assert not engine._answers


async def test_more_than_it_reads_is_refused() -> None:
    """Frozen, it takes megabytes; beyond, who asks is told at once."""
    large = Prompt(np.zeros(200, dtype=np.int64), np.arange(100), torch.zeros(100, 4))
    heavy = np.zeros(1 << 20, dtype=np.int64)
    async with running() as engine:
        os.kill(pid_of(engine), signal.SIGSTOP)
        asked = [asyncio.create_task(engine.encode(large, heavy)) for _ in range(6)]
        done, waiting = await asyncio.wait(asked, timeout=1.0)
        assert [type(task.exception()) for task in done] == [OverloadedError] * len(done)
        assert done
        assert waiting
        for task in waiting:
            task.cancel()
        os.kill(pid_of(engine), signal.SIGCONT)


async def test_a_process_that_says_nothing_is_killed_and_started_again() -> None:
    async with running({"hang_seconds": 2.0}, score="late") as engine:
        asked = asyncio.create_task(engine.score(PROMPT, TRIE))
        await asyncio.sleep(0.1)
        first = pid_of(engine)
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(EngineError, match="ended"):
            await asked
        await until(engine, healthy=True)
        assert not psutil.pid_exists(first)


async def test_a_quiet_process_is_none_that_hangs() -> None:
    """Nobody asks for longer than a hang takes."""
    async with running({"hang_seconds": 2.0}) as engine:
        first = pid_of(engine)
        await asyncio.sleep(4.0)
        assert (pid_of(engine), engine.healthy) == (first, True)


async def test_says_when_its_engine_is_not_well() -> None:
    """A vLLM that starts again, for one: the process stays."""
    async with running(well_seconds=0.5) as engine:
        first = pid_of(engine)
        await until(engine, healthy=False)
        assert pid_of(engine) == first


async def test_whoever_leaves_frees_the_work() -> None:
    """A text without end stops there when nobody reads it here."""
    async with running(score="late") as engine:
        batches: list[int] = []
        engine.on_batch = batches.append
        pieces = engine.generate(PROMPT, 10**9)
        assert await anext(pieces) == "a"
        await pieces.aclose()
        asked = asyncio.create_task(engine.score(PROMPT, TRIE))
        await asyncio.sleep(0.05)
        asked.cancel()
        await asyncio.wait([asked])
        assert not engine._answers
        async with asyncio.timeout(SECONDS):
            written = -1
            while written != len(batches):
                written = len(batches)
                await asyncio.sleep(0.2)


async def test_a_signal_to_end_is_for_who_asks() -> None:
    """Whoever ends a whole group of processes leaves the draining of requests to the service."""
    async with running() as engine:
        os.kill(pid_of(engine), signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert (await engine.encode(PROMPT, np.asarray([1]))).shape == (1, 4)


async def test_closed_while_it_starts_it_leaves_nothing() -> None:
    engine = made(start="never")
    starting = asyncio.create_task(engine.start())
    while not engine_processes():
        await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.wait([starting])
    await engine.close()
    assert not engine_processes()


@pytest.mark.parametrize("close", ["well", "never"])
async def test_it_does_not_outlive_who_asks(close: str) -> None:
    """Killed without a word; and the engine may not want to end."""
    command = [sys.executable, "-c", ENDS_WITH_PARENT, close]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        host = psutil.Process(int(await asyncio.to_thread(parent.stdout.readline)))
        parent.kill()
    async with asyncio.timeout(SECONDS):
        while lives(host):
            await asyncio.sleep(0.05)


async def test_an_engine_that_does_not_end_is_ended() -> None:
    engine = made({"end_seconds": 0.5}, close="never")
    await engine.start()
    await engine.close()
    assert not engine_processes()


async def test_prepares_its_process_first(capfd: pytest.CaptureFixture[str]) -> None:
    engine = EngineProcess(ScriptedEngine(ScriptedConfig()), mark)
    await engine.start()
    await engine.close()
    assert "prepared" in capfd.readouterr().err
