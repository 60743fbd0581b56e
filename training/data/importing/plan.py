"""What the sources are: which tables hold interactions and items, and what they are read as."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models.errors import DataError
from training.data.importing import amazon, mind, movielens, recbole
from training.data.importing.columns import NAMES, Columns, find, flag, plain
from training.data.importing.delimited import DelimitedTable
from training.data.importing.objects import JsonTable, looks_like_json
from training.data.importing.options import Format, ImportConfig, names_for
from training.data.importing.orders import OrderedTable
from training.data.importing.parquet import MAGIC, ParquetTable
from training.data.importing.source import COMPRESSED_SUFFIXES, TABLE_SUFFIXES, Source, find_sources
from training.data.importing.table import Table
from training.data.importing.text import Text

DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Plan:
    """Sources sorted into tables.

    Attributes:
        format: what they are, never `auto`.
        interactions, items: the tables, in the order in which they are read.
        columns: which columns hold what, where that is known by the format.
        core: the least number of interactions of a user and an item unless told otherwise.
        drop_unseen_items: unless told otherwise.
        domain: the prompt's wording unless told otherwise.
        passed_over: files of a folder that are neither.
    """

    format: Format
    interactions: Sequence[Table]
    items: Sequence[Table]
    columns: Columns
    core: int = 1
    drop_unseen_items: bool = False
    domain: str = "item"
    passed_over: Sequence[str] = field(default=())

    @property
    def sources(self) -> list[Source]:
        """Every file that is read."""
        tables = [*self.interactions, *self.items]
        return list(dict.fromkeys(source for table in tables for source in table.sources))


def make_plan(config: ImportConfig) -> Plan:
    """Tell what the sources are.

    Raises:
        ConfigError: the names given do not fit a file.
        DataError: a source is missing, or cannot be told to be one of the formats.
    """
    sources = find_sources(config.sources)
    for known, recognise in FORMATS.items():
        if config.format in {Format.AUTO, known} and (plan := recognise(sources, config)) is not None:
            return plan
    if config.format is Format.MOVIELENS:
        raise DataError(
            f"{config.sources[0]} holds no MovieLens files: give an unpacked MovieLens folder, with ratings.csv and"
            " movies.csv, ratings.dat and movies.dat, or u.data and u.item; or choose another --format"
        )
    if config.format is Format.MIND:
        raise DataError(
            f"{config.sources[0]} holds no behaviors.tsv and news.tsv: give them, or choose another --format"
        )
    return _plan_tables(sources, config)


def _plan_movielens(sources: Sequence[Source], config: ImportConfig) -> Plan | None:
    files = movielens.files_of(sources)
    if files is None or config.no_header:
        return None
    ratings, movies = movielens.open_tables(files, config.encoding)
    others = _others(sources, config, [ratings, movies], files.genres)
    return Plan(Format.MOVIELENS, [ratings], [movies], movielens.COLUMNS, domain="movie", passed_over=others)


def _plan_mind(sources: Sequence[Source], config: ImportConfig) -> Plan | None:
    tables = None if config.no_header else mind.open_tables(sources, config.encoding)
    if tables is None:
        return None
    clicks, news = tables
    return Plan(Format.MIND, [clicks], [news], mind.COLUMNS, passed_over=_others(sources, config, tables))


def _others(
    sources: Sequence[Source], config: ImportConfig, tables: Sequence[Table], also_read: Source | None = None
) -> list[str]:
    """Files beside those of a known format; listed ones are meant, and an error.

    Raises:
        DataError: one was listed.
    """
    read = {also_read, *(table.source for table in tables)}
    others = [source for source in sources if source not in read]
    listed = [source.label for source in others if _is_listed(source, config)]
    if listed:
        raise DataError(
            f"{', '.join(listed)} cannot be read together with {tables[0].source.label} and {tables[1].source.label},"
            " whose columns are known: leave it out"
        )
    return [source.label for source in others]


FORMATS: dict[Format, Callable[[Sequence[Source], ImportConfig], Plan | None]] = {
    Format.MOVIELENS: _plan_movielens,
    Format.MIND: _plan_mind,
}


def _plan_tables(sources: Sequence[Source], config: ImportConfig) -> Plan:
    tables, passed_over = _open_tables(sources, config)
    _check_names(tables, config.columns)
    if config.format is Format.AMAZON or (config.format is Format.AUTO and amazon.is_amazon(tables)):
        reviews, metadata = amazon.sort_tables(tables)
        _one_of_each(config, reviews, "reviews")
        _one_of_each(config, metadata, "metadata")
        editions = [amazon.Reviews(table) for table in reviews], [amazon.Metadata(table) for table in metadata]
        return Plan(Format.AMAZON, *editions, amazon.COLUMNS, core=5, drop_unseen_items=True, passed_over=passed_over)
    kinds = _sorted(tables, config)
    interactions = kinds["interactions"]
    if kinds["orders"] and kinds["lines"]:
        interactions = [*interactions, *(_joined(config, kinds, lines) for lines in kinds["lines"])]
        kinds["orders"], kinds["lines"] = [], []
    _check_kinds(config, kinds, interactions)
    others = [*kinds["other"], *kinds["orders"], *kinds["lines"]]
    passed_over = [*passed_over, *(table.source.label for table in others)]
    columns = config.columns
    atomic = next((table for table in kinds["items"] if isinstance(table, recbole.AtomicTable)), None)
    if columns.separator is None and atomic is not None:
        separator = atomic.separator(find(atomic, columns, "categories"))
        columns = columns.model_copy(update={"separator": separator})
    return Plan(_format_of(interactions), interactions, kinds["items"], columns, passed_over=passed_over)


def _open_tables(sources: Sequence[Source], config: ImportConfig) -> tuple[list[Table], list[str]]:
    """The sources as tables; what a folder holds beside tables is passed over."""
    tables: list[Table] = []
    folders = [path for path in config.sources if path.is_dir()]
    passed_over = [f"{each.name}/" for folder in folders for each in sorted(folder.iterdir()) if each.is_dir()]
    for source in sources:
        listed = _is_listed(source, config)
        if not listed and source.suffix not in TABLE_SUFFIXES:
            passed_over.append(source.label)
            continue
        try:
            tables.append(open_table(source, config))
        except DataError as error:
            if listed:
                raise
            raise DataError(f"{error}; or, if it is no part of the data, list the files that are one by one") from error
    if not tables:
        raise DataError(
            f"{', '.join(map(str, config.sources))}: no table was found{_beside(passed_over)}; give files ending in"
            f" {', '.join(TABLE_SUFFIXES)}, also with {', '.join(COMPRESSED_SUFFIXES)}, or list files one by one"
        )
    return tables, passed_over


def open_table(source: Source, config: ImportConfig) -> Table:
    """One source as a table, told by its first bytes.

    Raises:
        ConfigError: `--columns` has no names for it.
        DataError: it cannot be read, or is not of the format asked for.
    """
    if source.head().startswith(MAGIC):
        _refuse_format(source, config, Format.PARQUET)
        return ParquetTable(source)
    if config.format is Format.PARQUET or source.suffix in {".parquet", ".pq"}:
        raise DataError(
            f"{source} cannot be read as Parquet: it does not begin as Parquet does; fetch or write it again"
        )
    lines, _ = Text(source, config.encoding).sample()
    if looks_like_json(next((line for line in lines if line.strip()), "")) and config.format is not Format.CSV:
        _refuse_format(source, config, Format.JSON)
        return JsonTable(source, config.encoding)
    _refuse_format(source, config, Format.CSV)
    if not config.no_header:
        if recbole.is_atomic(lines[0] if lines else ""):
            return recbole.AtomicTable(source, config.encoding)
        if config.format is Format.RECBOLE:
            raise DataError(f"{source}, line 1: the header has no name:type, as RecBole's have; leave --format out")
        return DelimitedTable(source, config.encoding, config.wished)
    width = len(DelimitedTable(source, config.encoding, config.wished).first_row)
    return DelimitedTable(source, config.encoding, config.wished, names_for(config, source.name, width))


def _refuse_format(source: Source, config: ImportConfig, actual: Format) -> None:
    fitting = {
        Format.AUTO: True,
        Format.AMAZON: True,
        Format.RECBOLE: actual is Format.CSV,
    }
    if config.format is not actual and not fitting.get(config.format, False):
        raise DataError(f"{source} is {actual}, not {config.format}: choose --format {actual} or leave it out")


def _sorted(tables: Sequence[Table], config: ImportConfig) -> dict[str, list[Table]]:
    kinds: dict[str, list[Table]] = {"interactions": [], "items": [], "orders": [], "lines": [], "other": []}
    for table in tables:
        kinds[_kind(table, config.columns)].append(table)
    return kinds


def _kind(table: Table, columns: Columns) -> str:
    """Tell by the columns what `table` holds."""
    user, item = find(table, columns, "user"), find(table, columns, "item")
    if user is not None and item is not None:
        return "interactions"
    order = find(table, columns, "order")
    if order is not None and user is not None:
        return "orders"
    if order is not None and item is not None:
        return "lines"
    title, item_id = find(table, columns, "title"), find(table, columns, "item_id")
    # Where ids are the titles for want of text, a table that has nothing else to say is none of items.
    named = title is not None and title == columns.title and len(table.header) > 1
    return "items" if user is None and item_id is not None and (named or title not in {None, item_id}) else "other"


def _check_names(tables: Sequence[Table], columns: Columns) -> None:
    """Refuse a column that no file has.

    Raises:
        DataError: there is one.
    """
    headers = list(dict.fromkeys(name for table in tables for name in table.header))
    for role in NAMES:
        name = getattr(columns, role)
        if name is None or name in headers:
            continue
        near = difflib.get_close_matches(name, headers, n=3)
        hint = f", perhaps {' or '.join(near)}" if near else ""
        told = "; ".join(f"of {table.source}: {', '.join(table.header)}" for table in tables)
        raise DataError(
            f"column {name!r} is missing; name the right one with {flag(role)}{hint}. The columns are, {told}"
        )


def _joined(config: ImportConfig, kinds: dict[str, list[Table]], lines: Table) -> Table:
    orders = kinds["orders"]
    if len(orders) > 1:
        names = ", ".join(table.source.label for table in orders)
        raise DataError(f"several tables are of orders ({names}): list the files to import, with one of them")
    _one_of_each(config, kinds["lines"], "order lines")
    return OrderedTable(orders[0], lines, config.columns, config.on_bad_row)


def _check_kinds(config: ImportConfig, kinds: dict[str, list[Table]], interactions: Sequence[Table]) -> None:
    """Refuse missing interactions and files that are neither; in a folder the latter are passed over."""
    rest = [*kinds["other"], *kinds["orders"], *kinds["lines"]]
    listed = [table for table in rest if _is_listed(table.source, config)]
    if listed or not interactions:
        seen = listed or [*kinds["items"], *rest]
        headers = "; ".join(f"{table.source} has {', '.join(table.header)}" for table in seen)
        what = "a file holds neither interactions nor items" if listed else "no file holds interactions"
        hint = ""
        alone = [table for table in seen if len(table.header) == 1 and isinstance(table, DelimitedTable)]
        if kinds["lines"] and not kinds["orders"]:
            hint = f". {kinds['lines'][0].source.label} has lines of orders: give the orders and their users too"
        elif alone:
            hint = f". {alone[0].source.label} has but one column: say what parts its columns with --delimiter"
        elif any(_is_data(name) for table in seen for name in table.header):
            hint = ". A first line looks like data: name the columns with --no-header --columns user,item,..."
        raise DataError(
            f"{what}: {headers}. Interactions need a user and an item column, items an item id and a title; the first"
            f" line must name the columns. Name them with --user-column, --item-column, --title-column{hint}"
        )
    _one_of_each(config, interactions, "interactions")
    _one_of_each(config, kinds["items"], "items")


def _one_of_each(config: ImportConfig, tables: Sequence[Table], what: str) -> None:
    """Several files of a kind are meant only when they were listed one by one."""
    if len(tables) > 1 and not all(_is_listed(table.source, config) for table in tables):
        names = ", ".join(table.source.label for table in tables)
        raise DataError(
            f"{config.sources[0]} holds several files of {what} ({names}): list the files to import one by one"
        )


def _format_of(interactions: Sequence[Table]) -> Format:
    table = interactions[0]
    if isinstance(table, recbole.AtomicTable):
        return Format.RECBOLE
    return {"Parquet": Format.PARQUET, "JSON": Format.JSON}.get(table.syntax, Format.CSV)


def _is_listed(source: Source, config: ImportConfig) -> bool:
    return not source.member and source.path in config.sources


def _is_data(name: str) -> bool:
    return not name or plain(name).isdigit() or DATE.match(name) is not None


def _beside(passed_over: Sequence[str]) -> str:
    return f" (not looked at: {', '.join(passed_over[:8])})" if passed_over else ""
