"""Services to be killed and started again, and the processes that belong to them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

from benchmarks.overload import port_of
from service.settings import PREFIX
from tests.service.endurance.levers import EngineState, Levers
from tests.service.endurance.victim import serve

START_SECONDS = 180.0
DEAD_SECONDS = 1.0


class NotStartedError(Exception):
    """A service did not come up."""


class Service(Protocol):
    """A service that can be killed.

    Attributes:
        port: where it listens, in this life.
        pid: its process, in this life.
        life: how often it was started.
        redis_dir: where its store persists.
    """

    port: int
    pid: int
    life: int
    redis_dir: Path

    async def start(self) -> None:
        """Bring it up.

        Raises:
            NotStartedError: it does not come up.
        """

    def kill(self) -> None:
        """Kill it without a word."""

    async def kill_engine(self) -> bool:
        """Kill its LLM, and say whether there was one to kill. It comes back by itself."""


class Victim:
    """A service whose clock and LLM levers reach, forked from a process that has imported everything.

    Args:
        settings: of the service.
        folder: for its levers and its log.
    """

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.levers = Levers.create(folder / "levers")
        self.port = self.pid = self.life = 0
        self.redis_dir = Path(settings["redis_dir"])
        self.log = folder / "service.log"
        self._settings = settings
        self._process: BaseProcess | None = None
        self._fork = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload(["tests.service.endurance.preload"])

    async def start(self) -> None:
        """See `Service.start`."""
        ours, theirs = self._fork.Pipe(duplex=False)
        arguments = (self._settings, self.levers.path, self.log, theirs)
        self._process = self._fork.Process(target=serve, args=arguments)
        await asyncio.to_thread(self._process.start)
        theirs.close()
        told = await asyncio.to_thread(_wait, ours)
        if not isinstance(told, int):
            self.kill()
            raise NotStartedError(told)
        self.pid, self.port, self.life = self._process.pid or 0, told, self.life + 1

    def kill(self) -> None:
        """See `Service.kill`."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    async def kill_engine(self) -> bool:
        """See `Service.kill_engine`."""
        self.levers.engine = EngineState.DEAD
        await asyncio.sleep(DEAD_SECONDS)
        self.levers.engine = EngineState.WELL
        return True


class Program:
    """`allmrec-serve`, as operators start it.

    Args:
        settings: of the service, by name.
        folder: for its log.
    """

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.port = self.pid = self.life = 0
        self.redis_dir = Path(settings["redis_dir"])
        self.log = folder / "service.log"
        given = {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
        self._environment = {**os.environ, **given, f"{PREFIX}PORT": "0"}
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """See `Service.start`."""
        command = [sys.executable, "-c", "from service.cli import app; app()"]
        with self.log.open("a") as log:
            process = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True)
        self._process = process
        try:
            async with asyncio.timeout(START_SECONDS):
                self.port = await asyncio.to_thread(port_of, process)
        except (TimeoutError, RuntimeError) as error:
            self.kill()
            raise NotStartedError(f"{error}: {self.log.read_text()[-2000:]}") from error
        self.pid, self.life = process.pid, self.life + 1

    def kill(self) -> None:
        """See `Service.kill`. What it had started ends too, as it would in a container."""
        if self._process is not None:
            children = (
                psutil.Process(self._process.pid).children(recursive=True) if self._process.poll() is None else []
            )
            self._process.kill()
            self._process.wait()
            for child in children:
                signalled(child.pid if _is_python(child) else None, signal.SIGKILL)

    async def kill_engine(self) -> bool:
        """See `Service.kill_engine`. It is the largest of what the service started, vLLM's own or the engine's host."""
        children = [child for child in _children(self.pid) if _is_python(child)]
        largest = max(children, key=lambda child: child.memory_info().rss, default=None)
        return largest is not None and signalled(largest.pid, signal.SIGKILL)


def _wait(ours: Any) -> int | str:
    if not ours.poll(START_SECONDS):
        return "it is not ready in time"
    try:
        told: int | str = ours.recv()
    except EOFError:
        return "it ended at once"
    return told


def store_pid(redis_dir: Path) -> int | None:
    """The server that persists into a folder, if there is one."""
    for process in psutil.process_iter(["name", "cwd"]):
        if process.info["name"] == "valkey-server" and process.info["cwd"] == str(redis_dir.resolve()):
            return int(process.pid)
    return None


def cache_pid(service_pid: int, redis_dir: Path) -> int | None:
    """The server of a service that persists nothing."""
    for child in _children(service_pid):
        if child.name() == "valkey-server" and child.cwd() != str(redis_dir.resolve()):
            return child.pid
    return None


def socket_of(pid: int) -> str | None:
    """The unix socket that a store listens on: it says so in its title. None of one that is starting, or ends."""
    try:
        title = " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return None
    found = re.search(r"unixsocket:(\S+)", title)
    return found and found[1]


class Part(NamedTuple):
    """One of the processes of a service."""

    pid: int
    name: str


def memory_of(pid: int) -> dict[Part, int]:
    """Bytes of a service and all that it started, by process; pages that they share are shared out.

    Without those of files: a library's are shared out among all that run on a machine, and are more when others end.
    """
    found = {}
    for process in [psutil.Process(pid), *_children(pid)]:
        with suppress(psutil.Error, OSError):
            part = Part(process.pid, _name_of(process))
            found[part] = _own_bytes(Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii"))
    return found


def _name_of(process: psutil.Process) -> str:
    """Of the interpreter's processes what they are for."""
    known = {"models.engines.host": "LLM's process", "service.cli": "service", "resource_tracker": "resource tracker"}
    words = " ".join(process.cmdline())
    return next((name for part, name in known.items() if part in words), process.name())


def _own_bytes(rollup: str) -> int:
    fields = dict(line.split(":") for line in rollup.splitlines()[1:])
    return sum(int(fields[name].split()[0]) << 10 for name in ("Pss_Anon", "Pss_Shmem"))


def signalled(pid: int | None, number: signal.Signals) -> bool:
    """Send a signal; whether somebody was there."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _is_python(process: psutil.Process) -> bool:
    """Not a store, nor the shell that minds it: those see for themselves that the service is gone."""
    try:
        return process.name() not in ("sh", "dash", "bash", "valkey-server")
    except psutil.Error:
        return False


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []
