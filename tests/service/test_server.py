"""How the program ends, however it was started."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import structlog

from models.errors import ConfigError
from service.app import create_engine
from service.logs import configure_logging
from tests.service.api.hosting import on_a_socket
from tests.service.world import FakeEngine, World

LAME_DUCK_SECONDS = 5


def test_sigterm_makes_a_lame_duck_first(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    """From the signal on it is not ready, but answers; then it ends."""
    settings = world.settings_for(tmp_path, lame_duck_seconds=LAME_DUCK_SECONDS)
    with on_a_socket(settings, engine) as (port, server):
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/health/ready").status_code == 200
        signalled = time.monotonic()
        server.handle_exit(signal.SIGTERM, None)
        assert httpx.get(f"{url}/health/ready").status_code == 503
        assert httpx.get(f"{url}/health/live").status_code == 200
        answer = httpx.post(f"{url}/recommend", json={"user_id": "u0"})
        assert (answer.json()["ranker"], answer.headers["connection"]) == ("llm", "close")
        assert not server.should_exit
        while not server.should_exit:
            time.sleep(0.02)
        assert time.monotonic() - signalled >= LAME_DUCK_SECONDS
        server._captured_signals.clear()


def test_a_second_signal_does_not_wait(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    with on_a_socket(world.settings_for(tmp_path, lame_duck_seconds=600), engine) as (_, server):
        server.handle_exit(signal.SIGTERM, None)
        server.handle_exit(signal.SIGTERM, None)
        assert server.should_exit
        server._captured_signals.clear()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def by_factory(tmp_path: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`uvicorn --factory`, as somebody else would run it."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", str(free_port())]
    values = {**os.environ, "ALLMREC_REDIS_DIR": str(tmp_path / "redis"), "OMP_NUM_THREADS": "1", **environment}
    with subprocess.Popen(command, env=values, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        yield program


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ALLMREC_WINDOW": "0"}, "ALLMREC_WINDOW"),
        ({"ALLMREC_MAX_REQUEST": "7"}, "there is no setting ALLMREC_MAX_REQUEST: ALLMREC_MAX_REQUESTS is meant?"),
    ],
)
def test_a_wrong_setting_ends_uvicorn_in_one_line(tmp_path: Path, environment: dict[str, str], message: str) -> None:
    with by_factory(tmp_path, **environment) as program:
        output, _ = program.communicate(timeout=120)
    assert program.returncode != 0
    assert message in output
    assert "Traceback" not in output


def test_a_missing_bundle_ends_uvicorn_before_it_begins(tmp_path: Path) -> None:
    with by_factory(tmp_path, ALLMREC_BUNDLE=str(tmp_path)) as program:
        output, _ = program.communicate(timeout=120)
    assert program.returncode != 0
    assert [line for line in output.splitlines() if line.startswith("allmrec-serve: ") and "no bundle here" in line]
    assert "startup" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_wrong_engine_option_is_told_in_a_line(world: World, tmp_path: Path, engine: str) -> None:
    settings = world.settings_for(tmp_path, engine=engine, engine_options={"max_queues": 3})
    with pytest.raises(ConfigError, match=rf"^engine '{engine}': unknown key 'max_queues'[^\n]*$"):
        create_engine(settings, str(world.llm))


def test_a_trace_for_people_has_no_values_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    """What a frame knows may be a key or a user."""
    before = structlog.get_config()
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    try:
        configure_logging("info", "console")
        secret = "".join(["sec", "ret"])
        try:
            raise ValueError(len(secret))
        except ValueError:
            structlog.get_logger("any").exception("request_failed")
    finally:
        structlog.configure(**before)
        logging.getLogger().handlers, logging.getLogger().level = handlers, level
    written = capfd.readouterr().err
    assert "ValueError: 6" in written
    assert "secret" not in written.replace("len(secret)", "")


def test_a_bundle_that_cannot_be_loaded_ends_uvicorn(world: World, tmp_path: Path) -> None:
    """It does not say for ever that it is still starting."""
    (tmp_path / "manifest.json").write_bytes((world.bundle / "current" / "manifest.json").read_bytes())
    with by_factory(tmp_path, ALLMREC_BUNDLE=str(tmp_path)) as program:
        output, _ = program.communicate(timeout=120)
    assert program.returncode != 0
    assert output.count("start_failed") == 1
    assert "missing" in output
    assert "Traceback" not in output
