"""Cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from models.threads import available_cores, cpu_quota, one_thread


def test_a_containers_quota_counts_not_the_hosts_cores(tmp_path: Path) -> None:
    """Half a core is one thread; without a limit the affinity decides."""
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_quota(tmp_path) == 0.5
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_the_older_control_groups_are_read_too(tmp_path: Path) -> None:
    """Version 1 has two files, and -1 for no limit."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(tmp_path) == 1.0
    assert available_cores(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(tmp_path) == float("inf")


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is bound to one core of many uses one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert available_cores(tmp_path) == 1


def test_one_thread_lasts_as_long_as_the_block() -> None:
    """And comes back to what was, after an error too."""
    before = torch.get_num_threads()

    def failing() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        failing()
    assert torch.get_num_threads() == before
