"""The service above its capacity: `make overload`.

The service is a process of its own, the load comes from another, at random times whatever becomes of the requests
before. Both share this machine's cores with the LLM.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from benchmarks.client import Seen, Stream, open_loop, saturate

GREETING = "allmrec is ready on http://127.0.0.1:"
CALIBRATION = 64
TIMEOUT_MS = 1000
TIGHT_MS = 50
MULTIPLES = (0.7, 1.0, 2.0, 5.0, 10.0)
TIGHT_MULTIPLES = (2.0, 20.0, 60.0)
"""Of the LLM's capacity: well below that of the fallback, and beyond."""
RECOVERY_SECONDS = 10.0
"""After a storm all is to be as before after so long."""

QUESTIONS = 65_536
"""Asked in turn over all loads: one that vLLM was asked before, it has in its cache, and answers in a quarter of the
time."""

QUIET_SECONDS = 2.0
"""After a storm, before memory is looked at: connections are closed, and what was late has ended."""


@contextmanager
def served(
    bundle: Path, engine: str, dtype: str, device: str, llm_core: int | None = None
) -> Iterator[tuple[int, psutil.Process]]:
    """Port and process of a service.

    Args:
        bundle: what is served.
        engine: transformers or vllm.
        dtype: of the LLM.
        device: of the transformers engine.
        llm_core: has the LLM's process for itself, and this process and all else the other cores; shared by all if not
            given.
    """
    others = None if llm_core is None else os.sched_getaffinity(0) - {llm_core}
    with TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "ALLMREC_BUNDLE": str(bundle),
            "ALLMREC_ENGINE": engine,
            "ALLMREC_DTYPE": dtype,
            "ALLMREC_DEVICE": device,
            "ALLMREC_PORT": "0",
            "ALLMREC_REDIS_DIR": f"{folder}/redis",
            "ALLMREC_LOG_LEVEL": "error",
            "ALLMREC_LAME_DUCK_SECONDS": "0",
        }
        command = [sys.executable, "-c", "from service.cli import app; app()"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:  # noqa: S603
            try:
                port, process = port_of(program), psutil.Process(program.pid)
                if others is not None:
                    _part(process, llm_core, others)
                yield port, process
            finally:
                program.terminate()


def _part(service: psutil.Process, llm_core: int | None, others: set[int]) -> None:
    """Have the LLM's process, and what it started, compute on one core, and all else on the others."""
    (host,) = [child for child in service.children() if "models.engines.host" in child.cmdline()]
    of_the_llm = {host.pid, *(child.pid for child in host.children(recursive=True))}
    for pid in {os.getpid(), service.pid, *(child.pid for child in service.children(recursive=True))}:
        cores = {llm_core} if pid in of_the_llm else others
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def port_of(program: subprocess.Popen[str]) -> int:
    """Where a service says that it is ready; what it and its engine say else is read and dropped, now and later.

    Raises:
        RuntimeError: it ended before.
    """
    assert program.stdout is not None  # noqa: S101
    for line in program.stdout:
        if GREETING in line:
            threading.Thread(target=lambda: deque(program.stdout or (), 0), daemon=True).start()
            return int(line.split(GREETING)[1].split()[0])
    raise RuntimeError("the service ended before it was ready")


def measure(
    service: tuple[Path, str, str, str],
    bodies: Sequence[dict[str, Any]],
    users: Sequence[str],
    seconds: float,
    timeout_ms: int = TIMEOUT_MS,
    llm_core: int | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each load, and what else was seen.

    Args:
        service: bundle, engine, dtype and device.
        bodies: questions, of which no load is asked those of another while they last.
        users: to be explained.
        seconds: of each load.
        timeout_ms: of the requests.
        llm_core: see `served`.
    """
    context = multiprocessing.get_context("spawn")
    with served(*service, llm_core) as (port, process), ProcessPoolExecutor(1, context) as loader:
        fresh = cycle(bodies)

        def load(rate: float, seconds: float, timeout_ms: int, *others: Stream) -> list[list[Seen]]:
            return loader.submit(open_loop, port, (_stream(rate, seconds, fresh, timeout_ms), *others)).result()

        load(5, 3, timeout_ms)
        taken, _ = loader.submit(saturate, port, 8, list(islice(fresh, CALIBRATION))).result()
        capacity = CALIBRATION / taken
        load(MULTIPLES[0] * capacity, RECOVERY_SECONDS, timeout_ms)  # calibration knew no hurry
        before = sum(_memory(process).values())
        rows = []
        for multiple in MULTIPLES:
            (seen,) = load(multiple * capacity, seconds, timeout_ms)
            rows.append(row(f"{multiple:g}x", seen, seconds, timeout_ms))
        (after,) = load(MULTIPLES[0] * capacity, RECOVERY_SECONDS + seconds, timeout_ms)
        recovered = [each for each in after if each.at >= RECOVERY_SECONDS]
        rows.append(row(f"{MULTIPLES[0]:g}x, {RECOVERY_SECONDS:g} s after that", recovered, seconds, timeout_ms))
        for multiple in TIGHT_MULTIPLES:
            (tight,) = load(multiple * capacity, seconds, TIGHT_MS)
            rows.append(row(f"{multiple:g}x, {TIGHT_MS} ms", tight, seconds, TIGHT_MS))
        ranked, explained = load(2 * capacity, seconds, timeout_ms, Stream(0.5, seconds, user_ids=users))
        rows.append(row("2x, beside explanations", ranked, seconds, timeout_ms))
        grown = sum(_memory(process).values()) - before
    peak = max(each["LLM-ranked/s"] for each in rows) or 1.0
    for each in rows:
        each["of peak"] = round(each["LLM-ranked/s"] / peak, 2)
    by_llm = sum(answer.by == "llm" for answer in explained)
    more = {
        "capacity_closed_loop": round(capacity, 2),
        "explanations": {"asked": len(explained), "by the LLM": by_llm},
        "memory_grown_mib": round(grown, 1),
    }
    return rows, more


def storms(
    service: tuple[Path, str, str, str],
    bodies: Sequence[dict[str, Any]],
    count: int,
    seconds: float,
    rates: tuple[float, float],
) -> list[dict[str, Any]]:
    """How much memory the service has after one storm, two, and so on: a leak grows with each, a heap does not.

    Args:
        service: bundle, engine, dtype and device.
        bodies: questions, taken in turn over all storms.
        count: of storms, each of which is two loads: with time for the LLM, then without. The first row is a breeze.
        seconds: of each of both.
        rates: requests a second of each.
    """
    context = multiprocessing.get_context("spawn")
    with served(*service) as (port, process), ProcessPoolExecutor(1, context) as loader:
        fresh = cycle(bodies)
        rows: list[dict[str, Any]] = []
        for storm in range(count + 1):
            seen: list[Seen] = []
            loads = list(zip(rates, (TIMEOUT_MS, TIGHT_MS), strict=True)) if storm else [(5.0, TIMEOUT_MS)]
            for rate, timeout_ms in loads:
                seen += loader.submit(open_loop, port, (_stream(rate, seconds, fresh, timeout_ms),)).result()[0]
            time.sleep(QUIET_SECONDS)
            rows.append(
                {
                    "storm": storm,
                    "requests": len(seen),
                    "fell back": sum(each.status == 200 and each.fallback is not None for each in seen),
                    "refused": sum(each.status == 503 for each in seen),
                    **_memory(process),
                }
            )
    return rows


def _stream(rate: float, seconds: float, fresh: Iterator[dict[str, Any]], timeout_ms: int) -> Stream:
    """A load of questions that were not asked yet: as many as may come by chance, and more."""
    most = int(rate * seconds + 6 * (rate * seconds) ** 0.5) + 1
    return Stream(rate, seconds, list(islice(fresh, most)), timeout_ms)


def _memory(process: psutil.Process) -> dict[str, float]:
    """Resident memory of the service, and of what it started: stores, and the engine where that is a process."""
    started = sum(child.memory_info().rss for child in process.children(recursive=True))
    return {
        "service_mib": round(process.memory_info().rss / 2**20, 1),
        "what it started, mib": round(started / 2**20, 1),
    }


def row(load: str, seen: Sequence[Seen], seconds: float, timeout_ms: int) -> dict[str, Any]:
    """What became of one load."""
    by_llm = [each for each in seen if each.by == "llm" and each.status == 200]
    fell_back = [each.seconds for each in seen if each.status == 200 and each.fallback is not None]
    refused = [each.seconds for each in seen if each.status == 503]
    return {
        "load": load,
        "offered/s": round(len(seen) / seconds, 1),
        "LLM-ranked/s": round(len(by_llm) / seconds, 1),
        "of peak": 0.0,
        "of offered": round(len(by_llm) / max(1, len(seen)), 2),
        "p50_ms": _ms([each.seconds for each in seen], 50),
        "p99_ms": _ms([each.seconds for each in seen], 99),
        "later than timeout + 20 ms": round(
            float(np.mean([each.seconds > timeout_ms / 1000 + 0.02 for each in seen])), 3
        ),
        "fallback p50_ms": _ms(fell_back, 50),
        "503": len(refused),
        "503 p99_ms": _ms(refused, 99),
        "no answer": sum(each.status == 0 for each in seen),
        "other": sum(each.status not in (0, 200, 503) for each in seen),
    }


def _ms(seconds: Sequence[float], percentile: float) -> float | None:
    return round(1e3 * float(np.percentile(seconds, percentile)), 1) if seconds else None
