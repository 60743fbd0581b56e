"""The account of input rows: none gets lost without a reason."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from models.errors import DataError
from training.data.dataset import Tally


class OnBadRow(StrEnum):
    """What to do with a row that cannot be used."""

    FAIL = "fail"
    SKIP = "skip"


class BadRowError(Exception):
    """One row cannot be used. Raised by parsers, turned into an error or a count by the `Ledger`.

    Args:
        reason: the same for all rows with this defect; rows are counted by it.
        detail: what is wrong with this one, and what to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Ledger:
    """Counts what becomes of the rows of one table.

    Args:
        on_bad_row: whether a bad row is an error or a count.

    Attributes:
        read: rows read so far, bad ones included.
        skipped: bad rows by reason.
        dropped: good rows that the settings leave out, by reason.
        examples: where the first bad row of each reason stands.
    """

    def __init__(self, on_bad_row: OnBadRow) -> None:
        self.on_bad_row = on_bad_row
        self.read = 0
        self.skipped: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def bad(self, place: str, error: BadRowError) -> None:
        """Count a bad row, or refuse it.

        Args:
            place: file and line.
            error: what is wrong.

        Raises:
            DataError: bad rows are errors.
        """
        if self.on_bad_row is OnBadRow.FAIL:
            raise DataError(f"{place}: {error.detail}; or pass --on-bad-row skip to leave such rows out and count them")
        self.skipped[error.reason] += 1
        self.examples.setdefault(error.reason, place)

    def drop(self, reason: str, rows: int) -> None:
        """Count good rows that a setting leaves out."""
        if rows:
            self.dropped[reason] += rows

    def tally(self) -> Tally:
        """The final account."""
        left_out = self.skipped.total() + self.dropped.total()
        return Tally(read=self.read, kept=self.read - left_out, skipped=dict(self.skipped), dropped=dict(self.dropped))
