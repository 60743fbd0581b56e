"""RecBole's atomic files: tab separated, with a header of `name:type`."""

from __future__ import annotations

import re

from training.data.importing.delimited import DelimitedTable
from training.data.importing.dialect import Quoting, Wished
from training.data.importing.source import Source

TYPED_NAME = re.compile(r"[^:\t]+:(?:token|token_seq|float|float_seq)")
SEPARATOR = " "


def is_atomic(header: str) -> bool:
    """Whether a first line names columns with RecBole's types."""
    names = header.strip("\r\n").split("\t")
    return all(TYPED_NAME.fullmatch(name.strip()) for name in names)


class AtomicTable(DelimitedTable):
    """An atomic file; its columns go by their names without the type. Names in a `token_seq` are parted by spaces.

    Args:
        source: the file.
        encoding: None tells it by the bytes.

    Attributes:
        lists: columns with several names a cell.
    """

    syntax = "RecBole atomic file"

    def __init__(self, source: Source, encoding: str | None) -> None:
        super().__init__(source, encoding, Wished("\t", Quoting.NONE))
        typed = [name.rpartition(":") for name in self.header]
        self.header = tuple(name for name, _, _ in typed)
        self.lists = {name for name, _, kind in typed if kind.strip() == "token_seq"}

    def separator(self, column: str | None) -> str:
        """What parts the names in a column; nothing parts what is one."""
        return SEPARATOR if column in self.lists else ""
