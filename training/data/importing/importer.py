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
from training.data.importing.source import Advance

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
        for table, reader in zip(plan.interactions, readers, strict=True):
            reader.read(advance)
            if isinstance(table, OrderedTable):
                builder.joined["orders"] = table.orders
        if plan.passed_over:
            builder.warnings.append(f"not read: {', '.join(plan.passed_over)}")
        return builder.build(self._info(), self.filters), builder

    def _info(self) -> DatasetInfo:
        config = self.config
        return DatasetInfo(
            name=config.name or config.sources[0].resolve().name.split(".")[0],
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
        plan, given = self.plan, given_flags(self.config)
        syntaxes = {table.syntax for table in (*plan.interactions, *plan.items)}
        delimited, text = "delimited text" in syntaxes, syntaxes != {"Parquet"}
        applies = {
            "encoding": text,
            "delimiter": delimited and plan.format is Format.CSV,
            "quoting": delimited and plan.format is Format.CSV,
            "escape": delimited and plan.format is Format.CSV,
            "names": delimited and plan.format is Format.CSV,
            "time_format": any("time" in reader.roles for reader in readers),
            "order": any(isinstance(table, OrderedTable) for table in plan.interactions),
        }
        fixed = plan.format in {Format.MOVIELENS, Format.MIND, Format.AMAZON}
        for about, option in given.items():
            if about not in applies and fixed:
                raise DataError(
                    f"{option} does not apply to {plan.format} files, whose columns are known: leave it out, or choose"
                    " another --format"
                )
            if not applies.get(about, True):
                what = f"{plan.format} files" if about != "time_format" else "files without a time column"
                raise DataError(f"{option} does not apply to {what}: leave it out")


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


def _filters(config: ImportConfig, plan: Plan) -> FilterConfig:
    return FilterConfig(
        min_user_interactions=config.min_user_interactions or plan.core,
        min_item_interactions=config.min_item_interactions or plan.core,
        min_rating=config.min_rating,
        drop_repeats=config.drop_repeats,
        drop_unseen_items=plan.drop_unseen_items if config.drop_unseen_items is None else config.drop_unseen_items,
    )
