"""Run folders that a process has for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import ConfigError
from training.runs.occupied import occupy

HOLD = """
import sys
from pathlib import Path
from training.runs.occupied import occupy

occupy(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_folder_is_one_process_s_until_that_ends(tmp_path: Path) -> None:
    """It may say so again; however it ends, the next can have it."""
    place = tmp_path / "runs" / "shop"
    command = [sys.executable, "-c", HOLD, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=r"another process is at work in .*shop: .*--out"):
            occupy(place)
        occupy(tmp_path / "runs" / "other")
        other.kill()
    occupy(place)
    occupy(place)


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file cannot be a run folder.*--out"):
        occupy(tmp_path / "file")
