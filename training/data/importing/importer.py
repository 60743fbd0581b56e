"""One import, from source files to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from models.config import Config
from models.domain import DOMAINS
from models.errors import ConfigError, DataError
from training.data.dataset import Dataset, DatasetInfo
from training.data.importing import amazon
from training.data.importing.builder import DatasetBuilder, FilterConfig
from training.data.importing.ledger import OnBadRow
from training.data.importing.movielens import is_movielens, movielens_files, read_movielens
from training.data.importing.reading import Advance, Table
from training.data.importing.tabular import SUFFIXES as TABLE_SUFFIXES
from training.data.importing.tabular import Columns, Kind, kind_of, open_table, read_tables

Read = Callable[[DatasetBuilder, Advance], None]


class Format(StrEnum):
    """What the sources are; `auto` looks at names and columns."""

    AUTO = "auto"
    MOVIELENS = "movielens"
    AMAZON = "amazon"
    CSV = "csv"
    PARQUET = "parquet"


class ImportOptions(Config):
    """How to read sources and what of them to keep.

    Attributes:
        format: what they are.
        name: the dataset's name; the first source's name where None.
        domain: the prompt's wording; `movie` for MovieLens, else `item` where None.
        on_bad_row: whether a bad row is an error or is left out and counted.
        min_user_interactions, min_item_interactions: the k-core; 5 for Amazon, else 1 where None.
        min_rating: interactions rated lower are left out.
        drop_repeats: of a user's interactions with the same item keep only the first.
        drop_unseen_items: leave out items without interactions; True for Amazon, else False where None.
        encoding: of text files; UTF-8 where None (Latin-1 is recognised in `.dat` files).
        delimiter: of CSV files; found in the header where None.
        columns: column names of CSV and Parquet files.
    """

    format: Format = Format.AUTO
    name: str | None = None
    domain: str | None = None
    on_bad_row: OnBadRow = OnBadRow.FAIL
    min_user_interactions: int | None = Field(default=None, ge=1)
    min_item_interactions: int | None = Field(default=None, ge=1)
    min_rating: float | None = None
    drop_repeats: bool = False
    drop_unseen_items: bool | None = None
    encoding: str | None = None
    delimiter: str | None = None
    columns: Columns = Columns()


class ImportConfig(ImportOptions):
    """One import.

    Attributes:
        sources: files, or one folder that holds them.
    """

    sources: tuple[Path, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Import:
    """An import whose files are found but not yet read.

    Attributes:
        config: what was asked for.
        format: what the files are, never `auto`.
        files: the files that will be read.
        filters: the format's defaults filled in.
    """

    config: ImportConfig
    format: Format
    files: Sequence[Path]
    filters: FilterConfig
    _read: Read

    @property
    def total_bytes(self) -> int:
        """The size of all files, for progress."""
        return sum(path.stat().st_size for path in self.files)

    def run(self, advance: Advance = lambda _: None) -> tuple[Dataset, DatasetBuilder]:
        """Read and filter.

        Args:
            advance: told how many more bytes have been read.

        Returns:
            the dataset, and the builder whose ledgers say what was left out and where.

        Raises:
            DataError: the input cannot be used.
        """
        builder = DatasetBuilder(self.config.on_bad_row, needs_rating=self.filters.min_rating is not None)
        self._read(builder, advance)
        info = DatasetInfo(
            name=self.config.name or self.config.sources[0].resolve().name.split(".")[0],
            domain=self.config.domain or ("movie" if self.format is Format.MOVIELENS else "item"),
            format=self.format,
            sources=tuple(path.name for path in self.files),
            settings={
                **self.filters.model_dump(),
                "on_bad_row": self.config.on_bad_row,
                "columns": self.config.columns.model_dump(exclude_none=True),
            },
        )
        return builder.build(info, self.filters), builder


def prepare(config: ImportConfig) -> Import:
    """Find the files and what they are.

    Raises:
        ConfigError: domain, encoding or delimiter is none.
        DataError: a source is missing, or cannot be told to be one of the formats.
    """
    _check_settings(config)
    for source in config.sources:
        if not source.exists():
            raise DataError(f"{source} does not exist: give existing files or a folder")
    if config.format is Format.MOVIELENS or (config.format is Format.AUTO and is_movielens(config.sources[0])):
        return _prepare_movielens(config)
    if config.format is Format.AMAZON or (config.format is Format.AUTO and _files(config, amazon.SUFFIXES)):
        return _prepare_amazon(config)
    return _prepare_tables(config)


def _check_settings(config: ImportConfig) -> None:
    if config.domain is not None and config.domain not in DOMAINS:
        raise ConfigError(f"domain {config.domain!r} is unknown: choose one of {', '.join(DOMAINS)}")
    if config.delimiter is not None and (len(config.delimiter) != 1 or config.delimiter in '"\r\n'):
        raise ConfigError(f"delimiter {config.delimiter!r} is not usable: give one character, such as ';'")
    if config.encoding is not None and not _extends_ascii(config.encoding):
        raise ConfigError(
            f"encoding {config.encoding!r} is unknown or does not extend ASCII: name another, such as latin-1,"
            " or convert the file to UTF-8"
        )


def _extends_ascii(encoding: str) -> bool:
    """Whether lines can be told apart before they are decoded."""
    try:
        return "a,\n".encode(encoding) == b"a,\n"
    except (LookupError, UnicodeError):
        return False


def _prepare_movielens(config: ImportConfig) -> Import:
    ratings, movies = movielens_files(config.sources[0])

    def read(builder: DatasetBuilder, advance: Advance) -> None:
        read_movielens(ratings, movies, builder, advance, config.columns, config.encoding)

    return Import(config, Format.MOVIELENS, (ratings, movies), _filters(config, core=1, drop=False), read)


def _prepare_amazon(config: ImportConfig) -> Import:
    reviews, metadata = amazon.sort_files(_files(config, amazon.SUFFIXES))
    _one_of_each(config, reviews, "reviews")
    _one_of_each(config, metadata, "metadata")

    def read(builder: DatasetBuilder, advance: Advance) -> None:
        amazon.read_amazon(reviews, metadata, builder, advance)

    return Import(config, Format.AMAZON, (*reviews, *metadata), _filters(config, core=5, drop=True), read)


def _prepare_tables(config: ImportConfig) -> Import:
    suffixes: Sequence[str] = (".parquet",) if config.format is Format.PARQUET else TABLE_SUFFIXES
    paths = _files(config, suffixes)
    if not paths:
        raise DataError(
            f"{', '.join(map(str, config.sources))}: no MovieLens folder, no Amazon JSON lines, no CSV and no"
            f" Parquet file was found; give files ending in {', '.join((*TABLE_SUFFIXES, *amazon.SUFFIXES))}"
        )

    tables = _open_tables(config, paths, lambda _: None)
    _check_kinds(config, tables)
    files = [table.path for kind in (Kind.INTERACTIONS, Kind.ITEMS) for table in tables[kind]]

    def read(builder: DatasetBuilder, advance: Advance) -> None:
        opened = _open_tables(config, files, advance)
        read_tables(opened[Kind.INTERACTIONS], opened[Kind.ITEMS], config.columns, builder)

    actual = Format.PARQUET if all(path.suffix == ".parquet" for path in files) else Format.CSV
    return Import(config, actual, files, _filters(config, core=1, drop=False), read)


def _open_tables(config: ImportConfig, paths: Iterable[Path], advance: Advance) -> dict[Kind, list[Table]]:
    tables: dict[Kind, list[Table]] = {kind: [] for kind in Kind}
    for path in paths:
        table = open_table(path, advance, config.encoding, config.delimiter)
        tables[kind_of(table, config.columns)].append(table)
    return tables


def _check_kinds(config: ImportConfig, tables: Mapping[Kind, Sequence[Table]]) -> None:
    """Refuse missing interactions and files that are neither; in a folder the latter are passed over."""
    listed = [table for table in tables[Kind.OTHER] if table.path in config.sources]
    if listed or not tables[Kind.INTERACTIONS]:
        seen = listed or [table for kind in Kind for table in tables[kind]]
        headers = "; ".join(f"{table.path} has {', '.join(table.header)}" for table in seen)
        what = "a file holds neither interactions nor items" if listed else "no file holds interactions"
        raise DataError(
            f"{what}: {headers}. Interactions need a user and an item column, items a title; the first line must"
            " name the columns. Name them with --user-column, --item-column, --title-column"
        )
    for kind in (Kind.INTERACTIONS, Kind.ITEMS):
        _one_of_each(config, [table.path for table in tables[kind]], kind)


def _files(config: ImportConfig, suffixes: Iterable[str]) -> list[Path]:
    """The sources with one of `suffixes`; a folder stands for its files."""
    listed = [path for source in config.sources for path in (sorted(source.iterdir()) if source.is_dir() else [source])]
    return [path for path in listed if path.is_file() and path.name.lower().endswith(tuple(suffixes))]


def _one_of_each(config: ImportConfig, paths: Sequence[Path], what: str) -> None:
    """Several files of a kind are meant only when they were listed one by one."""
    if len(paths) > 1 and any(source.is_dir() for source in config.sources):
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"{config.sources[0]} holds several files of {what} ({names}): list the files to import one by one"
        )


def _filters(config: ImportConfig, core: int, drop: bool) -> FilterConfig:
    return FilterConfig(
        min_user_interactions=config.min_user_interactions or core,
        min_item_interactions=config.min_item_interactions or core,
        min_rating=config.min_rating,
        drop_repeats=config.drop_repeats,
        drop_unseen_items=drop if config.drop_unseen_items is None else config.drop_unseen_items,
    )
