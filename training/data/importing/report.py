"""What a person sees of an import: progress by bytes read, then an account of every row."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.data.dataset import Dataset
from training.data.importing.importer import Import
from training.data.importing.ledger import Ledger


def run_import(planned: Import, console: Console) -> Dataset:
    """Run `planned`, show its progress and say what became of the rows.

    Raises:
        DataError: the input cannot be used.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(f"Reading {planned.format}", total=planned.total_bytes)
        dataset, builder = planned.run(lambda read: progress.advance(task, read))
    console.print(_account("interactions", builder.interactions), _account("items", builder.items))
    return dataset


def _account(what: str, ledger: Ledger) -> Table:
    table = Table(title=what, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    tally = ledger.tally()
    table.add_row("read", f"{tally.read:,}", "")
    for reason, count in tally.skipped.items():
        table.add_row(f"bad: {reason}", f"{count:,}", f"first: {ledger.examples[reason]}")
    for reason, count in tally.dropped.items():
        table.add_row(f"left out: {reason}", f"{count:,}", "")
    table.add_row("kept", f"{tally.kept:,}", "")
    return table
