"""One import, from source files to a dataset: bytes -> text -> rows -> fields -> dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import DataError
from training.data.dataset import Dataset, DatasetInfo
from training.data.importing.builder import DatasetBuilder, FilterConfig
from training.data.importing.columns import find
from training.data.importing.interactions import InteractionReader
from training.data.importing.items import read_items
from training.data.importing.options import Format, ImportConfig, ImportOptions, given_flags
from training.data.importing.orders import OrderedTable
from training.data.importing.plan import Plan, make_plan
from training.data.importing.source import Advance, source_name
from training.data.importing.table import Table

LACKING = {
    "time_format": "files without a column of written times",
    "item_id": "interactions without a table of items, whose --item-column is the item's id",
    "separator": "files without a column of categories",
}

__all__ = ["Format", "Import", "ImportConfig", "ImportOptions", "prepare"]


@dataclass(frozen=True)
class Import:
    """An import whose files are found but not yet read.

    Attributes:
        config: what was asked for.
        plan: what the files are.
        filters: the format's defaults filled in.
    """

    config: ImportConfig
    plan: Plan
    filters: FilterConfig

    @property
    def format(self) -> Format:
        """What the files are, never `auto`."""
        return self.plan.format

    @property
    def files(self) -> Sequence[Path]:
        """The files that will be read."""
        return list(dict.fromkeys(source.path for source in self.plan.sources))

    @property
    def total_bytes(self) -> int:
        """The size of all that is read, for progress."""
        return sum(source.size for source in self.plan.sources)

    def run(self, advance: Advance = lambda _: None) -> tuple[Dataset, DatasetBuilder]:
        """Read and filter.

        Args:
            advance: told how many more bytes have been read.

        Returns:
            the dataset, and the builder whose ledgers say what was left out and where.

        Raises:
            DataError: the input cannot be used.
        """
        plan, options = self.plan, self.config.model_copy(update={"columns": self.plan.columns})
        builder = DatasetBuilder(self.config.on_bad_row, needs_rating=self.filters.min_rating is not None)
        readers = [
            InteractionReader(table, options, builder, with_titles=not plan.items) for table in plan.interactions
        ]
        self._check_flags(readers)
        for table in plan.items:
            read_items(table, plan.columns, builder, advance)
        if plan.items and not builder.items.read:
            raise DataError(f"{_named(plan.items)}: there are no rows of items; give files with rows")
        for reader in readers:
            reader.read_texts()
        for table, reader in zip(plan.interactions, readers, strict=True):
            reader.read(advance)
            if isinstance(table, OrderedTable):
                builder.joined["orders"] = table.orders
        if not builder.interactions.read:
            raise DataError(f"{_named(plan.interactions)}: there are no rows of interactions; give files with rows")
        if plan.passed_over:
            builder.warnings.append(f"not read: {', '.join(plan.passed_over)}")
        return builder.build(self._info(), self.filters), builder

    def _info(self) -> DatasetInfo:
        config = self.config
        return DatasetInfo(
            name=config.name or source_name(config.sources[0]),
            domain=config.domain or self.plan.domain,
            format=self.plan.format,
            sources=tuple(source.label for source in self.plan.sources),
            settings={
                **self.filters.model_dump(),
                "on_bad_row": config.on_bad_row,
                "columns": config.columns.model_dump(exclude_none=True),
            },
        )

    def _check_flags(self, readers: Sequence[InteractionReader]) -> None:
        """Refuse options that nothing in these files can follow: they were meant for something.

        Raises:
            DataError: there is one.
        """
        plan = self.plan
        fixed = plan.format in {Format.MOVIELENS, Format.MIND, Format.AMAZON}
        applies = self._applies(readers, fixed)
        for about, option in given_flags(self.config).items():
            if about not in applies and fixed:
                raise DataError(
                    f"{option} does not apply to {plan.format} files, whose columns are known: leave it out, or choose"
                    " another --format"
                )
            if not applies.get(about, True):
                what = LACKING.get(about, f"{plan.format} files")
                raise DataError(f"{option} does not apply to {what}: leave it out")

    def _applies(self, readers: Sequence[InteractionReader], fixed: bool) -> dict[str, bool]:
        """Whether there is something that an option is about; options that always apply are absent."""
        plan = self.plan
        syntaxes = {table.syntax for table in (*plan.interactions, *plan.items)}
        delimited = "delimited text" in syntaxes
        applies = {
            "encoding": syntaxes != {"Parquet"},
            "delimiter": delimited and plan.format is Format.CSV,
            "quoting": delimited and plan.format is Format.CSV,
            "escape": delimited and plan.format is Format.CSV,
            "names": delimited and plan.format in {Format.CSV, Format.AMAZON},
            "time_format": any(reader.has_written_times for reader in readers),
            "order": any(isinstance(table, OrderedTable) for table in plan.interactions),
        }
        if not fixed:
            described = plan.items or plan.interactions
            applies["item_id"] = bool(plan.items)
            applies["separator"] = any(find(table, plan.columns, "categories") is not None for table in described)
        return applies


def prepare(config: ImportConfig) -> Import:
    """Find the files and what they are.

    Raises:
        ConfigError: a setting is none, or two contradict each other.
        DataError: a source is missing, or cannot be told to be one of the formats.
    """
    config.check()
    plan = make_plan(config)
    with_time = {find(table, plan.columns, "time") is not None for table in plan.interactions}
    if len(with_time) > 1:
        raise DataError(
            "some tables of interactions have a time column and others have none: import them apart, or name the"
            " column with --time-column"
        )
    return Import(config, plan, _filters(config, plan))


def _named(tables: Sequence[Table]) -> str:
    return ", ".join(str(table.source) for table in tables)


def _filters(config: ImportConfig, plan: Plan) -> FilterConfig:
    return FilterConfig(
        min_user_interactions=config.min_user_interactions or plan.core,
        min_item_interactions=config.min_item_interactions or plan.core,
        min_rating=config.min_rating,
        drop_repeats=config.drop_repeats,
        drop_unseen_items=plan.drop_unseen_items if config.drop_unseen_items is None else config.drop_unseen_items,
    )
