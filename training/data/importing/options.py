"""What an import may be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from models.config import Config
from models.domain import DOMAINS
from models.errors import ConfigError
from training.data.importing.columns import Columns
from training.data.importing.dialect import Quoting, Wished
from training.data.importing.ledger import OnBadRow
from training.data.importing.text import check_encoding
from training.data.importing.times import check_format

SPELLED_DELIMITERS = {"\\t": "\t", "tab": "\t"}
"""What shells make of a tab."""


class Format(StrEnum):
    """What the sources are; `auto` looks at names, contents and columns."""

    AUTO = "auto"
    MOVIELENS = "movielens"
    MIND = "mind"
    AMAZON = "amazon"
    RECBOLE = "recbole"
    CSV = "csv"
    JSON = "json"
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
        encoding: of text files; told by their bytes where None.
        delimiter: of delimited text; told by the header where None.
        quoting: whether quotes hold a field together there; told by the first rows where `auto`.
        escape: what takes the meaning of the next character there; told by the first rows where None.
        no_header: delimited files begin with their first row, and `names` names the columns.
        names: `a,b,c` or `FILE=a,b,c`; without a file's name it is for the files with as many columns.
        time_format: of `strptime`; told by the column where None.
        events: which kinds of events are interactions; all where empty.
        columns: which columns hold what.
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
    quoting: Quoting = Quoting.AUTO
    escape: str | None = None
    no_header: bool = False
    names: tuple[str, ...] = ()
    time_format: str | None = None
    events: tuple[str, ...] = ()
    columns: Columns = Columns()

    @property
    def wished(self) -> Wished:
        """What is said about the dialect."""
        return Wished(SPELLED_DELIMITERS.get(self.delimiter or "", self.delimiter), self.quoting, self.escape)

    def check(self) -> None:
        """Refuse what no file could satisfy.

        Raises:
            ConfigError: a setting is none, or two contradict each other.
        """
        if self.domain is not None and self.domain not in DOMAINS:
            raise ConfigError(f"domain {self.domain!r} is unknown: choose one of {', '.join(DOMAINS)}")
        if self.no_header != bool(self.names):
            raise ConfigError("--no-header and --columns go together: give both, or leave both out")
        if self.columns.event is not None and not self.events:
            raise ConfigError("--event-column does not say which events to take: name them with --events")
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ConfigError(f"--min-rating {self.min_rating:g} keeps nothing: give a number")
        self.wished.check()
        check_encoding(self.encoding)
        check_format(self.time_format)


class ImportConfig(ImportOptions):
    """One import.

    Attributes:
        sources: files, or one folder that holds them.
    """

    sources: tuple[Path, ...] = Field(min_length=1)


def given_flags(options: ImportOptions) -> dict[str, str]:
    """The settings about reading that are not left to the default: what they are about, and their option.

    Only these can fail to apply; filters always do.
    """
    told = {
        "encoding": (options.encoding, "--encoding"),
        "delimiter": (options.delimiter, "--delimiter"),
        "quoting": (None if options.quoting is Quoting.AUTO else options.quoting, "--quoting"),
        "escape": (options.escape, "--escape"),
        "names": (options.names or None, "--no-header --columns"),
        "time_format": (options.time_format, "--time-format"),
        "events": (options.events or None, "--events"),
        "separator": (options.columns.separator, "--categories-separator"),
    }
    told |= {
        role: (getattr(options.columns, role), f"--{role.replace('_', '-')}-column")
        for role in Columns.model_fields
        if role != "separator"
    }
    return {about: option for about, (value, option) in told.items() if value is not None}


def names_for(options: ImportOptions, file: str, width: int) -> list[str]:
    """The column names that `--columns` gives a file.

    Args:
        options: hold them.
        file: the file's name.
        width: its number of columns.

    Raises:
        ConfigError: none or several are meant for it.
    """
    lists: list[tuple[str, Sequence[str]]] = []
    for entry in options.names:
        meant, sign, names = entry.rpartition("=")
        lists.append((meant if sign else "", [name.strip() for name in names.split(",")]))
    named = [list(names) for meant, names in lists if meant and meant.lower() == file.lower()]
    fitting = named or [list(names) for meant, names in lists if not meant and len(names) == width]
    if not named and len(lists) == 1 and not lists[0][0]:
        fitting = [list(lists[0][1])]
    if len(fitting) != 1:
        raise ConfigError(
            f"{file} has {width} columns, and {len(fitting) or 'none'} of the --columns given are for it:"
            f" give --columns {file}={','.join(f'name{place}' for place in range(1, min(width, 3) + 1))}"
            f"{',...' if width > 3 else ''}"
        )
    return fitting[0]
