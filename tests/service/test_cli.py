"""`allmrec-serve`, as a program."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

from service.cli import app
from service.stores.local import LocalServer
from tests.service.world import World


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def pid_in(directory: Path) -> int | None:
    """The process whose working directory this is."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == directory.resolve() and b"valkey" in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            continue
    return None


def test_a_missing_bundle_says_what_to_run(tmp_path: Path) -> None:
    result = run("--bundle", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert f"{tmp_path / 'none'}: no bundle here" in result.stderr
    assert "allmrec-train fit" in result.stderr
    assert "make run" in result.stderr


def test_a_damaged_manifest_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((world.bundle / "current" / "manifest.json").read_bytes()[:-9])
    result = run("--bundle", str(tmp_path))
    assert result.exit_code == 1
    assert "manifest.json: damaged" in result.stderr


def test_a_taken_port_says_what_to_do(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--bundle", str(world.bundle), "--port", str(port))
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert "--port" in result.stderr


def test_a_wrong_option_names_it() -> None:
    result = run("--engine", "magic")
    assert result.exit_code == 1
    assert "ALLMREC_ENGINE" in result.stderr


@pytest.mark.parametrize("name", ["ALLMREC_REDIS_URL", "ALLMREC_CACHE_URL"])
@pytest.mark.parametrize("arguments", [("--port", "0"), ("migrate-users",)])
def test_a_url_that_cannot_be_read_names_its_setting(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[str, ...]
) -> None:
    """Before anything is loaded, and by no trace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "redis://:se/cret@host")
    monkeypatch.setenv("ALLMREC_BUNDLE", str(world.bundle))
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"allmrec-serve: wrong settings: {name}: ")
    assert "cret" not in result.stderr


def test_a_bundle_that_cannot_be_loaded_ends_the_program(world: World, tmp_path: Path) -> None:
    """The manifest is whole, a file it names is not there: found while loading, after the service began to listen."""
    (tmp_path / "manifest.json").write_bytes((world.bundle / "current" / "manifest.json").read_bytes())
    result = run("--bundle", str(tmp_path), "--port", "0")
    assert result.exit_code == 1
    assert "missing" in result.stderr


def test_what_is_loaded_is_not_collected_again() -> None:
    """In a process of its own, as it is for good there."""
    script = "import gc, service.cli; service.cli.settle(); print(gc.get_freeze_count(), len(gc.get_objects()))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    frozen, left = map(int, said.split())
    assert frozen > 100 * left


def test_it_serves_greets_with_a_request_that_works_and_leaves_nothing_behind(world: World, tmp_path: Path) -> None:
    """The whole program: the printed curl gives a ranking, and SIGTERM ends it and its Redis."""
    redis_dir = tmp_path / "redis"
    environment = {**os.environ, "ALLMREC_REDIS_DIR": str(redis_dir), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [Path(sys.executable).with_name("allmrec-serve"), "--bundle", world.bundle, "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            assert program.stdout is not None
            greeting = program.stdout.readline()
            assert greeting.startswith("allmrec is ready on http://127.0.0.1:")
            curl = shlex.split(greeting.partition("try:  ")[2])
            answer = subprocess.run(curl, capture_output=True, text=True, check=True).stdout
            assert '"ranker":"llm"' in answer
            assert '"title":"' in answer
            assert pid_in(redis_dir) is not None
        finally:
            program.send_signal(signal.SIGTERM)
            _, log = program.communicate(timeout=60)
    assert "Application shutdown complete" in log
    assert pid_in(redis_dir) is None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_redis_does_not_outlive_the_service_however_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from service.stores.local import LocalServer\n"
        "async def main():\n"
        "    await LocalServer(Path(sys.argv[1])).start(); print('up', flush=True); await asyncio.sleep(3600)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        assert pid_in(tmp_path) is not None
        owner.send_signal(how)
        owner.wait()
    while pid_in(tmp_path) is not None:
        time.sleep(0.01)


def test_users_of_the_first_release_are_moved_by_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of our own server, too; without such users nothing is moved."""
    monkeypatch.setenv("ALLMREC_REDIS_DIR", str(tmp_path / "redis"))
    monkeypatch.delenv("REDIS_URL", raising=False)

    async def store_as_before() -> None:
        server = LocalServer(tmp_path / "redis")
        await server.start()
        async with Redis.from_url(server.url) as redis:
            await redis.zadd("allmrec:tiny:live:u1", {"i1": 1.0, "i2": 2.0})
        await server.close()

    asyncio.run(store_as_before())
    assert "moved 1 users" in run("migrate-users").stdout
    assert "moved 0 users" in run("migrate-users").stdout


def test_a_redis_that_is_not_there_moves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    result = run("migrate-users")
    assert result.exit_code == 1
    assert "allmrec-serve:" in result.stderr
    assert "Traceback" not in result.stderr
