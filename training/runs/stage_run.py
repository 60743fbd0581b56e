"""A run directory: `runs/<name>/<stage>/` holds all that a stage was made from and all that it made.

`config.json` and `environment.json` say how, `metrics.json` and `curve.json` / `curve.png` how it went, and `done`
that it ended: with the fingerprint of its config and inputs and the SHA-256 of its files. A stage whose fingerprint
is unchanged and whose files are intact need not run again; one that was interrupted goes on from `checkpoint.pt`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from models.config import Config
from models.files import written_atomically
from training.runs.charts import plot_curve
from training.runs.context import CHECKPOINT_FILE, RunContext

DONE_FILE = "done"
METRICS_FILE = "metrics.json"
FOLDER_DIGITS = 12
"""Of a fingerprint that names a folder."""
PACKAGES = ("allmrec", "torch", "transformers", "sentence-transformers", "numpy", "polars")


class StageRun(RunContext):
    """One stage's directory.

    Args:
        directory: where; made if need be.
        config: the stage's full config.
        seed: of the stage.
        inputs: name to fingerprint of everything else that the result depends on: the dataset, earlier stages.
        console: for progress and results; standard error if not given.

    A checkpoint of another config or other inputs is discarded, so that it is never gone on from.
    """

    def __init__(
        self, directory: Path, config: Config, seed: int, inputs: Mapping[str, str], console: Console | None = None
    ) -> None:
        super().__init__(directory, console)
        self._config = config.model_dump(mode="json")
        self._seed = seed
        self._inputs = dict(inputs)
        identity = {"config": self._config, "seed": seed, "inputs": self._inputs}
        self.fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @classmethod
    def keyed(cls, home: Path, config: Config, inputs: Mapping[str, str], console: Console | None = None) -> StageRun:
        """A stage's run in a folder of `home` that its fingerprint names: other settings leave it alone.

        Args:
            home: of all runs of the stage.
            config: the stage's full config, its seed in it.
            inputs: as above.
            console: as above.
        """
        run = cls(home, config, config.model_dump()["seed"], inputs, console)
        run.directory = home / run.fingerprint[:FOLDER_DIGITS]
        return run

    @property
    def is_done(self) -> bool:
        """Whether this stage ended with this config and these inputs, and its files are as it left them."""
        return self.alone(self._is_done)

    def _is_done(self) -> bool:
        done = _read_json(self.directory / DONE_FILE)
        if done is None or done.get("fingerprint") != self.fingerprint:
            return False
        return all(_sha256(self.directory / name) == digest for name, digest in done["files"].items())

    @property
    def is_begun(self) -> bool:
        """Whether what stands in the folder, done or not, was begun with this config and these inputs."""
        begun = _read_json(self.directory / "config.json")
        return begun is not None and begun.get("fingerprint") == self.fingerprint

    @property
    def output(self) -> str:
        """Fingerprint of what the stage made, an input of the stages after it.

        Raises:
            FileNotFoundError: the stage is not done.
        """
        return hashlib.sha256((self.directory / DONE_FILE).read_bytes()).hexdigest()

    def start(self) -> None:
        """Record config and environment, and make way for a new result."""
        self.alone(self._start)

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / DONE_FILE).unlink(missing_ok=True)
        previous = _read_json(self.directory / "config.json")
        if previous is None or previous.get("fingerprint") != self.fingerprint:
            self._drop_checkpoints()
        recorded = {"fingerprint": self.fingerprint, "inputs": self._inputs, "config": self._config}
        self.write_json("config.json", recorded)
        self.write_json("environment.json", {"seed": self._seed, **environment()})

    def write_json(self, name: str, content: Any) -> None:
        """Write `content` as the JSON file `name`, all at once."""
        path = self.directory / name
        with written_atomically(path) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def write_curve(self, curve: Sequence[Mapping[str, float]], title: str) -> None:
        """Write a training curve as `curve.json` and plot it as `curve.png`."""

        def write() -> None:
            self.write_json("curve.json", list(curve))
            plot_curve(curve, title, self.directory / "curve.png")

        self.alone(write)

    @property
    def metrics(self) -> dict[str, Any]:
        """What `finish` was given; empty before."""
        return _read_json(self.directory / METRICS_FILE) or {}

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Write `metrics.json`, drop the checkpoints and mark the stage as done."""
        self.alone(lambda: self._finish(metrics))

    def _finish(self, metrics: Mapping[str, Any]) -> None:
        self.write_json(METRICS_FILE, metrics)
        self._drop_checkpoints()
        files = sorted(path for path in self.directory.rglob("*") if path.is_file())
        digests = {str(path.relative_to(self.directory)): _sha256(path) for path in files}
        self.write_json(DONE_FILE, {"fingerprint": self.fingerprint, "files": digests})

    def _drop_checkpoints(self) -> None:
        for path in self.directory.glob(f"*{CHECKPOINT_FILE}"):
            path.unlink()


def environment() -> dict[str, Any]:
    """Where a run happens: git revision if there is one, versions, processor threads, GPUs."""
    return {
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def git_revision() -> str | None:
    """The revision of the checkout this code runs from, `-dirty` if it has uncommitted changes; None outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`, or None if the file is missing or was cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
