"""A long day: mixed traffic at a share of what the service can do, which is killed, and whose LLM is killed.

python -m tests.service.endurance.soak --minutes 10 --bundle bundles/demo
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from service.settings import Settings
from tests.service.endurance.expected import Expected, Findings, expecting
from tests.service.endurance.program import Part, Program, Service, memory_of
from tests.service.endurance.shopper import Shopper

SHOPPERS = 64
AT_ONCE = 8
"""Of the shoppers who find out what the service can do."""
SHARE = 0.8
TIMEOUTS_MS = (1000,)
SAMPLE_SECONDS = 1.0
FLAT = 0.05
"""Memory is flat if its mean over the last third of a life exceeds that over the second by no more than this share."""
LEAST_SAMPLES = 30
"""A service that lives shorter is still warming up, and three samples say nothing of memory."""
LATE_SECONDS = 0.02
LOG_CHARACTERS = 20_000


@dataclass
class Soak:
    """Traffic, and what befalls the service meanwhile.

    Attributes:
        service: started already.
        shoppers: who ask and tell.
        findings: what was seen.
        seconds: how long.
        report: told what happens.
        memory: by the processes that there were, bytes of each of them, second by second. An LLM that died, and comes
            back, is another process: while it is away, or starts, memory says nothing.
        failures: by life, how often the service says that it could not read its store.
        killed: whether its LLM was.
    """

    service: Service
    shoppers: Sequence[Shopper]
    findings: Findings
    seconds: float
    report: Callable[[str], None]
    memory: dict[frozenset[Part], list[dict[Part, int]]] = field(default_factory=dict)
    failures: dict[int, float] = field(default_factory=dict)
    killed: bool = False
    _busy: set[Shopper] = field(default_factory=set)
    _open: bool = True

    async def capacity(self, seconds: float) -> float:
        """Acts a second of which the LLM ranks what is to be ranked, by what it ranks for so many shoppers at once."""
        due = time.monotonic() + seconds
        before = self._recommended()

        async def client(shoppers: Sequence[Shopper]) -> None:
            nonlocal acts
            while time.monotonic() < due:
                for shopper in shoppers:
                    await shopper.act(check_now=False)
                    acts += 1

        acts = 0
        await asyncio.gather(*(client(self.shoppers[place::AT_ONCE]) for place in range(AT_ONCE)))
        asked, by_llm = (after - earlier for after, earlier in zip(self._recommended(), before, strict=True))
        return by_llm / seconds * acts / max(1, asked)

    def _recommended(self) -> tuple[int, int]:
        """How often it was asked for a recommendation, and how often the LLM ranked."""
        counts = {kind: count for kind, count in self.findings.counts.items() if kind.startswith("recommend: ")}
        return sum(counts.values()), counts.get("recommend: llm, None", 0)

    async def run(self, rate: float) -> None:
        """`rate` acts a second at random times, and a quarter, half and three quarters of the way something happens."""
        quarter = self.seconds / 4
        watching = asyncio.create_task(self._watch())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._arrive(rate, group))
            for happens in (self._restart_full, self._kill_engine, self._restart_empty):
                await asyncio.sleep(quarter)
                await happens()
        await self._note_failures()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    async def verdict(self) -> None:
        """Check the answers, and whether memory stayed flat as long as the processes were the same."""
        await asyncio.gather(*(shopper.check() for shopper in self.shoppers))
        for life, stale in self.findings.stale.items():
            if life in self.failures and stale > self.failures[life]:
                self.findings.wrong("service", f"{stale} answers without the store, {self.failures[life]} failures")
        for stretch, samples in enumerate(self.memory.values()):
            if len(samples) < LEAST_SAMPLES:
                continue
            totals = _thirds([sum(sample.values()) for sample in samples])
            self.report(f"memory in MiB, stretch {stretch} of {len(samples)} s, by third: {_mib(totals)}")
            for part in samples[0]:
                self.report(f"    {_mib(_thirds([sample[part] for sample in samples]))}  {part.name}")
            _, middle, last = totals
            if last > (1 + FLAT) * middle:
                self.findings.wrong("service", f"its memory grew from {middle:.0f} to {last:.0f} bytes")

    async def _arrive(self, rate: float, group: asyncio.TaskGroup) -> None:
        random, due = np.random.default_rng(0), time.monotonic() + self.seconds
        while time.monotonic() < due:
            await asyncio.sleep(random.exponential(1 / rate))
            idle = [shopper for shopper in self.shoppers if shopper not in self._busy]
            if self._open and idle:
                group.create_task(self._act(idle[int(random.integers(len(idle)))]))

    async def _act(self, shopper: Shopper) -> None:
        self._busy.add(shopper)
        try:
            await shopper.act(check_now=False)
        finally:
            self._busy.discard(shopper)

    async def _watch(self) -> None:
        while True:
            with suppress(psutil.Error):
                sample = await asyncio.to_thread(memory_of, self.service.pid)
                if not self.findings.down:
                    self.memory.setdefault(frozenset(sample), []).append(sample)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _note_failures(self) -> None:
        counted = await self.shoppers[0].failures_counted()
        if counted is not None:
            self.failures[self.service.life] = counted

    async def _restart_full(self) -> None:
        await self._note_failures()
        self.findings.fault, self.findings.down = "the service was killed, and started with what it had kept", True
        self.service.kill()
        await self.service.start()
        self.findings.down = False
        self.report("killed and started with what it had kept")

    async def _kill_engine(self) -> None:
        self.findings.fault = "the LLM was killed"
        self.killed = killed = await self.service.kill_engine()
        self.report("the LLM was killed" if killed else "this LLM has no process of its own to kill")

    async def _restart_empty(self) -> None:
        await self._note_failures()
        if self.killed and not await self.shoppers[0].llm_is_up():
            self.findings.wrong("service", f"its LLM is not back after {self.seconds / 4:.0f} s")
        self._open = False
        while self._busy:
            await asyncio.sleep(0.01)
        self.findings.fault, self.findings.down = "the service was killed, and started empty", True
        self.service.kill()
        shutil.rmtree(self.service.redis_dir)
        for shopper in self.shoppers:
            shopper.forget()
        await self.service.start()
        self.findings.down, self._open = False, True
        self.report("killed and started empty")


def _thirds(samples: Sequence[int]) -> list[float]:
    """The means of the three."""
    third = len(samples) // 3
    return [float(np.mean(part)) for part in (samples[:third], samples[third : 2 * third], samples[2 * third :])]


def _mib(sizes: Sequence[float]) -> str:
    return ", ".join(f"{size / 2**20:.0f}" for size in sizes)


async def soak(
    service: Service, expected: Expected, users: Sequence[str], seconds: float, report: Callable[[str], None]
) -> Findings:
    """Soak a service for so long.

    Args:
        service: not started yet.
        expected: what answers may be.
        users: who ask; as many again are new.
        seconds: how long, after a tenth of it to find out how much it can do.
        report: told what happens.
    """
    findings = Findings()
    everybody = [*users, *(f"new{number}" for number in range(len(users)))]
    await service.start()
    shoppers = [
        Shopper(user_id, service, expected, findings, seed, TIMEOUTS_MS) for seed, user_id in enumerate(everybody)
    ]
    try:
        lasting = Soak(service, shoppers, findings, seconds, report)
        await lasting.capacity(seconds / 30)  # as warm as it will be
        most = await lasting.capacity(seconds / 10)
        report(f"{most:.1f} a second are ranked by the LLM at most, {SHARE * most:.1f} come from now on")
        findings.counts.clear()
        for shopper in shoppers:
            shopper.latencies.clear()
        await lasting.run(SHARE * most)
        for shopper in shoppers:
            await shopper.settle()
            await shopper.look(strict=True)
    finally:
        service.kill()
    latencies = np.asarray([pair for shopper in shoppers for pair in shopper.latencies])
    report(
        f"recommendations: p50 {1e3 * np.median(latencies[:, 0]):.0f} ms, p99"
        f" {1e3 * np.percentile(latencies[:, 0], 99):.0f} ms, later than their timeout and 20 ms:"
        f" {int((latencies[:, 0] > latencies[:, 1] + LATE_SECONDS).sum())} of {len(latencies)}"
    )
    await lasting.verdict()
    for shopper in shoppers:
        await shopper.close()
    return findings


def main() -> None:
    """Soak a service of a bundle, and say what may not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/demo"))
    parser.add_argument("--engine", default="vllm", help="vllm, which can be killed, or transformers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {line}", flush=True)  # noqa: T201

    async def run(folder: Path) -> Findings:
        values: dict[str, Any] = {
            "bundle": arguments.bundle,
            "engine": arguments.engine,
            "dtype": "float32",
            "redis_dir": folder / "redis",
            "log_level": "warning",
        }
        async with expecting(Settings(_env_file=None, **values)) as expected:  # type: ignore[call-arg]
            users = expected.model.histories.user_ids()[: SHOPPERS // 2]
            findings = await soak(Program(values, folder), expected, users, 60 * arguments.minutes, say)
            if findings.violations:
                say((folder / "service.log").read_text()[-LOG_CHARACTERS:])
            return findings

    with tempfile.TemporaryDirectory() as folder:
        findings = asyncio.run(run(Path(folder)))
    for kind, count in sorted(findings.counts.items()):
        say(f"{count:7} {kind}")
    for violation in findings.violations:
        say(f"VIOLATION when {violation.fault}, {violation.who}: {violation.what}")
    say(f"{sum(findings.counts.values())} answers, {len(findings.violations)} violations")
    if findings.violations:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
