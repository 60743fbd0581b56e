"""Messy files of common kinds: each is read right, or refused with file, line and the flag that helps."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from backports import zstd

from models.errors import ConfigError, DataError
from models.identifiers import MAX_ID_LENGTH
from training.data.dataset import Dataset
from training.data.importing.columns import Columns
from training.data.importing.dialect import Quoting
from training.data.importing.importer import Format, ImportConfig, prepare
from training.data.importing.ledger import OnBadRow

CLICKS = "user_id,item_id,timestamp\nu,a,1\nu,b,2\nv,a,3\n"
ITEMS = "item_id,title\na,Apple\nb,Banana\n"


def imported(*sources: Path, **settings: Any) -> Dataset:
    dataset, builder = prepare(ImportConfig(sources=sources, **settings)).run()
    for tally in (builder.interactions.tally(), builder.items.tally()):
        assert tally.read == tally.kept + sum(tally.skipped.values()) + sum(tally.dropped.values())
    assert dataset.info.interactions.kept == len(dataset.interactions)
    assert dataset.info.items.kept == len(dataset.items)
    return dataset


def skipped(*sources: Path, **settings: Any) -> Dataset:
    return imported(*sources, on_bad_row=OnBadRow.SKIP, **settings)


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def items(tmp_path: Path) -> Path:
    return put(tmp_path / "items.csv", ITEMS)


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    return put(tmp_path / "clicks.csv", CLICKS)


def titles(dataset: Dataset) -> list[str]:
    return dataset.items["title"].to_list()


def times(dataset: Dataset) -> list[int]:
    return dataset.interactions["timestamp"].to_list()


class TestQuotes:
    """D1, D2: a broken quote costs its own row at most."""

    @pytest.mark.parametrize("at", [10, 7000])
    def test_an_open_quote_costs_one_row_wherever_it_stands(self, tmp_path: Path, at: int) -> None:
        """10 is in the first block of the file, 7,000 far behind it."""
        rows = [f"user{n},i{n % 7},Thing number {n % 7}{'.' * 150},{n}" for n in range(9000)]
        rows[at] = f'user{at},i1,"Thing,{at}'
        table = put(tmp_path / "log.csv", "user,item,title,time\n" + "\n".join(rows) + "\n")
        tally = skipped(table).info.interactions
        assert (tally.read, tally.kept, tally.skipped) == (9000, 8999, {"broken quote": 1})
        with pytest.raises(DataError, match=rf"line {at + 2}: a quote in this row .*--quoting none.*--escape"):
            imported(table)

    def test_two_open_quotes_do_not_close_each_other(self, tmp_path: Path) -> None:
        """The quotes of rows 3 and 5 would make one field of three rows."""
        rows = [f"u{n},i{n},Thing {n},{n}" for n in range(8)]
        rows[3], rows[5] = 'u3,i3,"Thing 3,3', 'u5,i5,Thing 5",5'
        table = put(tmp_path / "log.csv", "user,item,title,time\n" + "\n".join(rows) + "\n")
        tally = skipped(table).info.interactions
        assert (tally.read, tally.kept) == (8, 7)

    def test_quotes_are_text_where_tabs_part_the_columns(self, tmp_path: Path, clicks: Path) -> None:
        news = put(tmp_path / "news.tsv", 'item_id\ttitle\tcategory\na\t"Best day, says mayor\tnews\nb\t"Odd" one\tx\n')
        dataset = imported(clicks, news)
        assert titles(dataset) == ['"Best day, says mayor', '"Odd" one']
        assert dataset.info.readings[0].taken_for["quoting"] == "none, quotes are text"

    def test_quoting_can_be_turned_off(self, tmp_path: Path, clicks: Path) -> None:
        table = put(tmp_path / "t.csv", 'item_id,title\na,"Apple"\nb,Banana\n')
        assert titles(imported(clicks, table)) == ["Apple", "Banana"]
        assert titles(imported(clicks, table, quoting=Quoting.NONE)) == ['"Apple"', "Banana"]

    def test_backslashes_that_escape_quotes_are_found(self, tmp_path: Path, clicks: Path) -> None:
        table = put(tmp_path / "t.csv", '"item_id";"title"\n"a";"The \\"Great\\"; a book"\n"b";"Banana"\n')
        put(clicks, CLICKS.replace(",", ";"))
        assert titles(imported(clicks, table)) == ['The "Great"; a book', "Banana"]
        assert titles(imported(clicks, table, escape="\\")) == ['The "Great"; a book', "Banana"]

    def test_a_text_over_many_lines_is_one_row(self, tmp_path: Path, clicks: Path) -> None:
        story = "\n".join(f"line {n}, and more" for n in range(300))
        table = put(tmp_path / "t.csv", f'item_id,title,description\na,Apple,"{story}"\nb,Banana,""\n')
        dataset = imported(clicks, table)
        assert dataset.info.items.read == 2
        assert dataset.items["description"][0].startswith("line 0, and more line 1, and more")


class TestParquet:
    """D3: columns of any type are decoded, or refused by name."""

    def write(self, folder: Path, **columns: Any) -> Path:
        path = folder / "clicks.parquet"
        pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]} | columns).write_parquet(path)
        return path

    def test_binary_text_is_decoded(self, tmp_path: Path, items: Path) -> None:
        dataset = imported(self.write(tmp_path, user_id=[b"u1", "ü".encode()]), items)
        assert dataset.interactions["user_id"].to_list() == ["u1", "ü"]

    def test_sixteen_bytes_are_a_uuid(self, tmp_path: Path, items: Path) -> None:
        raw = [bytes([0xFF, *range(15)]), bytes([0xFE, *range(15)])]
        users = imported(self.write(tmp_path, user_id=raw), items).interactions["user_id"]
        assert users.to_list() == ["fe000102-0304-0506-0708-090a0b0c0d0e", "ff000102-0304-0506-0708-090a0b0c0d0e"]

    @pytest.mark.parametrize(
        ("column", "values", "message"),
        [
            ("user_id", [b"\xff", b"\xfe\xff"], "column user_id is binary and neither UTF-8 nor UUIDs"),
            ("user_id", [["u"], ["v"]], r"column user_id is of type List.*--user-column"),
            ("item_id", [{"x": "a"}, {"x": "b"}], r"column item_id is of type Struct.*--item-id-column"),
            ("timestamp", [True, False], r"column timestamp is of type Boolean.*--time-column"),
            ("user_id", [1e16, 2e16], "lost digits"),
            ("user_id", [1.5, 2.0], "is the number 1.5, which is no id"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(
        self, tmp_path: Path, items: Path, column: str, values: Any, message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            imported(self.write(tmp_path, **{column: values}), items)

    def test_floats_decimals_and_categoricals_are_ids(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"user_id": [10.0, None], "item_id": ["7", "8"], "title": ["A", "B"]}).with_columns(
            pl.col("item_id").cast(pl.Decimal(10, 2)), pl.col("title").cast(pl.Categorical)
        )
        frame.write_parquet(tmp_path / "i.parquet")
        dataset = skipped(tmp_path / "i.parquet")
        assert dataset.interactions.select("user_id", "item_id").rows() == [("10", "7")]
        assert dataset.info.interactions.skipped == {"missing user id": 1}

    def test_zoned_times_and_objects_with_a_name(self, tmp_path: Path) -> None:
        zoned = pl.Series(["2020-01-01 02:00", "2020-01-01 03:00"]).str.to_datetime(time_zone="Europe/Berlin")
        kinds = [[{"id": 1, "name": "Fruit"}], [{"id": 2, "name": "Sweet"}, {"id": 1, "name": "Fruit"}]]
        table = self.write(tmp_path, timestamp=zoned, title=["A", "B"], categories=kinds)
        dataset = imported(table)
        assert times(dataset) == [1577840400, 1577844000]
        assert dataset.items["categories"].to_list() == [["Fruit"], ["Sweet", "Fruit"]]

    def test_objects_without_a_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="column genres holds objects without a name, with code"):
            imported(self.write(tmp_path, title=["A", "B"], genres=[{"code": 1}, {"code": 2}]))


class TestIds:
    """D4, D5, D8, D17."""

    def test_ids_that_a_float_column_bent_are_straightened(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user_id,item_id,ts\n1.0,10,1\n2.0,11,2\n")
        other = put(tmp_path / "i.csv", "item_id,title\n10.0,A\n11.0,B\n")
        assert imported(table, other).interactions.rows() == [("1", "10", 1), ("2", "11", 2)]

    def test_versions_are_no_bent_ids(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user_id,item_id,title,ts\nu,1.0,One,1\nu,1.1,Two,2\n")
        assert imported(table).items["item_id"].to_list() == ["1.0", "1.1"]

    @pytest.mark.parametrize("word", ["", "NULL", "\\N", "nan", "NaN", "None", "<NA>", "\u200b", "\u3164"])
    def test_words_for_nothing_and_invisible_ids_are_missing(self, tmp_path: Path, items: Path, word: str) -> None:
        dataset = skipped(put(tmp_path / "c.csv", CLICKS + f"{word},a,4\n"), items)
        assert dataset.info.interactions.skipped == {"missing user id": 1}

    def test_ids_end_where_the_service_ends_them(self, tmp_path: Path, items: Path) -> None:
        longest = "x" * MAX_ID_LENGTH
        dataset = skipped(put(tmp_path / "c.csv", CLICKS + f"{longest},a,4\n{longest}x,a,5\n"), items)
        assert longest in dataset.interactions["user_id"]
        assert dataset.info.interactions.skipped == {"long user id": 1}

    def test_half_characters_are_replaced_in_texts_and_refused_in_ids(self, tmp_path: Path) -> None:
        put(tmp_path / "meta.jsonl", '{"id":"a","title":"Mug \\ud83d"}\n{"id":"\\ud83d","title":"Cup"}\n')
        put(tmp_path / "clicks.jsonl", '{"user_id":"u","item_id":"a","ts":1}\n')
        dataset = skipped(tmp_path / "clicks.jsonl", tmp_path / "meta.jsonl")
        assert titles(dataset) == ["Mug \ufffd"]
        assert dataset.info.items.skipped == {"broken item id": 1}
        dataset.save(tmp_path / "out")


class TestLists:
    """D6: categories in any spelling."""

    @pytest.mark.parametrize(
        ("spellings", "expected"),
        [
            (["['Action', 'Indie']", "['Casual']"], [["Action", "Indie"], ["Casual"]]),
            (['["Action"]', "[]"], [["Action"], []]),
            (["[{'id': 28, 'name': 'Action'}]", "Action, Indie"], [["Action"], ["Action", "Indie"]]),
            (["Action|Indie", "Casual"], [["Action", "Indie"], ["Casual"]]),
            (["Action, Drama", "Drama"], [["Action", "Drama"], ["Drama"]]),
            (["Action;Drama", "Drama"], [["Action", "Drama"], ["Drama"]]),
            (["Home > Kitchen", "Home"], [["Home", "Kitchen"], ["Home"]]),
            (["Clothing, Shoes & Jewelry", "Books"], [["Clothing, Shoes & Jewelry"], ["Books"]]),
            (["Rock &amp; Roll|Pop", "(no genres listed)"], [["Rock & Roll", "Pop"], []]),
            (["NULL", "nan"], [[], []]),
        ],
    )
    def test_a_list_is_told_from_a_name(
        self, tmp_path: Path, clicks: Path, spellings: list[str], expected: Any
    ) -> None:
        pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "genres": spellings}).write_csv(tmp_path / "t.csv")
        assert imported(clicks, tmp_path / "t.csv").items["categories"].to_list() == expected

    def test_commas_that_are_left_are_said(self, tmp_path: Path, clicks: Path) -> None:
        table = put(tmp_path / "t.csv", 'item_id,title,genres\na,A,"Rock, Pop"\nb,B,Jazz\n')
        assert any("--categories-separator ','" in each for each in imported(clicks, table).info.warnings)
        split = imported(clicks, table, columns=Columns(separator=","))
        assert split.items["categories"].to_list() == [["Rock", "Pop"], ["Jazz"]]


class TestTimes:
    """D7, D9, D10."""

    @pytest.mark.parametrize(
        ("spelling", "expected"),
        [
            ("20190131", 1548892800),
            ("20190131235959", 1548979199),
            ("2019-10-01 00:00:00 UTC", 1569888000),
            ("2019-10-01T02:00:00+02:00", 1569888000),
            ("2019-10-01T02:00:00+02:00[Europe/Berlin]", 1569888000),
            ("2019/10/01", 1569888000),
            ("27.10.2010", 1288137600),
            ("27/10/2010 08:26", 1288167960),
            ("10/27/2010 8:26 PM", 1288211160),
            ("Wed, 27 Oct 2010 00:00:00 GMT", 1288137600),
            ("Oct 27, 2010", 1288137600),
            ("Wed Oct 27 00:00:00 +0000 2010", 1288137600),
            ("8.81e8", 881000000),
            ("1288137600000", 1288137600),
        ],
    )
    def test_a_moment_is_read_whatever_its_spelling(
        self, tmp_path: Path, items: Path, spelling: str, expected: int
    ) -> None:
        """Expected values are from `date -u -d ... +%s`."""
        table = put(tmp_path / "c.tsv", f"user_id\titem_id\tdate\nu\ta\t{spelling}\n")
        assert times(imported(table, items)) == [expected]

    def test_ambiguous_dates_are_never_guessed(self, tmp_path: Path, items: Path) -> None:
        table = put(tmp_path / "c.csv", "user_id,item_id,date\nu,a,12/1/2010 8:26\n")
        with pytest.raises(DataError, match=r"c\.csv: column date has dates such as '12/1/2010 8:26'.*--time-format"):
            imported(table, items)
        assert times(imported(table, items, time_format="%m/%d/%Y %H:%M")) == [1291191960]
        assert times(imported(table, items, time_format="%d/%m/%Y %H:%M")) == [1263284760]

    def test_one_late_day_tells_for_all(self, tmp_path: Path, items: Path) -> None:
        """The first thousand rows are ambiguous; the last one has a thirteenth day."""
        rows = "u,a,01.02.2010\n" * 1500 + "u,a,13.02.2010\n"
        dataset = imported(put(tmp_path / "c.csv", "user_id,item_id,date\n" + rows), items)
        assert times(dataset)[0] == 1264982400
        assert dataset.info.readings[1].values["time"] == "dates, day first"

    @pytest.mark.parametrize("bad", ["12/1/10", "2010-13-45", "Oct 2010", "10:30", "Fri 27 Oct 2010 EST", "2019-W99"])
    def test_what_cannot_be_a_moment_names_the_flag(self, tmp_path: Path, items: Path, bad: str) -> None:
        table = put(tmp_path / "c.csv", f"user_id,item_id,date\nu,a,2020-01-01\nu,b,{bad}\n")
        with pytest.raises(DataError, match=r"c\.csv, line 3: the time .*--time-format"):
            imported(table, items)

    def test_a_column_that_may_be_the_time_is_named(self, tmp_path: Path) -> None:
        table = put(
            tmp_path / "c.csv", "user_id,item_id,title,delivered,my_grade\nu,a,A,2024-01-09,5\nu,b,B,2024-01-05,4\n"
        )
        warnings = " ".join(imported(table).info.warnings)
        assert "rows are taken in their order" in warnings
        assert "--time-column delivered" in warnings
        assert "--rating-column my_grade" in warnings

    def test_the_usual_names_of_times_and_ratings_are_taken(self, tmp_path: Path) -> None:
        table = put(
            tmp_path / "c.csv",
            "user_id,item_id,title,review_date,user_rating\nu,a,A,2024-01-09,5\nu,b,B,2024-01-05,4\n",
        )
        assert imported(table).interactions["item_id"].to_list() == ["b", "a"]


class TestTexts:
    """D11, D17."""

    @pytest.mark.parametrize(
        ("raw", "title"),
        [
            ("Hana &amp; Kumo", "Hana & Kumo"),
            ("Tom &amp;amp; Anna", "Tom & Anna"),
            ("<i>Blue</i> Bird", "Blue Bird"),
            ("Lamp<script>var x = 1 < 2;</script>", "Lamp"),
            ("<style>.a{color:red}</style>Desk", "Desk"),
            ("I <3 You", "I <3 You"),
            ("<reboot>", "<reboot>"),
            ("Q&notes", "Q&notes"),
            ("a < b > c", "a < b > c"),
        ],
    )
    def test_html_becomes_text_and_the_rest_stays(self, tmp_path: Path, clicks: Path, raw: str, title: str) -> None:
        pl.DataFrame({"item_id": ["a", "b"], "title": [raw, "B"]}).write_csv(tmp_path / "t.csv")
        assert titles(imported(clicks, tmp_path / "t.csv"))[0] == title

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("var aPageStart = (new Date()).getTime();", "page script as title"),
            (".a-box { color: red; margin: 0 }", "page script as title"),
            ("\u200b\u200d", "empty title"),
            ("\u3164", "empty title"),
            ("<b></b>", "empty title"),
            ("NULL", "empty title"),
        ],
    )
    def test_titles_that_say_nothing_are_bad(self, tmp_path: Path, clicks: Path, raw: str, reason: str) -> None:
        pl.DataFrame({"item_id": ["a", "b"], "title": ["A", raw]}).write_csv(tmp_path / "t.csv")
        assert skipped(clicks, tmp_path / "t.csv").info.items.skipped == {reason: 1}

    def test_ids_may_be_the_titles_of_what_has_no_other(self, tmp_path: Path, clicks: Path) -> None:
        """Where that is said; what else the table has is kept."""
        table = put(tmp_path / "t.csv", "item_id,categories\na,Tools\nb,Toys\n")
        with pytest.raises(DataError, match="neither interactions nor items"):
            imported(clicks, table)
        shop = imported(clicks, table, columns=Columns(title="item_id"))
        assert titles(shop) == ["a", "b"]
        assert shop.items["categories"].to_list() == [["Tools"], ["Toys"]]

    def test_a_headline_is_no_title(self, tmp_path: Path) -> None:
        row = {"user_id": "u", "parent_asin": "P", "rating": 5.0, "timestamp": 1, "title": "Love it", "text": "so"}
        reviews = put(tmp_path / "r.jsonl", json.dumps(row) + "\n")
        with pytest.raises(DataError, match=r"no file of metadata.*headline"):
            imported(reviews)
        table = put(tmp_path / "r.csv", "user_id,item_id,title,text\nu,a,Love it,so\n")
        with pytest.raises(DataError, match=r"headline.*--title-column"):
            imported(table)


class TestEncodings:
    """D14: told by the bytes."""

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
    def test_the_encoding_is_told(self, tmp_path: Path, clicks: Path, encoding: str) -> None:
        table = put(tmp_path / "t.csv", "item_id,title\na,Café Größe\nb,Banana\n".encode(encoding))
        assert titles(imported(clicks, table)) == ["Café Größe", "Banana"]

    def test_latin_1_far_into_a_file_is_told(self, tmp_path: Path, clicks: Path) -> None:
        filler = "".join(f"i{n},{'x' * 100}\n" for n in range(15_000))
        table = put(tmp_path / "t.csv", f"item_id,title\na,A\n{filler}b,Größe\n".encode("latin-1"))
        assert titles(imported(clicks, table))[-1] == "Größe"

    def test_a_broken_byte_among_utf_8_costs_one_row(self, tmp_path: Path, items: Path) -> None:
        table = put(tmp_path / "c.csv", CLICKS.encode() + "ü,a,4\nö,a,5\n".encode() + b"x\xff,a,6\n")
        dataset = skipped(table, items)
        assert (dataset.info.interactions.read, dataset.info.interactions.skipped) == (6, {"wrong encoding": 1})

    def test_files_put_together_are_read_line_by_line(self, tmp_path: Path, clicks: Path) -> None:
        """One in Latin-1, one in UTF-8, each with its header: the second header is a bad row."""
        content = "item_id,title\na,Größe\nc,Äpfel\n".encode("latin-1") + "item_id,title\nb,Café\n".encode()
        dataset = skipped(clicks, put(tmp_path / "t.csv", content))
        assert titles(dataset) == ["Größe", "Äpfel", "Café"]
        assert dataset.info.items.skipped == {"repeated header": 1}

    def test_what_is_not_western_asks_for_its_name(self, tmp_path: Path, clicks: Path) -> None:
        table = put(tmp_path / "t.csv", "item_id,title\na,Привет мир\nb,Яблоко\n".encode("cp1251"))
        with pytest.raises(DataError, match=r"not UTF-8, and not Latin-1.*--encoding"):
            imported(clicks, table)
        assert titles(imported(clicks, table, encoding="cp1251")) == ["Привет мир", "Яблоко"]

    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
    def test_compressed_files_are_unpacked_by_their_bytes(self, tmp_path: Path, items: Path, pack: Any) -> None:
        packed = put(tmp_path / "CLICKS.CSV.X", pack(CLICKS.encode()))
        assert len(imported(packed, items).interactions) == 3
        put(packed, pack(CLICKS.encode() * 1000)[:-9])
        with pytest.raises(DataError, match=r"stream is cut short or damaged.*fetch the file again"):
            imported(packed, items)

    def test_a_zip_is_a_folder(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            archive.writestr("data/CLICKS.CSV", CLICKS)
            archive.writestr("data/items.csv.gz", gzip.compress(ITEMS.encode()))
            archive.writestr("__MACOSX/._items.csv", b"\0\1")
        dataset = imported(tmp_path / "all.zip")
        assert dataset.info.sources == ("data/CLICKS.CSV", "data/items.csv.gz")

    def test_suffixes_are_read_in_any_case(self, tmp_path: Path) -> None:
        pl.read_csv(CLICKS.encode()).write_parquet(tmp_path / "CLICKS.PARQUET")
        put(tmp_path / "ITEMS.CSV", ITEMS)
        assert len(imported(tmp_path).interactions) == 3

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
                "is a Git LFS pointer.*lfs pull",
            ),
            (b"<!DOCTYPE html><html>", "is a web page"),
            (b"SQLite format 3\0", "SQLite"),
            (bytes(range(256)) * 40 + b"\0" * 9000, "binary file"),
        ],
    )
    def test_what_is_no_table_is_named(self, tmp_path: Path, items: Path, content: bytes, message: str) -> None:
        for name in ("clicks.csv", "clicks.parquet"):
            if name.endswith("csv") or b"LFS" in content:
                with pytest.raises(DataError, match=message):
                    imported(put(tmp_path / name, content), items)


class TestFormats:
    """D15."""

    def test_movielens_100k(self, tmp_path: Path) -> None:
        put(tmp_path / "u.data", "196\t242\t3\t881250949\n186\t302\t4\t891717742\n")
        put(tmp_path / "u.genre", "unknown|0\nAction|1\nDrama|2\n\n")
        put(
            tmp_path / "u.item",
            "242|Café (1996)|01-Jan-1996||http://x|0|1|1\n302|L.A. (1997)|||x|1|0|0\n".encode("latin-1"),
        )
        dataset = imported(tmp_path)
        assert (dataset.info.format, dataset.info.domain) == (Format.MOVIELENS, "movie")
        assert dataset.items.rows() == [("242", "Café (1996)", "", ["Action", "Drama"]), ("302", "L.A. (1997)", "", [])]
        assert dataset.interactions.rows() == [("186", "302", 891717742, 4.0), ("196", "242", 881250949, 3.0)]

    def test_mind(self, tmp_path: Path) -> None:
        """The history precedes the first impression, is taken once, and what was not clicked is nothing."""
        rest = "\turl\t[]\t[]"
        put(tmp_path / "news.tsv", "".join(f'N{n}\tnews\tlocal\t"Title {n}\tText{rest}\n' for n in range(1, 6)))
        put(
            tmp_path / "behaviors.tsv",
            "1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN3-1 N4-0\n2\tU1\t11/14/2019 1:00:00 PM\tN1 N2\tN4-0 N5-1\n",
        )
        dataset = imported(tmp_path)
        assert dataset.info.format == Format.MIND
        assert dataset.interactions["item_id"].to_list() == ["N1", "N2", "N5", "N3"]
        assert times(dataset)[-1] == 1573808122
        assert (dataset.info.interactions.read, titles(dataset)[0]) == (4, '"Title 1')

    def test_json_arrays_and_lines_by_column_names(self, tmp_path: Path) -> None:
        rows = [{"user_id": "u", "place": {"id": n}, "stars": 4, "date": "2018-07-07 22:09:11"} for n in (1, 2)]
        put(tmp_path / "clicks.json", json.dumps(rows, indent=1))
        put(tmp_path / "places.json", '{"id": 1, "name": "Hut", "categories": "Food"}\n{"id": 2, "name": "Inn"}\n')
        columns = Columns(item="place.id", item_id="id")
        dataset = imported(tmp_path / "clicks.json", tmp_path / "places.json", columns=columns)
        assert dataset.interactions["item_id"].to_list() == ["1", "2"]
        assert titles(dataset) == ["Hut", "Inn"]

    def test_lists_of_objects_are_rows(self, tmp_path: Path) -> None:
        put(
            tmp_path / "c.jsonl",
            '{"user": "u", "plays": [{"game": "g1", "name": "One"}, {"game": "g2", "name": "Two"}]}\n',
        )
        dataset = imported(tmp_path / "c.jsonl", columns=Columns(item="plays.game", title="plays.name"))
        assert dataset.items.select("item_id", "title").rows() == [("g1", "One"), ("g2", "Two")]

    def test_recbole(self, tmp_path: Path) -> None:
        put(tmp_path / "toy.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t10\t5\t8.81e8\n")
        put(tmp_path / "toy.item", "item_id:token\tmovie_title:token_seq\tclass:token_seq\n10\tToy Box\tComedy Kids\n")
        dataset = imported(tmp_path)
        assert (dataset.info.format, dataset.items.row(0)) == (
            Format.RECBOLE,
            ("10", "Toy Box", "", ["Comedy", "Kids"]),
        )

    def test_what_is_one_token_is_one_name(self, tmp_path: Path) -> None:
        put(tmp_path / "toy.inter", "user_id:token\titem_id:token\n1\t10\n")
        put(tmp_path / "toy.item", "item_id:token\ttitle:token_seq\tcategory:token\n10\tToy Box\tVideo Games\n")
        assert imported(tmp_path).items.row(0) == ("10", "Toy Box", "", ["Video Games"])

    @pytest.mark.parametrize("role", ["description", "categories", "title"])
    def test_a_column_of_nothing_is_none(self, tmp_path: Path, role: str) -> None:
        items = {"item_id": ["a"], "title": ["A"], "description": ["d"], "categories": [["c"]], role: [None]}
        pl.DataFrame(items, schema_overrides={role: pl.Null}).write_parquet(tmp_path / "items.parquet")
        pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "rating": [None]}).write_parquet(tmp_path / "plays.parquet")
        if role == "title":
            with pytest.raises(DataError, match="holds neither interactions nor items"):
                imported(tmp_path / "plays.parquet", tmp_path / "items.parquet")
            return
        dataset = imported(tmp_path)
        assert "rating" not in dataset.interactions.columns
        found = dataset.items.select("item_id", "title", "description", "categories").row(0)
        assert found == ("a", "A", *(("", ["c"]) if role == "description" else ("d", [])))

    def test_a_file_of_a_folder_that_is_no_table_can_be_left_out(self, tmp_path: Path) -> None:
        plays = put(tmp_path / "plays.csv", "user_id,item_id\nu,a\n")
        items = put(tmp_path / "items.csv", "item_id,title\na,A\n")
        put(tmp_path / "config.json", "{broken")
        with pytest.raises(DataError, match=r"config\.json.*list the files that are"):
            imported(tmp_path)
        assert len(imported(plays, items).interactions) == 1

    def test_files_without_header(self, tmp_path: Path) -> None:
        put(tmp_path / "clicks.csv", "196,242,3,881250949\n")
        put(tmp_path / "items.csv", "242,Kolya\n")
        with pytest.raises(DataError, match=r"looks like data.*--no-header --columns"):
            imported(tmp_path)
        for names in (
            ("user,item,rating,time", "item,title"),
            ("clicks.csv=user,item,rating,time", "items.csv=item,title"),
        ):
            assert imported(tmp_path, no_header=True, names=names).interactions.rows() == [
                ("196", "242", 881250949, 3.0)
            ]
        with pytest.raises(ConfigError, match=r"items\.csv has 2 columns, and none.*--columns items\.csv="):
            imported(tmp_path, no_header=True, names=("user,item,rating,time", "a,b,c"))

    def test_only_chosen_events_are_interactions(self, tmp_path: Path, items: Path) -> None:
        table = put(tmp_path / "e.csv", "event_time,event_type,item_id,user_id\n1,view,a,u\n2,cart,b,u\n3,view,a,v\n")
        assert any("cart, view" in each for each in imported(table, items).info.warnings)
        dataset = imported(table, items, events=("view",))
        assert dataset.info.interactions.dropped == {"event not chosen by --events": 1}
        with pytest.raises(
            DataError, match=r"no row has the event buy in column event_type; there are: 'view', 'cart'"
        ):
            imported(table, items, events=("buy",), columns=Columns(event="event_type"))

    def test_orders_are_joined_with_their_lines(self, tmp_path: Path, items: Path) -> None:
        orders = put(
            tmp_path / "orders.csv", "order_id,customer_id,order_date\n1,u,2020-01-02\n2,v,2020-01-01\n2,w,2020-01-01\n"
        )
        lines = put(tmp_path / "lines.csv", "order_id,item_id\n1,a\n1,b\n2,a\n9,a\n")
        dataset = skipped(orders, lines, items)
        assert dataset.interactions.rows() == [("u", "a", 1577923200), ("u", "b", 1577923200), ("v", "a", 1577836800)]
        assert dataset.info.interactions.skipped == {"unknown order": 1}
        assert dataset.info.joined["orders"].skipped == {"order twice": 1}

    def test_amazon_as_parquet(self, tmp_path: Path) -> None:
        review = {"user_id": "u", "parent_asin": "P", "rating": 4.0, "timestamp": 1600000000000, "title": "Wow"}
        pl.DataFrame([review]).write_parquet(tmp_path / "r.parquet")
        pl.DataFrame({"parent_asin": ["P"], "title": ["Pan"], "categories": [["Kitchen"]]}).write_parquet(
            tmp_path / "m.parquet"
        )
        dataset = imported(tmp_path, min_user_interactions=1, min_item_interactions=1)
        assert (dataset.info.format, dataset.items.row(0)) == (Format.AMAZON, ("P", "Pan", "", ["Kitchen"]))


class TestFlags:
    """D12, D13: what was asked for is done, or refused."""

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"columns": Columns(user="nosuch")}, "column 'nosuch' is missing|--user-column"),
            ({"delimiter": ";"}, "--delimiter does not apply"),
            ({"quoting": Quoting.NONE}, "--quoting does not apply"),
            ({"columns": Columns(order="time")}, "--order-column does not apply"),
        ],
    )
    def test_a_flag_that_does_not_apply_to_json_is_refused(self, tmp_path: Path, settings: Any, message: str) -> None:
        put(tmp_path / "c.jsonl", '{"user": "u", "item": "a", "title": "A", "time": 1}\n')
        with pytest.raises(DataError, match=message):
            imported(tmp_path / "c.jsonl", **settings)

    def test_known_columns_take_no_names(self, tmp_path: Path) -> None:
        put(tmp_path / "u.data", "1\t2\t3\t4\n")
        put(tmp_path / "u.item", "2|A|||x|" + "|".join("0" * 19) + "\n")
        with pytest.raises(DataError, match="--user-column does not apply to movielens files"):
            imported(tmp_path, columns=Columns(user="who"))

    def test_a_time_format_needs_a_time(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title\nu,a,A\n")
        with pytest.raises(DataError, match="--time-format does not apply to files without a column of written times"):
            imported(table, time_format="%Y-%m-%d")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"time_format": "%H:%M"}, "has no year"),
            ({"escape": "\\", "quoting": Quoting.NONE}, "--escape does not apply with --quoting none"),
            ({"no_header": True}, "--no-header and --columns go together"),
            ({"columns": Columns(event="x")}, "--events"),
        ],
    )
    def test_settings_that_contradict_are_refused(self, clicks: Path, items: Path, settings: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            imported(clicks, items, **settings)

    def test_an_unrecognised_rating_column_is_not_called_missing(self, tmp_path: Path, items: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,liked\nu,a,5\n")
        with pytest.raises(DataError, match=r"no rating column was recognised; name it with --rating-column.*liked"):
            imported(table, items, min_rating=3)
        assert len(imported(table, items, min_rating=3, columns=Columns(rating="liked")).interactions) == 1
