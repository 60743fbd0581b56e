"""Bad input: an error that names file, line and remedy, or a count; never a traceback, never silent loss."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from models.errors import ConfigError, DataError
from training.cli.data import app
from training.data.dataset import Dataset
from training.data.importing.builder import DatasetBuilder
from training.data.importing.importer import ImportConfig, prepare
from training.data.importing.ledger import OnBadRow

INTERACTIONS = "user,item,time,rating\nu,a,1,5\nu,b,2,4\nv,a,3,3\n"
ITEMS = "item,title\na,A\nb,B\n"


def imported(*sources: Path, **settings: Any) -> tuple[Dataset, DatasetBuilder]:
    return prepare(ImportConfig(sources=sources, **settings)).run()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "interactions.csv").write_text(INTERACTIONS)
    (tmp_path / "items.csv").write_text(ITEMS)
    return tmp_path


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ("u,b,nan,4", "missing time", "the time is missing"),
        ("u,b,,4", "missing time", "the time is missing"),
        ("u,b,soon,4", "unparsable time", "'soon' is neither a number of seconds nor ISO 8601"),
        ("u,b,inf,4", "unparsable time", "'inf'"),
        ("u,b,2,four", "unparsable rating", "'four' is not a number"),
        (" ,b,2,4", "missing user id", "user id is missing"),
        ("u,,2,4", "missing item id", "item id is missing"),
        ("u,b,2", "wrong number of columns", "3 columns where the header has 4"),
        ("u,b,2,4,5", "wrong number of columns", "5 columns where the header has 4"),
        ("u,zzz,2,4", "unknown item", "'zzz' is not among the items"),
    ],
)
def test_a_bad_interaction_is_an_error_or_a_count(folder: Path, row: str, reason: str, detail: str) -> None:
    """The bad row stands on line 3, between two good ones."""
    lines = INTERACTIONS.splitlines()
    text = "\n".join([*lines[:2], row, lines[3]]) + "\n"
    (folder / "interactions.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        imported(folder)
    assert f"{folder / 'interactions.csv'}, line 3: " in str(caught.value)
    assert detail in str(caught.value)
    assert "--on-bad-row skip" in str(caught.value)

    dataset, builder = imported(folder, on_bad_row=OnBadRow.SKIP)
    tally = dataset.info.interactions
    assert (tally.read, tally.kept, tally.skipped) == (3, 2, {reason: 1})
    assert builder.interactions.examples[reason] == f"{folder / 'interactions.csv'}, line 3"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("c,", "empty title"),
        ("c,   ", "empty title"),
        (",C", "missing item id"),
        ("a,Another A", "item id twice"),
    ],
)
def test_a_bad_item_is_an_error_or_a_count(folder: Path, row: str, reason: str) -> None:
    (folder / "items.csv").write_text(ITEMS + row + "\n")
    with pytest.raises(DataError, match=r"items\.csv, line 4: "):
        imported(folder)
    dataset, _ = imported(folder, on_bad_row=OnBadRow.SKIP)
    assert dataset.info.items.skipped == {reason: 1}
    assert dataset.items["title"].to_list() == ["A", "B"]


def test_interactions_with_a_skipped_item_say_so(folder: Path) -> None:
    (folder / "items.csv").write_text("item,title\na,A\nb,\n")
    dataset, _ = imported(folder, on_bad_row=OnBadRow.SKIP)
    assert dataset.info.interactions.skipped == {"item without usable text": 1}


@pytest.mark.parametrize("policy", OnBadRow)
def test_an_item_has_the_first_title_of_its_rows(tmp_path: Path, policy: OnBadRow) -> None:
    """A row without title is an interaction like any other, as long as another row of its item has one."""
    table = tmp_path / "events.csv"
    table.write_text("user,item,time,title\nu,a,1,\nu,b,2,B\nv,a,3,A\nv,b,4,  \nw,a,5,A too\n")
    dataset, _ = imported(table, on_bad_row=policy)
    assert dict(dataset.items.select("item_id", "title").rows()) == {"a": "A", "b": "B"}
    assert dataset.info.interactions.kept == 5
    assert [warning for warning in dataset.info.warnings if "1 rows have another title" in warning]


def test_titles_may_stand_in_another_file_or_at_another_event(tmp_path: Path) -> None:
    """In whatever order files are given; what is not chosen brings no item along."""
    (tmp_path / "a.csv").write_text("user,item,time,event,title\nu,a,1,view,\nu,b,2,view,B\n")
    (tmp_path / "b.csv").write_text("user,item,time,event,title\nv,a,3,buy,A\nv,b,4,view,\nv,c,5,buy,C\n")
    for files in (["a.csv", "b.csv"], ["b.csv", "a.csv"]):
        dataset, _ = imported(*(tmp_path / name for name in files), events=("view",))
        assert dict(dataset.items.select("item_id", "title").rows()) == {"a": "A", "b": "B"}
        assert dataset.info.interactions.kept == 3
        assert not any("another title" in warning for warning in dataset.info.warnings)


def test_other_titles_in_another_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,time,title\nu,a,1,A\n")
    (tmp_path / "b.csv").write_text("user,item,time,title\nv,a,3,Other\nv,a,4,\n")
    dataset, _ = imported(tmp_path / "a.csv", tmp_path / "b.csv")
    assert any("b.csv: 1 rows have another title" in warning for warning in dataset.info.warnings)


def test_an_item_without_title_in_any_row_is_told_at_its_first(tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("user,item,time,title\nu,a,1,A\nu,b,2,\nv,b,3,\nv,a,4,A\n")
    with pytest.raises(DataError, match=r"events\.csv, line 3: item 'b' has an empty title"):
        imported(table)
    dataset, _ = imported(table, on_bad_row=OnBadRow.SKIP)
    assert dataset.info.interactions.skipped == {"empty title": 2}


def test_an_item_that_says_the_same_twice_is_no_error(folder: Path) -> None:
    (folder / "items.csv").write_text(ITEMS + "a,A\n")
    dataset, _ = imported(folder)
    assert dataset.info.items.dropped == {"repeated item": 1}
    assert (dataset.info.items.read, dataset.info.items.kept) == (3, 2)


def test_a_missing_rating_is_bad_only_where_it_is_needed(folder: Path) -> None:
    (folder / "interactions.csv").write_text(INTERACTIONS + "v,b,9,\n")
    assert imported(folder)[0].interactions["rating"].to_list() == [5.0, 4.0, 3.0, None]
    with pytest.raises(DataError, match="line 5: the rating is missing"):
        imported(folder, min_rating=1)


def test_lines_are_counted_through_quoted_line_ends(folder: Path) -> None:
    """The item on lines 2 and 3 is one row, so the bad one stands on line 4."""
    (folder / "items.csv").write_text('item,title\na,"A\nA"\nb,\n')
    with pytest.raises(DataError, match=r"items\.csv, line 4: item 'b' has an empty title"):
        imported(folder)


def test_an_open_quote_is_reported_at_its_row(folder: Path) -> None:
    """The quote swallows the rest of a long file, up to the reader's limit."""
    rows = "".join(f"u,a,{moment},1\n" for moment in range(20_000))
    (folder / "interactions.csv").write_text('user,item,time,rating\nu,"a,1,5\n' + rows)
    with pytest.raises(DataError, match=r"interactions\.csv, line 2: a quote in this row is never closed"):
        imported(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "items.csv is empty"),
        (b"item,name of it\na,A\n", "items.csv has item, name of it"),
    ],
)
def test_an_unusable_items_file_is_named(folder: Path, content: bytes, message: str) -> None:
    items = folder / "items.csv"
    items.write_bytes(content)
    with pytest.raises(DataError) as caught:
        imported(folder / "interactions.csv", items)
    assert message in str(caught.value)


def test_a_missing_column_lists_those_there_are(folder: Path) -> None:
    (folder / "items.csv").unlink()
    with pytest.raises(DataError, match=r"no title column was recognised.*--title-column.*user, item, time, rating"):
        imported(folder)


def test_a_named_column_must_exist(folder: Path) -> None:
    result = CliRunner().invoke(app, ["import", str(folder), "--out", str(folder / "out"), "--time-column", "when"])
    assert isinstance(result.exception, DataError)
    assert "column 'when' is missing; name the right one with --time-column" in str(result.exception)


def test_no_interactions_table_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="no file holds interactions"):
        imported(folder / "items.csv")


def test_an_ambiguous_folder_asks_for_a_list(folder: Path) -> None:
    (folder / "more.csv").write_text(INTERACTIONS)
    with pytest.raises(DataError, match=r"several files of interactions \(interactions\.csv, more\.csv\)"):
        imported(folder)


def test_other_tables_in_a_folder_are_passed_over(folder: Path) -> None:
    (folder / "people.csv").write_text("user,age\nu,30\n")
    assert imported(folder)[0].info.sources == ("interactions.csv", "items.csv")


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        imported(tmp_path / "nowhere")


def test_a_folder_without_data_lists_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"\.parquet"):
        imported(tmp_path)


def test_header_only_leaves_nothing(folder: Path) -> None:
    (folder / "interactions.csv").write_text("user,item,time\n")
    with pytest.raises(DataError, match=r"interactions\.csv: there are no rows of interactions"):
        imported(folder)


def test_a_damaged_parquet_file_is_named(folder: Path) -> None:
    bad = folder / "x.parquet"
    bad.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as Parquet"):
        imported(bad)


def test_a_bad_parquet_row_has_a_number(tmp_path: Path) -> None:
    pl.DataFrame({"user": ["u", None], "item": ["a", "a"]}).write_parquet(tmp_path / "i.parquet")
    pl.DataFrame({"item": ["a"], "title": ["A"]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"i\.parquet, row 2: the user id is missing"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"domain": "film"}, "choose one of item, movie"),
        ({"encoding": "klingon"}, "name another, such as latin-1"),
        ({"delimiter": "ab"}, "give one character"),
    ],
)
def test_an_unusable_setting_is_refused_before_reading(folder: Path, setting: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        imported(folder, **setting)


def test_an_endless_header_is_an_error(folder: Path) -> None:
    (folder / "items.csv").write_bytes(b"x" * 200_000)
    with pytest.raises(DataError, match=r"items\.csv, line 1: no header can be read"):
        imported(folder)


class TestAmazon:
    """JSON lines."""

    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Path, Path]:
        rows = [
            {"reviewerID": f"u{n}", "asin": "a", "overall": 5, "unixReviewTime": n, "reviewText": f"{random.random()}"}
            for n in range(2000)
        ]
        reviews, metadata = tmp_path / "r.json.gz", tmp_path / "meta_r.json.gz"
        reviews.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        metadata.write_bytes(gzip.compress(b'{"asin": "a", "title": "A"}\n'))
        return reviews, metadata

    def test_a_truncated_gzip_is_an_error_even_when_rows_are_skipped(self, pair: tuple[Path, Path]) -> None:
        """A file cut short has lost rows that nobody can count."""
        reviews, _ = pair
        content = reviews.read_bytes()
        reviews.write_bytes(content[: len(content) // 2])
        for policy in OnBadRow:
            with pytest.raises(DataError, match=r"r\.json\.gz, after line \d+: the gzip stream is cut short"):
                imported(*pair, on_bad_row=policy)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (b'{"reviewerID": "u"', "broken JSON"),
            (b"[1, 2]", "broken JSON"),
            (b"\xff\xfe{}", "wrong encoding"),
            (b'{"reviewerID": "\xff"}', "wrong encoding"),
            (b'{"reviewerID": "u", "asin": "a", "overall": 5, "unixReviewTime": NaN}', "missing time"),
            (b'{"reviewerID": "u", "asin": "a", "overall": 5}', "missing time"),
            (b'{"asin": "a", "overall": 5, "unixReviewTime": 1}', "missing user id"),
            (b'{"reviewerID": {"x": 1}, "asin": "b", "overall": 5, "unixReviewTime": 1}', "unknown item"),
            (b"[" * 100_000, "broken JSON"),
        ],
    )
    def test_a_bad_line_is_an_error_or_a_count(self, pair: tuple[Path, Path], line: bytes, reason: str) -> None:
        reviews, _ = pair
        reviews.write_bytes(gzip.compress(gzip.decompress(reviews.read_bytes()) + line + b"\n"))
        with pytest.raises(DataError, match=r"r\.json\.gz, line 2001: "):
            imported(*pair)
        dataset, _ = imported(*pair, on_bad_row=OnBadRow.SKIP, min_user_interactions=1, min_item_interactions=1)
        assert dataset.info.interactions.skipped == {reason: 1}
        assert dataset.info.interactions.kept == 2000

    def test_a_pair_without_metadata_is_an_error(self, pair: tuple[Path, Path]) -> None:
        with pytest.raises(DataError, match="no file of metadata"):
            imported(pair[0])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"u,a,1,5", b"v,b,2,", b'w,"a\n",1,1']))))
def test_no_input_is_lost_or_leads_to_a_traceback(tmp_path: Path, lines: list[bytes]) -> None:
    """Whatever the bytes, every row read is kept, skipped or dropped, or the import is refused as a whole."""
    (tmp_path / "interactions.csv").write_bytes(b"user,item,time,rating\n" + b"\n".join(lines))
    (tmp_path / "items.csv").write_text(ITEMS)
    try:
        dataset, _ = imported(tmp_path, on_bad_row=OnBadRow.SKIP)
    except DataError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        reasons = ("no interactions are left", "no rows of interactions", "is a binary file", "not Latin-1")
        assert any(reason in refusal for reason in reasons)
        return
    tally = dataset.info.interactions
    assert tally.kept == len(dataset.interactions) > 0
    assert tally.read == tally.kept + sum(tally.skipped.values()) + sum(tally.dropped.values())
