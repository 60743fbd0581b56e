"""The canonical dataset: a folder with `interactions.parquet`, `items.parquet` and `dataset.json`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from pydantic import Field, JsonValue, ValidationError, field_validator

from models.config import Config
from models.domain import DOMAINS
from models.errors import DataError

INFO_FILE = "dataset.json"
INTERACTIONS_FILE = "interactions.parquet"
ITEMS_FILE = "items.parquet"
OWN_FILES = {INFO_FILE, INTERACTIONS_FILE, ITEMS_FILE, "Thumbs.db"}
"""What a dataset's folder has, and what may come there by itself, as hidden files do."""

INTERACTIONS_SCHEMA: Mapping[str, pl.DataType] = {
    "user_id": pl.String(),
    "item_id": pl.String(),
    "timestamp": pl.Int64(),
}
ITEMS_SCHEMA: Mapping[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "description": pl.String(),
    "categories": pl.List(pl.String()),
}


class Tally(Config):
    """What became of the rows of one input table: `read == kept + skipped + dropped`.

    Attributes:
        read: rows in the input.
        kept: rows in the dataset.
        skipped: bad rows by reason; only `--on-bad-row skip` has any.
        dropped: good rows that the settings leave out, by reason.
    """

    read: int = 0
    kept: int = 0
    skipped: dict[str, int] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)


class Reading(Config):
    """What one file was taken for.

    Attributes:
        file: its name.
        holds: interactions or items.
        syntax: delimited text, JSON, Parquet and so on.
        taken_for: encoding, delimiter, quoting, header and the like.
        columns: which column was taken for what.
        values: how times, ids and lists are spelled.
        not_taken: columns that look like a time, a rating or categories, and were not taken.
    """

    file: str
    holds: str
    syntax: str
    taken_for: dict[str, str] = Field(default_factory=dict)
    columns: dict[str, str] = Field(default_factory=dict)
    values: dict[str, str] = Field(default_factory=dict)
    not_taken: tuple[str, ...] = ()


class DatasetInfo(Config):
    """Where a dataset comes from and how it was filtered: the content of `dataset.json`.

    Attributes:
        name: what reports call it.
        domain: the prompt's wording, a key of `models.prompt.DOMAINS`.
        format: the importer that read it, or `demo`.
        sources: the names of the files it was read from.
        settings: the importer's or generator's settings.
        users: users with at least one interaction.
        unseen_items: items without any interaction; they stay in the catalogue, cold.
        interactions: the account of the interaction rows.
        items: the account of the item rows.
        joined: the accounts of tables that interactions were joined from, such as orders.
        readings: what each file was taken for.
        warnings: what may have been meant otherwise.
    """

    name: str
    domain: str = "item"
    format: str
    sources: tuple[str, ...] = ()
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    users: int = 0
    unseen_items: int = 0
    interactions: Tally = Tally()
    items: Tally = Tally()
    joined: dict[str, Tally] = Field(default_factory=dict)
    readings: tuple[Reading, ...] = ()
    warnings: tuple[str, ...] = ()

    @field_validator("domain")
    @classmethod
    def _known_domain(cls, domain: str) -> str:
        if domain not in DOMAINS:
            raise ValueError(f"domain {domain!r} is unknown: choose one of {', '.join(DOMAINS)}")
        return domain


@dataclass(frozen=True)
class Dataset:
    """Interactions and items in canonical form.

    Attributes:
        info: origin, settings and counts.
        interactions: user_id, item_id, timestamp in seconds and, where known, rating; sorted by user, then
            time, equal times in the order of the source.
        items: item_id, title, description, categories; every interaction's item is among them.
    """

    info: DatasetInfo
    interactions: pl.DataFrame
    items: pl.DataFrame = field(repr=False)

    def save(self, path: Path | str) -> None:
        """Write the dataset to the folder `path`, all at once: a half-written dataset does not exist.

        An older dataset there is replaced.

        Raises:
            DataError: `path` holds something else than a dataset, or cannot be written.
        """
        target = Path(path)
        check_replaceable(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            try:
                self._write(staging / "new")
                _swap(staging / "new", target, staging / "old")
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{target} cannot be written: {error}; free the disk or choose another folder") from error

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        self.interactions.write_parquet(folder / INTERACTIONS_FILE)
        self.items.write_parquet(folder / ITEMS_FILE)
        # Column names, events and file names may hold half characters, which no JSON file can.
        told = json.dumps(self.info.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (folder / INFO_FILE).write_bytes(f"{told}\n".encode("utf-8", errors="replace"))

    @classmethod
    def load(cls, path: Path | str) -> Dataset:
        """Read the dataset in the folder `path`.

        Raises:
            DataError: a file is missing, damaged, or lacks a column.
        """
        folder = Path(path)
        try:
            info = DatasetInfo.model_validate_json((folder / INFO_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{folder} is no dataset, it has no {INFO_FILE}: make one with `allmrec-train import`"
                " or `allmrec-train demo`"
            ) from None
        except (ValidationError, UnicodeDecodeError) as error:
            raise DataError(f"{folder / INFO_FILE} is damaged: {error}; import the dataset again") from None
        interactions = _read_table(folder / INTERACTIONS_FILE, INTERACTIONS_SCHEMA)
        items = _read_table(folder / ITEMS_FILE, ITEMS_SCHEMA)
        return cls(info, interactions, items)


def check_replaceable(target: Path) -> None:
    """Refuse what holds anything but a dataset, which writing one there would destroy.

    Raises:
        DataError: it does.
    """
    if not target.exists():
        return
    try:
        names = {each.name for each in target.iterdir()} if target.is_dir() else set[str]()
    except OSError as error:
        raise DataError(f"{target} cannot be read: {error.strerror}; choose another folder for the output") from error
    if not target.is_dir() or (names and INFO_FILE not in names):
        raise DataError(f"{target} exists and is no dataset: choose another folder for the output")
    if others := sorted(name for name in names - OWN_FILES if not name.startswith(".")):
        few = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
        raise DataError(f"{target} holds more than a dataset ({few}): move that elsewhere, or choose another folder")


def _swap(written: Path, target: Path, aside: Path) -> None:
    try:
        if target.exists():
            target.rename(aside)
        written.rename(target)
    except BaseException:
        # Ctrl-C between the two renames must not cost the older dataset.
        if aside.exists() and not target.exists():
            aside.rename(target)
        raise


def _read_table(path: Path, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: import the dataset again") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}; import the dataset again") from None
    for column, dtype in schema.items():
        if frame.schema.get(column) != dtype:
            raise DataError(f"{path} needs a column {column} of type {dtype}: import the dataset again")
    return frame
