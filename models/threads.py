"""How many cores this process may use: its CPU affinity and its container's quota, not the machine's cores."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = CGROUP) -> int:
    """At least 1.

    Args:
        cgroup: where this process's control group is mounted.
    """
    # sched_getaffinity is Linux's alone.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, math.ceil(min(cpu_quota(cgroup), cores)))))


def cpu_quota(cgroup: Path = CGROUP) -> float:
    """Cores' worth of time that the control group grants, by either version of cgroups; infinite without a limit."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
        return math.inf if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
    except OSError:
        return math.inf
    return math.inf if int(limit) <= 0 else int(limit) / int(period)


@contextmanager
def one_thread() -> Iterator[None]:
    """Operations of torch that this thread starts take one core.

    Small ones spend more time on waiting for each other's threads than on computing, most of all where other processes
    take the cores away in between.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
