"""The papers' data sets: which files, and how the paper filters them (A-LLMRec section 5.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from models.errors import DataError
from training.allmrec.source import DATASET_FOLDER, RawFiles
from training.data.dataset import INFO_FILE
from training.data.importing.importer import ImportConfig
from training.data.importing.ledger import OnBadRow


@dataclass(frozen=True)
class Preset:
    """One data set of Amazon Reviews 2018.

    Attributes:
        files: what its two files are named after.
        domain: the prompt's wording.
        core: users and items with fewer interactions are left out, repeatedly.
        min_rating: interactions rated lower are left out: "ratings above 3" where the paper says so.
        text_reconstruction: beta (Table 3).
        target: the preset whose users are asked about across domains (Table 7), where it is in the paper.
    """

    files: str
    domain: str
    core: int
    min_rating: float | None = None
    text_reconstruction: float = 0.5
    target: str | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        """Of a recipe."""
        return (f"stage1.text_reconstruction={self.text_reconstruction}",)

    def sources(self, folder: Path) -> tuple[Path, Path]:
        """Reviews and metadata."""
        return folder / f"{self.files}.json.gz", folder / f"meta_{self.files}.json.gz"


PRESETS: dict[str, Preset] = {
    "amazon-movies": Preset("Movies_and_TV", "movie", core=5, target="amazon-games"),
    "amazon-games": Preset("Video_Games", "game", core=5),
    "amazon-beauty": Preset("Luxury_Beauty", "item", core=4, min_rating=4, text_reconstruction=0.2),
    "amazon-toys": Preset("Toys_and_Games", "item", core=4, min_rating=4, text_reconstruction=0.2),
}


def present(folder: Path) -> list[str]:
    """The presets whose files are in `folder`."""
    return [name for name, preset in PRESETS.items() if all(path.is_file() for path in preset.sources(folder))]


def is_imported(out: Path) -> bool:
    """Whether a preset's import into `out` is done."""
    return (out / DATASET_FOLDER / INFO_FILE).is_file()


def import_preset(name: str, folder: Path, out: Path, console: Console) -> Path:
    """The dataset of a preset, imported into the folder `out` unless these very files were before, or none are there.

    Args:
        name: of the preset.
        folder: holds the two files.
        out: of the import.
        console: where progress is shown.

    Raises:
        DataError: a file is missing, or cannot be used.
    """
    preset = PRESETS[name]
    if is_imported(out) and not any(path.is_file() for path in preset.sources(folder)):
        return out / DATASET_FOLDER
    sources = preset.sources(folder)
    lacking = [path.name for path in sources if not path.is_file()]
    if lacking:
        raise DataError(
            f"{name} needs {' and '.join(lacking)} in {folder}: reviews and metadata of the Amazon Reviews data of"
            " 2018; say where they are with --files"
        )
    config = ImportConfig(
        sources=sources,
        name=name,
        domain=preset.domain,
        on_bad_row=OnBadRow.SKIP,
        min_user_interactions=preset.core,
        min_item_interactions=preset.core,
        min_rating=preset.min_rating,
    )
    return RawFiles(config, out, console).dataset_path()
