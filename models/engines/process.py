"""An engine in a process of its own, as `LLMEngine`: whoever asks keeps its interpreter for itself.

In one process the threads that score and the event loop that answers take turns at the interpreter's lock: above
capacity the LLM then stands still for much of the time (docs/adr/0027). When the process dies,
says nothing any more or stays unwell, it is started again with growing pauses.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from models.config import Config
from models.engines.base import LLMEngine, check_prompt
from models.engines.wire import (
    Alive,
    Answer,
    Batch,
    Cancel,
    Encode,
    Failed,
    Generate,
    Measure,
    Piece,
    Plan,
    Question,
    Refused,
    Score,
    Started,
    asked,
    no_metrics,
    nothing,
    packed,
    received,
)
from models.errors import EngineError, OverloadedError
from models.prompts.layout import Prompt
from models.scoring.choices import Branching

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
MEASURE_SECONDS = 1.0
CLEAN_SECONDS = 0.5
QUIET_SECONDS = 5.0
"""A process that says nothing for so long is asked nothing: it says every second that it is there."""
MOST_UNREAD_BYTES = 16 << 20
"""A few large questions, or hundreds of small ones."""
Answers = asyncio.Queue[Answer | Piece | Failed]


class EngineProcessConfig(Config):
    """Times of a hosted engine.

    Attributes:
        restart_seconds: pause before a process that died is started again; doubles while it keeps dying.
        max_restart_seconds: the longest pause. A process that lives longer than that starts over at the shortest.
        hang_seconds: a process that says nothing for so long is killed and started again. A restart is given this much
            longer than the first start took.
        end_seconds: how long it may take to end until it is killed.
        unwell_seconds: an engine that is not well for so long is started again, process and all.
    """

    restart_seconds: float = 1.0
    max_restart_seconds: float = 60.0
    hang_seconds: float = 60.0
    end_seconds: float = 10.0
    unwell_seconds: float = 600.0


@dataclass(eq=False)
class _Host:
    """The process, in one of its lives.

    Attributes:
        process: leads a group of its own, with all that it starts.
        reader: from it.
        writer: to it.
        started: the LLM's fingerprint, once it serves.
        listening: ends with what it says.
        healthy: what it last said of its engine.
        messages: how many it has sent.
    """

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    started: asyncio.Future[str]
    listening: asyncio.Task[None] | None = None
    healthy: bool = False
    messages: int = 0

    @property
    def unread_bytes(self) -> int:
        """What was sent and is not taken yet."""
        return self.writer.transport.get_write_buffer_size()

    def tell(self, message: object) -> None:
        """Send a message, unless nobody reads it any more."""
        if not self.writer.is_closing():
            self.writer.write(packed(message))

    def signal_all(self, number: int) -> bool:
        """Tell it and all that it started; whether there was anybody."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


class EngineProcess:
    """`LLMEngine` whose engine runs in a process of its own. `on_batch` is told how many requests each batch has.

    Args:
        engine: of the class and config that are hosted; not started, and never will be.
        prepare: called in that process first; importable there.
        measure: called there for `measured`; likewise.
        config: of its life; the defaults if not given.
    """

    def __init__(
        self,
        engine: LLMEngine,
        prepare: Callable[[], None] = nothing,
        measure: Callable[[], bytes] = no_metrics,
        config: EngineProcessConfig | None = None,
    ) -> None:
        hosted: Config = engine.config  # type: ignore[attr-defined]
        self.tokenizer, self.token_size = engine.tokenizer, engine.token_size
        self.context_length, self.depth = engine.context_length, engine.depth
        self.fingerprint = ""
        self.on_batch: Callable[[int], None] = lambda _: None
        self._config = config or EngineProcessConfig()
        self._plan = Plan(type(engine), hosted, self._config.end_seconds, prepare, measure)
        self._host: _Host | None = None
        self._hosts: set[_Host] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._closed = False
        self._start_seconds = 0.0
        self._numbers = itertools.count()
        self._answers: dict[int, Answers] = {}

    @property
    def healthy(self) -> bool:
        """Whether the process is there and says that its engine is well."""
        return self._host is not None and self._host.healthy

    async def start(self) -> None:
        """Start the process and its engine, and watch over it.

        Raises:
            AllmrecError: what the engine says that it does not start for.
            EngineError: the process ended before it served.
        """
        started = time.monotonic()
        await self._launch()
        self._start_seconds = time.monotonic() - started
        self._supervisor = asyncio.create_task(self._supervise(), name="llm-process-supervisor")

    async def close(self) -> None:
        """Fail what is under way and end the process, one that is being started included."""
        self._closed = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        self._host = None
        await asyncio.gather(*(self._end(host) for host in self._hosts))

    async def score(self, prompt: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:
        """See `LLMEngine.score`."""
        self._check(prompt, trie)
        with self._asking(lambda number: Score(number, prompt, asked(trie), due)) as answers:
            scores: list[np.ndarray] = await _value(answers)
        return scores

    async def encode(self, prompt: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:
        """See `LLMEngine.encode`."""
        self._check(prompt, None)
        with self._asking(lambda number: Encode(number, prompt, places, due)) as answers:
            states_P_H: np.ndarray = await _value(answers)
        return states_P_H

    async def generate(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> AsyncIterator[str]:
        """See `LLMEngine.generate`."""
        self._check(prompt, None)
        with self._asking(lambda number: Generate(number, prompt, max_tokens, stop)) as answers:
            while isinstance(message := await _next(answers), Piece):
                yield message.text

    async def measured(self) -> bytes:
        """What `measure` says there; nothing where nobody says it soon."""
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                with self._asking(Measure) as answers:
                    metrics: bytes = await _value(answers)
        except (TimeoutError, EngineError):
            return b""
        return metrics

    def _check(self, prompt: Prompt, trie: Branching | None) -> None:
        self._running()
        check_prompt(prompt, trie, self.token_size, self.context_length)

    def _running(self) -> _Host:
        if self._host is None or not self._host.healthy:
            raise EngineError("the LLM engine is not running")
        return self._host

    @contextmanager
    def _asking(self, question: Callable[[int], Question]) -> Iterator[Answers]:
        """Where the answers to a question come. It is taken back if the block is left before they are there."""
        host = self._running()
        if host.unread_bytes > MOST_UNREAD_BYTES:
            raise OverloadedError("the LLM's process has not read what it was asked before: try again later")
        number = next(self._numbers)
        answers = self._answers[number] = asyncio.Queue()
        try:
            host.tell(question(number))
            yield answers
        except BaseException:
            host.tell(Cancel(number))
            raise
        finally:
            del self._answers[number]

    async def _launch(self) -> None:
        """Start a process and wait until its engine serves.

        Raises:
            EngineError: its LLM is another one than before.
        """
        host = await _spawn(self._plan)
        self._hosts.add(host)
        host.listening = asyncio.create_task(self._listen(host), name="llm-process")
        try:
            fingerprint = await host.started
            if self._closed:
                raise EngineError("the LLM engine was closed")
            if self.fingerprint not in ("", fingerprint):
                raise EngineError(
                    f"the LLM has changed on the disk: {fingerprint[:12]}, and it was {self.fingerprint[:12]}: put the"
                    " old one back, or start the service anew"
                )
        except BaseException:
            host.process.kill()  # nobody is answered yet
            await self._end(host)
            raise
        self.fingerprint = fingerprint
        host.healthy, self._host = True, host

    async def _listen(self, host: _Host) -> None:
        """Pass on what a process says, until its end."""
        try:
            while True:
                message = await received(host.reader)
                host.messages += 1
                self._heard(host, message)
        except EOFError:
            pass
        except Exception:
            logger.exception("llm_process_not_understood")
        finally:
            host.healthy = False
            if not host.started.done():
                host.started.set_exception(EngineError("the LLM's process ended before it served: its log says why"))
            for number, answers in self._answers.items():
                answers.put_nowait(Failed(number, EngineError("the LLM's process ended")))

    def _heard(self, host: _Host, message: object) -> None:
        match message:
            case Started(fingerprint) if not host.started.done():
                host.started.set_result(fingerprint)
            case Refused(error) if not host.started.done():
                host.started.set_exception(error)
            case Alive(healthy):
                host.healthy = healthy
            case Batch(requests):
                self.on_batch(requests)
            case Answer() | Piece() | Failed() if message.number in self._answers:
                self._answers[message.number].put_nowait(message)

    async def _supervise(self) -> None:
        """Start the process again whenever it dies, hangs or stays unwell."""
        pause, config = self._config.restart_seconds, self._config
        while True:
            started = time.monotonic()
            try:
                if (host := self._host) is not None:
                    await self._lost(host)
                    self._host = None
                    if time.monotonic() - started > config.max_restart_seconds:
                        pause = config.restart_seconds
                    lived = round(time.monotonic() - started, 1)
                    logger.error("llm_process_died", after_s=lived, restart_in_s=pause)
                    await self._end(host)
                await asyncio.sleep(pause)
                async with asyncio.timeout(self._start_seconds + config.hang_seconds):
                    await self._launch()
                logger.info("llm_process_restarted")
            except Exception:
                logger.exception("llm_process_restart_failed")
            pause = min(2 * pause, config.max_restart_seconds)

    async def _lost(self, host: _Host) -> None:
        """Wait until a process has ended, has said nothing for too long while this one was awake, or stays unwell."""
        assert host.listening is not None  # noqa: S101
        silent, unwell, messages = 0.0, 0.0, host.messages
        while not host.listening.done() and host.process.poll() is None:
            await asyncio.wait([host.listening], timeout=LOOK_SECONDS)
            unwell = 0.0 if host.healthy else unwell + LOOK_SECONDS
            silent = silent + LOOK_SECONDS if host.messages == messages else 0.0
            messages = host.messages
            if silent >= QUIET_SECONDS:
                host.healthy = False  # until it says something again
            if silent >= self._config.hang_seconds or unwell >= self._config.unwell_seconds:
                logger.error("llm_process_hangs", silent_s=silent, unwell_s=unwell)
                host.process.kill()
                return

    async def _end(self, host: _Host) -> None:
        """Have a process end by itself, or kill it, and what it leaves."""
        host.healthy = False
        host.writer.close()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(host.process.wait, self._config.end_seconds)
        # What cleans up behind others, as Python's resource tracker does, takes no notice of the first signal.
        if host.process.poll() is not None and host.signal_all(signal.SIGTERM):
            await asyncio.sleep(CLEAN_SECONDS)
        host.signal_all(signal.SIGKILL)
        await asyncio.to_thread(host.process.wait)
        if host.listening is not None:
            await asyncio.wait([host.listening])
        self._hosts.discard(host)


async def _spawn(plan: Plan) -> _Host:
    """A process that has been told the plan."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = _started(theirs)
    except BaseException:
        ours.close()
        raise
    try:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
    except BaseException:
        ours.close()
        process.kill()
        process.wait()
        raise
    host = _Host(process, reader, writer, asyncio.get_running_loop().create_future())
    host.tell(plan)
    return host


def _started(connection: socket.socket) -> subprocess.Popen[bytes]:
    """`models.engines.host` at the other end, found where this process finds its modules."""
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "models.engines.host", str(connection.fileno())],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        pass_fds=[connection.fileno()],
        # Not a session: on Linux each of these has a share of the cores of its own, whatever niceness its threads have.
        process_group=0,
    )


async def _next(answers: Answers) -> Answer | Piece:
    message = await answers.get()
    if isinstance(message, Failed):
        raise message.error
    return message


async def _value(answers: Answers) -> Any:
    message = await _next(answers)
    return message.value if isinstance(message, Answer) else None
