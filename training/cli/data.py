"""`allmrec-train import`, `inspect`, `training-part` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.domain import DOMAINS
from models.errors import ConfigError, DataError
from models.files import written_atomically
from training.data.dataset import Dataset, check_replaceable
from training.data.demo.generate import DemoConfig, generate
from training.data.importing.columns import Columns
from training.data.importing.dialect import Quoting
from training.data.importing.importer import Format, ImportConfig, prepare
from training.data.importing.ledger import OnBadRow
from training.data.importing.report import run_import

app = typer.Typer(help="Make datasets.", no_args_is_help=True)
console = Console(stderr=True)

Out = Annotated[Path, typer.Option(help="The folder of the dataset; an older dataset there is replaced.")]
Column = Annotated[str | None, typer.Option(help="A column name; found by its usual names unless given.")]


@app.command("import")
def import_(  # noqa: PLR0917 - typer reads the options off the signature
    sources: Annotated[list[Path], typer.Argument(help="Files, or a folder that holds them.")],
    out: Out,
    format: Annotated[Format, typer.Option(help="What the sources are.")] = Format.AUTO,  # noqa: A002
    name: Annotated[str | None, typer.Option(help="The dataset's name in reports.")] = None,
    domain: Annotated[
        str | None, typer.Option(help=f"The prompt's wording: {', '.join(DOMAINS)}. Movie for MovieLens, else item.")
    ] = None,
    core: Annotated[
        int | None, typer.Option(min=1, help="Both of the next two. Amazon: 5, as in the paper; else 1.")
    ] = None,
    min_user_interactions: Annotated[
        int | None, typer.Option(min=1, help="Leave out users with fewer, repeatedly (k-core).")
    ] = None,
    min_item_interactions: Annotated[
        int | None, typer.Option(min=1, help="Leave out items with fewer, repeatedly (k-core).")
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Leave out interactions rated lower.")] = None,
    drop_repeats: Annotated[
        bool, typer.Option("--drop-repeats", help="Of a user's interactions with the same item keep only the first.")
    ] = False,
    drop_unseen_items: Annotated[
        bool | None,
        typer.Option(
            "--drop-unseen-items/--keep-unseen-items",
            help="Whether items without interactions leave the catalogue. Amazon: they do; else they stay, cold.",
        ),
    ] = None,
    on_bad_row: Annotated[
        OnBadRow, typer.Option(help="A row that cannot be used: an error, or left out and counted.")
    ] = OnBadRow.FAIL,
    encoding: Annotated[str | None, typer.Option(help="Of text files; told by their bytes unless given.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Of CSV files, such as ';' or tab; found in the header.")
    ] = None,
    quoting: Annotated[
        Quoting, typer.Option(help="Whether quotes hold a field together, or are part of the text.")
    ] = Quoting.AUTO,
    escape: Annotated[str | None, typer.Option(help="The character before a quote in a text, such as '\\'.")] = None,
    no_header: Annotated[bool, typer.Option("--no-header", help="The first line is a row; needs --columns.")] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="[FILE=]A,B,C", help="The column names of a file without header; once for each file."),
    ] = None,
    time_format: Annotated[str | None, typer.Option(help="How times are written, such as '%d/%m/%Y %H:%M'.")] = None,
    events: Annotated[str | None, typer.Option(help="Which kinds of events count, such as view,purchase.")] = None,
    user_column: Column = None,
    item_column: Column = None,
    time_column: Column = None,
    rating_column: Column = None,
    event_column: Column = None,
    order_column: Column = None,
    item_id_column: Column = None,
    title_column: Column = None,
    description_column: Column = None,
    categories_column: Column = None,
    categories_separator: Annotated[
        str | None, typer.Option(help="What parts the categories of an item; told by the column unless given.")
    ] = None,
) -> None:
    """Make a dataset from MovieLens, MIND, Amazon Reviews, RecBole, CSV, JSON or Parquet files."""
    check_replaceable(out)
    chosen = None if events is None else tuple(event.strip() for event in events.split(",") if event.strip())
    if chosen == ():
        raise ConfigError("--events names no event: give some, such as view,purchase, or leave it out")
    config = ImportConfig(
        sources=tuple(sources),
        format=format,
        name=name,
        domain=domain,
        on_bad_row=on_bad_row,
        min_user_interactions=min_user_interactions or core,
        min_item_interactions=min_item_interactions or core,
        min_rating=min_rating,
        drop_repeats=drop_repeats,
        drop_unseen_items=drop_unseen_items,
        encoding=encoding,
        delimiter=delimiter,
        quoting=quoting,
        escape=escape,
        no_header=no_header,
        names=tuple(columns or ()),
        time_format=time_format,
        events=chosen or (),
        columns=Columns(
            user=user_column,
            item=item_column,
            time=time_column,
            rating=rating_column,
            event=event_column,
            order=order_column,
            item_id=item_id_column,
            title=title_column,
            description=description_column,
            categories=categories_column,
            separator=categories_separator,
        ),
    )
    try:
        dataset = run_import(prepare(config), console)
        dataset.save(out)
    except KeyboardInterrupt:
        console.print(f"interrupted: nothing was written to {out}", markup=False, highlight=False)
        raise typer.Exit(130) from None
    _summarise(dataset, out)


@app.command()
def inspect(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset's folder.")],
    picture: Annotated[
        Path | None, typer.Option(help="Where to draw it as PNG; NAME.png in the working folder unless given.")
    ] = None,
) -> None:
    """Show what is in a dataset: counts, lengths, time span, what is cold, sample rows, and a picture."""
    from training.data.inspection import draw, inspect_dataset, show  # noqa: PLC0415 - it needs torch

    loaded = Dataset.load(dataset)
    show(loaded, inspect_dataset(loaded), console)
    path = picture or Path(f"{dataset.resolve().name}.png")
    draw(loaded, path)
    console.print(f"picture: {path}", markup=False, highlight=False, soft_wrap=True)


def training_part(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset's folder.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    by_time: Annotated[
        bool, typer.Option("--time-split", help="Without what came after the moment that `--time-split` splits at.")
    ] = False,
) -> None:
    """Write what backbones learn from, without what is held out: for another library, to import its vectors."""
    from polars.exceptions import PolarsError  # noqa: PLC0415

    from training.data.splits import SequenceSplit  # noqa: PLC0415 - it needs torch

    if out.resolve().parent == dataset.resolve():
        raise DataError(f"{out} is in the dataset's own folder: name a file elsewhere with --out")
    loaded = Dataset.load(dataset)
    frame = (SequenceSplit.by_time(loaded) if by_time else SequenceSplit.from_dataset(loaded)).training_frame()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(out) as partial:
            frame.write_parquet(partial)
    except (OSError, PolarsError) as error:
        raise DataError(f"{out} cannot be written: {error}; name another file with --out") from None
    console.print(f"{out}: {len(frame):,} interactions of {frame['user_id'].n_unique():,} users", highlight=False)


@app.command()
def demo(
    out: Out,
    users: Annotated[int, typer.Option(min=1, help="How many people.")] = DemoConfig().users,
    items: Annotated[int, typer.Option(min=100, max=10_000, help="How many movies.")] = DemoConfig().items,
    seed: Annotated[int, typer.Option(min=0, help="One seed, one world.")] = 0,
) -> None:
    """Make the demo world: movies and people that never were."""
    check_replaceable(out)
    dataset = generate(DemoConfig(users=users, items=items, seed=seed))
    dataset.save(out)
    _summarise(dataset, out)


def _summarise(dataset: Dataset, out: Path) -> None:
    info = dataset.info
    console.print(
        f"{out}: {info.users:,} users, {info.items.kept:,} items ({info.unseen_items:,} never interacted with),"
        f" {info.interactions.kept:,} interactions"
    )
