"""Raw files that a run imports, once, before anything else."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from training.data.importing.importer import ImportConfig, prepare
from training.data.importing.report import run_import
from training.runs.stage_run import StageRun

DATASET_FOLDER = "dataset"


class RawFiles:
    """Raw files, found out by their names and columns.

    Args:
        config: which, and how they are imported.
        directory: the import's.
        console: where it is shown.

    Attributes:
        run: the import's folder; it is done while the files have the same sizes and times.

    Raises:
        DataError: the source cannot be used.
    """

    def __init__(self, config: ImportConfig, directory: Path, console: Console) -> None:
        self._planned, self._console = prepare(config), console
        files = {str(path): f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in self._planned.files}
        self.run = StageRun(directory, config, 0, files, console)

    def dataset_path(self) -> Path:
        """The folder of the dataset that they make, imported unless that was done before.

        Raises:
            DataError: what they hold cannot be used.
        """
        if not self.run.is_done:
            self.run.alone(self._import)
        return self.run.directory / DATASET_FOLDER

    def _import(self) -> None:
        self.run.start()
        dataset = run_import(self._planned, self._console)
        dataset.save(self.run.directory / DATASET_FOLDER)
        self.run.finish(dataset.info.model_dump(mode="json"))
