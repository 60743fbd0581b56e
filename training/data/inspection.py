"""A dataset at a glance: counts, lengths, time span, what is cold, some rows, what to beware of, and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.errors import DataError
from training.data.dataset import Dataset
from training.data.fitness import check_fitness, evaluated_users
from training.data.splits import SequenceSplit

LARGEST = 1e15
"""Beyond this a rating is drawn at the edge."""
SAMPLE = 5
QUANTILES = (0.0, 0.5, 0.9, 1.0)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` shows.

    Attributes:
        figures: names and values, as they are shown.
        warnings: what to beware of, of the import and of the data.
        items, interactions: sample rows.
    """

    figures: dict[str, str]
    warnings: list[str]
    items: pl.DataFrame
    interactions: pl.DataFrame


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Look at all of a dataset."""
    split = SequenceSplit.from_dataset(dataset)
    interactions, items = dataset.interactions, dataset.items
    lengths = interactions.group_by("user_id").len()["len"]
    popularity = interactions.group_by("item_id").len()["len"]
    pairs = interactions.select("user_id", "item_id").n_unique()
    count = len(interactions)
    unseen = len(items) - len(popularity)
    untrained = int((split.catalogue.interactions[1:] == 0).sum())
    figures = {
        "users": f"{len(lengths):,}",
        "items": f"{len(items):,}",
        "interactions": f"{count:,}",
        "density": f"{pairs / (len(lengths) * len(items)):.3%} of all pairs",
        "repeats": f"{count - pairs:,} ({(count - pairs) / count:.1%} of interactions)",
        "history length": _spread(lengths),
        "interactions of an item": _spread(popularity),
        "time span": _span(interactions["timestamp"]),
        "ratings": _ratings(interactions),
        "users to evaluate": f"{evaluated_users(split):,}",
        "items never met": f"{unseen:,} ({unseen / len(items):.1%})",
        "items cold in training": f"{untrained:,} ({untrained / len(items):.1%})",
        "descriptions": _share(items["description"] != ""),
        "categories": _categories(items["categories"]),
        "title length": _spread(items["title"].str.len_chars()),
    }
    warnings = [*dataset.info.warnings, *_fitness(dataset, split)]
    return Inspection(figures, warnings, items.head(SAMPLE), interactions.head(SAMPLE))


def show(dataset: Dataset, inspection: Inspection, console: Console) -> None:
    """Print an inspection; it fits 80 columns."""
    table = Table(title=Text(dataset.info.name), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in inspection.figures.items():
        table.add_row(name, value)
    for reading in dataset.info.readings:
        columns = ", ".join(f"{role}: {column}" for role, column in reading.columns.items())
        table.add_row(f"{reading.holds} from", Text(f"{reading.file} ({columns})"))
    console.print(table)
    for title, frame in (("items", inspection.items), ("interactions", inspection.interactions)):
        console.print(_rows(title, frame))
    for warning in inspection.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


def draw(dataset: Dataset, path: Path) -> None:
    """Draw history lengths, item popularity, interactions over time, and ratings or title lengths, as PNG.

    Raises:
        DataError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    interactions = dataset.interactions
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{dataset.info.name}: {len(interactions):,} interactions", parse_math=False)
    (lengths, popularity), (time, last) = figure.subplots(2, 2)
    counts = interactions.group_by("user_id").len()["len"].to_numpy()
    lengths.hist(counts, bins=np.geomspace(1, max(counts.max(), 2) + 1, 40))
    lengths.set(title="history lengths", xlabel="interactions of a user", ylabel="users", xscale="log")
    ranked = np.sort(interactions.group_by("item_id").len()["len"].to_numpy())[::-1]
    popularity.loglog(np.arange(1, len(ranked) + 1), ranked)
    popularity.set(title="popularity", xlabel="rank of an item", ylabel="interactions")
    seconds = interactions["timestamp"].to_numpy()
    years = 1970 + seconds / (365.2425 * 86_400)
    time.hist(years, bins=60)
    time.set(title="over time", xlabel="year", ylabel="interactions")
    if "rating" in interactions.columns:
        last.hist(interactions["rating"].drop_nulls().clip(-LARGEST, LARGEST).to_numpy(), bins=30)
        last.set(title="ratings", xlabel="rating", ylabel="interactions")
    else:
        last.hist(dataset.items["title"].str.len_chars().to_numpy(), bins=30)
        last.set(title="titles", xlabel="characters", ylabel="items")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110, format="png")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; name another with --picture") from None


def _fitness(dataset: Dataset, split: SequenceSplit) -> list[str]:
    try:
        return check_fitness(dataset, split)
    except DataError as error:
        return [f"cannot be trained on: {error}"]


def _spread(values: pl.Series) -> str:
    if not len(values):
        return "none"
    least, middle, high, most = (int(values.quantile(at, "nearest") or 0) for at in QUANTILES)
    return f"median {middle:,}, 90 % up to {high:,} ({least:,} to {most:,})"


def _span(times: pl.Series) -> str:
    first, last = int(times.min()), int(times.max())  # type: ignore[arg-type]
    try:
        return " to ".join(f"{datetime.fromtimestamp(each, UTC):%Y-%m-%d}" for each in (first, last))
    except (ValueError, OverflowError, OSError):
        return f"{first:,} to {last:,} seconds since 1970"


def _ratings(interactions: pl.DataFrame) -> str:
    if "rating" not in interactions.columns:
        return "none"
    ratings = interactions["rating"].drop_nulls().to_numpy()
    share = _share(interactions["rating"].is_not_null())
    return f"{ratings.min():g} to {ratings.max():g}, mean {ratings.mean():.2f}, {share}"


def _categories(categories: pl.Series) -> str:
    names = categories.explode().drop_nulls().n_unique()
    return f"{_share(categories.list.len() > 0)}, {names:,} names"


def _share(is_so: pl.Series) -> str:
    return f"{float(is_so.to_numpy().mean()):.1%} have some"


def _rows(title: str, frame: pl.DataFrame) -> Table:
    table = Table(title=title, title_justify="left", show_lines=False, expand=False)
    for name in frame.columns:
        table.add_column(name, overflow="ellipsis", no_wrap=True, max_width=24)
    for row in frame.iter_rows():
        table.add_row(*(Text(", ".join(cell) if isinstance(cell, list) else str(cell)) for cell in row))
    return table
