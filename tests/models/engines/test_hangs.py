"""vLLM that hangs is killed and started again: when it is asked, when it starts, when it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from models.engines import vllm as engine_module
from models.engines.base import warm_up_question
from models.engines.silence import Silence
from models.engines.vllm import VLLMEngine, VLLMEngineConfig
from models.errors import EngineError

pytestmark = pytest.mark.anyio
HANG, AN_HOUR = 0.2, 3600.0


class HungError(Exception):
    """What a call ends with when the process that it waits for is killed."""


class Processes:
    """Stands in for vLLM: engines answer until they are told to hang, and hung calls fail when processes are killed.

    Attributes:
        starts: how many engines were started.
        hang: "answers", "start" or "end": what hangs next, once.
        seconds: that an answer takes.
        deaf: how many kills come before there is anything to kill.
    """

    def __init__(self) -> None:
        self.starts, self.kills = 0, 0
        self.hang = ""
        self.seconds, self.deaf = 0.0, 0
        self.current: SimpleNamespace | None = None

    def load(self, _: VLLMEngineConfig, _given_up: threading.Event) -> Any:
        self.starts += 1
        if self.hang == "start":
            self._wait()
        self.current = llm = SimpleNamespace(errored=False, output_handler=None)
        llm.model_config = SimpleNamespace(dtype=torch.float32)
        llm.output_processor = SimpleNamespace(propagate_error=lambda _: None)
        llm.shutdown = self._shutdown
        llm.generate = lambda _input, params, **_: self._answers(llm, params)
        return llm

    def kill(self) -> None:
        self.kills += 1
        self.hang = ""
        if self.current is not None:
            self.current.errored = True

    def _shutdown(self) -> None:
        if self.hang == "end":
            self._wait()

    def _wait(self) -> None:
        before = self.kills
        while self.kills <= before + self.deaf:
            time.sleep(0.01)
        raise HungError

    async def _answers(self, llm: Any, params: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(self.seconds)
        while self.hang == "answers":
            await asyncio.sleep(0.01)
        if llm.errored:
            raise HungError
        logprobs = {token: SimpleNamespace(logprob=-1.0) for token in params.logprob_token_ids}
        yield SimpleNamespace(outputs=[SimpleNamespace(logprobs=[logprobs])])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Processes:
    pytest.importorskip("vllm")
    made = Processes()
    monkeypatch.setattr(engine_module, "_load", made.load)
    monkeypatch.setattr(engine_module, "_kill_processes", made.kill)
    return made


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def answers(engine: VLLMEngine) -> bool:
    """Whether the engine answers."""
    try:
        scores = await engine.score(*warm_up_question(engine.token_size))
    except EngineError:
        return False
    return all(np.all(each == -1.0) for each in scores)


@pytest.mark.parametrize("what", ["answers", "start", "end"])
async def test_what_hangs_is_killed_and_comes_back(what: str, fake: Processes) -> None:
    engine = VLLMEngine(
        VLLMEngineConfig(hang_seconds=HANG, end_seconds=HANG, restart_seconds=0.01, load_format="dummy")
    )
    await engine.start()
    assert await answers(engine)
    fake.hang = what
    if what == "answers":
        assert not await answers(engine)
    else:
        assert fake.current is not None
        fake.current.errored = True
    await until(lambda: fake.kills > 0 and engine.healthy)
    assert await answers(engine)
    await engine.close()


async def test_an_engine_that_nobody_asks_is_left_alone(fake: Processes) -> None:
    engine = VLLMEngine(VLLMEngineConfig(hang_seconds=HANG, load_format="dummy"))
    await engine.start()
    await asyncio.sleep(3 * HANG)
    assert await answers(engine)
    assert (fake.starts, fake.kills) == (1, 0)
    await engine.close()


async def test_an_engine_that_is_only_slower_than_its_callers_is_left_alone(fake: Processes) -> None:
    """All of them give up before it could answer."""
    engine = VLLMEngine(VLLMEngineConfig(hang_seconds=HANG, load_format="dummy"))
    await engine.start()
    fake.seconds = HANG / 2
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HANG / 5):
                await answers(engine)
    assert (fake.starts, fake.kills) == (1, 0)
    await engine.close()


async def test_one_that_is_hardly_ever_asked_is_found_out_too(fake: Processes) -> None:
    """By a single request, whose caller has left long ago."""
    engine = VLLMEngine(VLLMEngineConfig(hang_seconds=HANG, restart_seconds=0.01, load_format="dummy"))
    await engine.start()
    fake.hang = "answers"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(HANG / 10):
            await answers(engine)
    await until(lambda: fake.kills > 0 and engine.healthy)
    assert await answers(engine)
    await engine.close()


async def test_an_end_that_hangs_is_killed(fake: Processes) -> None:
    engine = VLLMEngine(VLLMEngineConfig(end_seconds=HANG, load_format="dummy"))
    await engine.start()
    fake.hang = "end"
    async with asyncio.timeout(20):
        await engine.close()
    assert fake.kills == 1


@pytest.mark.parametrize("deaf", [0, 2])
async def test_who_ends_waits_for_no_start(deaf: int, fake: Processes) -> None:
    """Neither for the first one, which has no limit, nor for another, nor if its processes are still to come."""
    config = VLLMEngineConfig(hang_seconds=AN_HOUR, restart_seconds=0.01, load_format="dummy")
    fake.hang, fake.deaf = "start", deaf
    starting = asyncio.create_task((engine := VLLMEngine(config)).start())
    await until(lambda: fake.starts == 1)
    starting.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([starting])
        await engine.close()
    assert fake.kills > deaf

    engine = VLLMEngine(config)
    await engine.start()
    before, fake.hang = fake.kills, "start"
    assert fake.current is not None
    fake.current.errored = True
    await until(lambda: fake.starts == 3)
    async with asyncio.timeout(20):
        await engine.close()
    assert fake.kills > before + deaf
    assert not engine.healthy


async def test_who_ends_waits_for_no_end_before(fake: Processes) -> None:
    """That of one that died, and whose end hangs."""
    engine = VLLMEngine(VLLMEngineConfig(end_seconds=AN_HOUR, load_format="dummy"))
    await engine.start()
    fake.hang = "end"
    assert fake.current is not None
    fake.current.errored = True
    await until(lambda: engine._llm is None)
    async with asyncio.timeout(20):
        await engine.close()
    assert fake.kills > 0


@pytest.mark.parametrize("restarted", [False, True])
async def test_who_ends_waits_for_no_end_of_what_is_warmed_up(restarted: bool, fake: Processes) -> None:
    """That of one that loaded, is asked its first question, and hangs when it shall end."""
    engine = VLLMEngine(
        VLLMEngineConfig(hang_seconds=AN_HOUR, end_seconds=AN_HOUR, restart_seconds=0.01, load_format="dummy")
    )
    if restarted:
        await engine.start()
        assert fake.current is not None
        fake.current.errored = True
    fake.seconds = AN_HOUR
    starting = asyncio.create_task(engine.start()) if not restarted else None
    await until(lambda: fake.starts == 1 + restarted and fake.current is not None and not fake.current.errored)
    await asyncio.sleep(HANG)
    fake.hang = "end"
    async with asyncio.timeout(20):
        if starting is not None:
            starting.cancel()
            await asyncio.wait([starting])
        await engine.close()
    assert fake.kills > 0
    assert not engine.healthy


async def test_a_first_start_that_fails_at_its_first_question_and_hangs_then_is_killed(fake: Processes) -> None:
    engine = VLLMEngine(VLLMEngineConfig(end_seconds=HANG, load_format="dummy"))
    fake.seconds = HANG
    starting = asyncio.create_task(engine.start())
    await until(lambda: fake.current is not None)
    assert fake.current is not None
    fake.current.errored, fake.hang = True, "end"
    async with asyncio.timeout(20):
        with pytest.raises(EngineError):
            await starting
    assert fake.kills == 1


@pytest.mark.parametrize("given_up_in", ["imports", "model config"])
async def test_a_start_that_is_given_up_goes_no_further(given_up_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with the step that it is in, and starts no processes."""
    pytest.importorskip("vllm")
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    given_up = threading.Event()

    def configured(_: AsyncEngineArgs) -> Any:
        if given_up.is_set():
            pytest.fail("it went on")
        given_up.set()
        return SimpleNamespace(using_transformers_backend=lambda: False)

    monkeypatch.setattr(AsyncEngineArgs, "create_model_config", configured)
    monkeypatch.setattr(AsyncLLM, "from_engine_args", lambda _: pytest.fail("it was started"))
    if given_up_in == "imports":
        given_up.set()
    with pytest.raises(EngineError, match="given up"):
        await asyncio.to_thread(engine_module._load, VLLMEngineConfig(), given_up)


def test_silence_begins_with_the_first_question_and_ends_with_an_answer() -> None:
    now = 0.0
    silence = Silence(60, clock=lambda: now)
    now = 600
    assert not silence.too_long
    silence.asked()
    now = 650
    silence.asked()
    now = 661
    assert silence.too_long
    silence.broken()
    assert not silence.too_long
