"""Whatever the input: every row is accounted for, and no error is a traceback."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.errors import AllmrecError
from training.data.dataset import Dataset, Tally
from training.data.importing.dialect import Quoting
from training.data.importing.importer import ImportConfig, prepare
from training.data.importing.ledger import OnBadRow

LETTERS = st.characters(codec="latin-1", exclude_categories=("Cc", "Cf"))
TEXTS = st.one_of(
    st.text(LETTERS, max_size=12),
    st.sampled_from(
        ['5" disk', '"quoted"', "a, b", "a; b|c", "two\nlines", "NULL", "\\N", "<b>x</b>", 'tail"', '"', "\\"]
    ),
)
CELLS = st.one_of(
    TEXTS,
    st.integers(-5, 10**18).map(str),
    st.floats().map(str),
    st.sampled_from(["", "nan", "2020-01-01", "20190131", "1.0", "1e+16", "27/10/2010", "3", "u1", "i1", "0001"]),
)
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS, TEXTS), min_size=1, max_size=25)
HEADER = ("user", "item", "time", "rating", "title")
SOUND = ("u0", "i0", "7", "3", "Sound")
"""Ends every table, so that something is left and the account is looked at."""


def balanced(tally: Tally) -> bool:
    return tally.read == tally.kept + sum(tally.skipped.values()) + sum(tally.dropped.values())


def is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def imported(path: Path, **options: Any) -> Dataset | str:
    """The dataset, or why there is none; it can be saved and loaded."""
    try:
        dataset, builder = prepare(ImportConfig(sources=(path,), on_bad_row=OnBadRow.SKIP, **options)).run()
    except AllmrecError as error:
        return str(error)
    assert balanced(dataset.info.interactions)
    assert balanced(dataset.info.items)
    assert dataset.info.interactions.kept == len(dataset.interactions)
    assert dataset.info.items.kept == len(dataset.items)
    assert set(builder.interactions.examples) == set(dataset.info.interactions.skipped)
    dataset.save(path.parent / "out")
    Dataset.load(path.parent / "out")
    return dataset


@settings(max_examples=150, deadline=None)
@given(
    rows=ROWS,
    delimiter=st.sampled_from([",", "\t", ";", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_sound_tables_are_read_row_by_row(
    rows: list[tuple[str, ...]], delimiter: str, quoting: Any, encoding: str, line_end: str
) -> None:
    """What Python's writer wrote, whatever its settings: exactly its rows are read.

    Nobody can tell Latin-1 whose lines are UTF-8 by chance, as those with the bytes of `\u00c2\u00a0` are.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerows([HEADER, *rows, SOUND])
    content = buffer.getvalue().encode(encoding)
    assume(encoding != "latin-1" or not any(is_utf8(line) for line in content.split(b"\n") if not line.isascii()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_bytes(content)
        dataset = imported(path, delimiter=delimiter, quoting=Quoting.DOUBLE)
        if isinstance(dataset, Dataset):
            assert dataset.info.interactions.read == len(rows) + 1
            assert "broken quote" not in dataset.info.interactions.skipped


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.lists(CELLS.map(lambda cell: cell.replace("\n", " ")), min_size=1, max_size=7), max_size=30),
    delimiter=st.sampled_from([",", "\t", ";", "|"]),
    quoting=st.sampled_from(list(Quoting)),
)
def test_torn_tables_are_accounted_for_line_by_line(lines: list[list[str]], delimiter: str, quoting: Quoting) -> None:
    """Cells glued together with no regard to quotes: no row is lost, nor is one read twice.

    A quoted field may well span lines here, so the rows read are at most the lines, and exactly these without quotes.
    """
    body = [delimiter.join(cells) for cells in (*lines, SOUND)]
    text = "\n".join([delimiter.join(HEADER), *body])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_text(text, encoding="utf-8", newline="\n")
        dataset = imported(path, delimiter=delimiter, quoting=quoting)
        if isinstance(dataset, Dataset):
            filled = sum(bool(line.strip(" \r")) for line in body)
            assert dataset.info.interactions.read <= filled
            if '"' not in text or quoting is Quoting.NONE:
                assert dataset.info.interactions.read == filled


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, places=st.sets(st.integers(0, 24)))
def test_every_open_quote_costs_one_row(rows: list[tuple[str, ...]], places: set[int]) -> None:
    """In a table without other quotes, a quote that opens a title is never closed: each costs its row."""
    plain = [[cell.translate(str.maketrans('",\n\r\\', "     ")) for cell in row] for row in rows]
    broken = sorted(place for place in places if place < len(plain))
    for place in broken:
        plain[place][4] = f'"{plain[place][4].strip()}x'
    text = "\n".join(",".join(row) for row in [HEADER, *plain, SOUND])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        path.write_text(text, encoding="utf-8", newline="\n")
        dataset = imported(path, delimiter=",", quoting=Quoting.DOUBLE)
        if isinstance(dataset, Dataset):
            assert dataset.info.interactions.read == len(rows) + 1
            assert dataset.info.interactions.skipped.get("broken quote", 0) == len(broken)


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["\ud83d", "u"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(HEADER), JSON_VALUES), min_size=1, max_size=15),
    as_array=st.booleans(),
)
def test_json_of_any_values_is_accounted_for(rows: list[dict[str, Any]], as_array: bool) -> None:
    rows = [*rows, dict(zip(HEADER, SOUND, strict=True))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.json"
        text = json.dumps(rows, indent=1) if as_array else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
        dataset = imported(path)
        if isinstance(dataset, Dataset):
            assert dataset.info.interactions.read == len(rows)


COLUMNS = st.sampled_from(
    [
        ["u", None, "w"],
        [1, 2, None],
        [1.0, 2.5, float("nan")],
        [b"u", b"\xff", None],
        [True, None, False],
        [["a"], [], None],
        [[["a"], ["b"]], None, []],
        [{"name": "x"}, {"name": None}, None],
        [None, None, None],
    ]
)


@settings(max_examples=80, deadline=None)
@given(columns=st.tuples(*[COLUMNS] * 5))
def test_parquet_of_any_types_is_accounted_for(columns: tuple[list[Any], ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        pl.DataFrame(dict(zip(HEADER, columns, strict=True))).write_parquet(path)
        dataset = imported(path)
        if isinstance(dataset, Dataset):
            assert dataset.info.interactions.read == 3


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300), name=st.sampled_from(["x.csv", "x.json", "x.parquet", "x.csv.gz", "x.zip"]))
def test_no_bytes_lead_to_a_traceback(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        assert imported(path)
