"""What a person sees of an import: progress by bytes read, what was taken for what, and an account of every row."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from training.data.dataset import Dataset, Reading
from training.data.importing.importer import Import
from training.data.importing.ledger import Ledger


def run_import(planned: Import, console: Console) -> Dataset:
    """Run `planned`, show its progress and say what was read as what, and what became of the rows.

    Raises:
        DataError: the input cannot be used.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(f"Reading {planned.format}", total=planned.total_bytes)
        dataset, builder = planned.run(lambda read: progress.advance(task, read))
    for reading in dataset.info.readings:
        console.print(_reading(reading))
    for what, ledger in builder.joined.items():
        console.print(_account(what, ledger))
    console.print(_account("interactions", builder.interactions), _account("items", builder.items))
    print_warnings(dataset, console)
    return dataset


def print_warnings(dataset: Dataset, console: Console) -> None:
    """Say what may have been meant otherwise."""
    for warning in dataset.info.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


def _reading(reading: Reading) -> Table:
    table = Table(title=Text(f"{reading.file}: {reading.holds}"), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("read as", Text(reading.syntax))
    for what, how in reading.taken_for.items():
        table.add_row(Text(what), Text(how))
    for role, column in reading.columns.items():
        spelling = reading.values.get(role)
        table.add_row(role.replace("_", " "), Text(column + (f": {spelling}" if spelling else "")))
    for what, how in reading.values.items():
        if what not in reading.columns:
            table.add_row(Text(what), Text(how))
    for column in reading.not_taken:
        table.add_row("not taken", Text(column), style="yellow")
    return table


def _account(what: str, ledger: Ledger) -> Table:
    table = Table(title=what, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    tally = ledger.tally()
    table.add_row("read", f"{tally.read:,}", "")
    for reason, count in tally.skipped.items():
        table.add_row(f"bad: {reason}", f"{count:,}", Text(f"first: {ledger.examples[reason]}"))
    for reason, count in tally.dropped.items():
        table.add_row(Text(f"left out: {reason}"), f"{count:,}", "")
    table.add_row("kept", f"{tally.kept:,}", "")
    return table
