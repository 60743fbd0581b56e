"""Run folders that a process has for itself: what two write at once is of neither."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from models.errors import ConfigError
from training.runs.distributed import processes

_occupied: dict[Path, int] = {}


def occupy(directory: Path) -> None:
    """Keep others out of a run folder until this process ends. Of several that run together the first does so.

    Raises:
        ConfigError: another process is at work there, or it is no folder.
    """
    place = directory.resolve()
    if place in _occupied or not processes().is_first:
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be a run folder: {error.strerror}; name another with --out") from None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise ConfigError(
            f"another process is at work in {directory}: wait for it, or name another folder with --out"
        ) from None
    except OSError:
        pass  # a file system without locks
    _occupied[place] = opened
