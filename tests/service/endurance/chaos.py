"""Random faults under traffic: zero 5xx but stated 503s, zero wrong answers, zero acknowledged events lost.

python -m tests.service.endurance.chaos --faults 200 --seed 0
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.service.endurance.expected import Findings, expecting
from tests.service.endurance.faults import Fault, Faults
from tests.service.endurance.program import NotStartedError, Victim
from tests.service.endurance.shopper import Shopper
from tests.service.world import LONG_USER, World, make_world

USERS = ("u0", "u3", LONG_USER, "new1", "new2", "new3")
"""Known in training, and not."""
OVERLAP = 0.25
"""How often a second fault comes while the first lasts."""
PAUSE_SECONDS = 0.02
SETTINGS = {"timeout_ms": 1000, "redis_retry_seconds": 0.2, "log_level": "warning", "user_cache_size": 1000}


@dataclass
class Chaos:
    """Shoppers and faults.

    Attributes:
        shoppers: who ask and tell.
        faults: what befalls the service.
        findings: what was seen.
        report: told what happens.
    """

    shoppers: list[Shopper]
    faults: Faults
    findings: Findings
    report: Callable[[str], None]

    async def run(self, count: int) -> None:
        """So many faults, each with its traffic, and after each an audit with nothing in the way."""
        for number in range(1, count + 1):
            fault = self.faults.draw()
            second = self.faults.draw() if self.faults.random.random() < OVERLAP else None
            name = fault.name if second is None else f"{fault.name}, and {second.name}"
            self.findings.fault = f"fault {number}: {name}"
            before = len(self.findings.violations)
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as acting:
                for shopper in self.shoppers:
                    acting.create_task(_traffic(shopper, stop))
                await self._befall(fault, second)
                stop.set()
            async with asyncio.TaskGroup() as auditing:
                for shopper in self.shoppers:
                    auditing.create_task(shopper.audit())
            found = len(self.findings.violations) - before
            self.report(f"{number:4} {name}{f': {found} VIOLATIONS' if found else ''}")

    async def _befall(self, fault: Fault, second: Fault | None) -> None:
        await asyncio.sleep(2 * PAUSE_SECONDS)
        await fault.begin()
        await asyncio.sleep(fault.seconds / 2)
        if second is not None:
            await second.begin()
            await asyncio.sleep(second.seconds / 2)
            await second.end()
        await asyncio.sleep(fault.seconds / 2)
        await fault.end()
        await asyncio.sleep(2 * PAUSE_SECONDS)


async def _traffic(shopper: Shopper, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await shopper.act()
        await asyncio.sleep(PAUSE_SECONDS)


async def torment(
    world: World, folder: Path, faults: int, seed: int, report: Callable[[str], None] = lambda _: None
) -> Findings:
    """Have so many faults befall a service of `world`.

    Args:
        world: what is served.
        folder: for what the service writes.
        faults: how many.
        seed: of faults and traffic.
        report: told what happens.
    """
    settings = world.settings_for(folder, **SETTINGS)
    victim = Victim({name: getattr(settings, name) for name in settings.model_fields_set}, folder)
    findings = Findings()
    random = np.random.default_rng(seed)
    async with expecting(settings) as expected:
        await victim.start()
        shoppers = [
            Shopper(user_id, victim, expected, findings, seed * 1000 + number) for number, user_id in enumerate(USERS)
        ]
        try:
            await Chaos(shoppers, Faults(victim, findings, random), findings, report).run(faults)
        except* NotStartedError:
            report(victim.log.read_text()[-2000:])
        finally:
            victim.kill()
            for shopper in shoppers:
                await shopper.close()
    return findings


def main() -> None:
    """Torment a service of the tests' world, and say which fault broke what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201

    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        findings = asyncio.run(torment(world, Path(folder), arguments.faults, arguments.seed, say))
    for kind, count in sorted(findings.counts.items()):
        say(f"{count:7} {kind}")
    for violation in findings.violations:
        say(f"VIOLATION under {violation.fault}, {violation.who}: {violation.what}")
    say(
        f"{sum(findings.counts.values())} answers under {arguments.faults} faults of seed {arguments.seed} in"
        f" {time.monotonic() - started:.0f} s: {len(findings.violations)} violations"
    )
    if findings.violations:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
