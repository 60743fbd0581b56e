"""What was once lost or misread without a word: now it is read right, said, or refused."""

from __future__ import annotations

import json
import os
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from models.errors import ConfigError, DataError
from tests.training.data.importing.test_kinds import CLICKS, imported, items, put, skipped, times, titles
from training.cli.data import app
from training.data.dataset import Dataset
from training.data.importing.columns import Columns
from training.data.importing.importer import Format

__all__ = ["items"]
ONE = '{"user": "u", "item": "a", "title": "A", "time": 1}'
TWO = '{"user": "v", "item": "a", "title": "A", "time": 2}'


class TestWholeFiles:
    """No row of a file is passed over."""

    @pytest.mark.parametrize(
        "text", [f"[{ONE}]\n[{TWO}]\n", f"{ONE} {TWO}\n", f"{ONE},\n{TWO},\n", f"[\n{ONE},\n{TWO}]"]
    )
    def test_all_objects_are_rows(self, tmp_path: Path, text: str) -> None:
        assert imported(put(tmp_path / "c.json", text)).info.interactions.read == 2

    @pytest.mark.parametrize("text", [f"[{ONE},", f"[{ONE}\n", f"[{ONE}] {{'user'", f"[{ONE}] the end"])
    def test_an_array_cut_short_or_followed_by_something_else_is_refused(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(DataError, match=r"c\.json, line \d: (the array has no end|broken JSON)"):
            skipped(put(tmp_path / "c.json", text))

    def test_two_sizes_of_movielens_in_one_archive_are_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
            for size in ("100k", "1m"):
                archive.writestr(f"{size}/ratings.csv", "userId,movieId,rating,timestamp\n1,1,5,1\n")
                archive.writestr(f"{size}/movies.csv", "movieId,title,genres\n1,Toy,Comedy\n")
        with pytest.raises(DataError, match=r"several files movies\.csv .*100k/movies\.csv.*1m/movies\.csv"):
            imported(tmp_path / "ml.zip")

    def test_a_file_given_twice_is_refused(self, tmp_path: Path, items: Path) -> None:
        clicks = put(tmp_path / "c.csv", CLICKS)
        for sources in ((clicks, items, clicks), (tmp_path, clicks)):
            with pytest.raises(DataError, match=r"c\.csv is given twice"):
                imported(*sources)

    def test_files_beside_those_of_a_known_format_are_named(self, tmp_path: Path) -> None:
        put(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,1,5,1\n")
        put(tmp_path / "movies.csv", "movieId,title,genres\n1,Toy,Comedy\n")
        tags = put(tmp_path / "tags.csv", "userId,movieId,tag,timestamp\n1,1,fun,1\n")
        assert "not read: tags.csv" in imported(tmp_path).info.warnings
        with pytest.raises(DataError, match=r"tags\.csv cannot be read together with ratings\.csv and movies\.csv"):
            imported(tmp_path / "ratings.csv", tmp_path / "movies.csv", tags)

    def test_an_empty_part_costs_nothing_and_no_rows_at_all_are_refused(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"user": ["u"], "item": ["a"], "title": ["A"], "time": [1]})
        frame.write_parquet(tmp_path / "0.parquet")
        frame.clear().write_parquet(tmp_path / "1.parquet")
        assert imported(tmp_path / "0.parquet", tmp_path / "1.parquet").info.interactions.read == 1
        with pytest.raises(DataError, match=r"1\.parquet: there are no rows of interactions"):
            imported(tmp_path / "1.parquet")

    def test_the_last_lines_of_a_short_file_tell_that_quotes_are_text(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.tsv", 'user\titem\ttitle\nu\ta\tApple\nu\tb\t"weird ben\n')
        assert titles(imported(table)) == ["Apple", '"weird ben']

    def test_carriage_returns_end_lines_though_a_line_feed_ends_the_file(self, tmp_path: Path, items: Path) -> None:
        table = put(tmp_path / "c.csv", CLICKS.replace("\n", "\r") + "\n")
        assert imported(table, items).info.interactions.read == 3


class TestCharacters:
    """Marks, control characters and half characters."""

    def test_byte_order_marks_inside_belong_to_no_id(self, tmp_path: Path, items: Path) -> None:
        table = put(tmp_path / "c.csv", f"{CLICKS}\ufeff{CLICKS}\ufeffu,a,9\n")
        dataset = skipped(table, items)
        assert dataset.info.interactions.skipped == {"repeated header": 1}
        assert dataset.interactions["user_id"].unique().sort().to_list() == ["u", "v"]

    def test_control_characters_are_refused_in_ids_and_spaces_in_texts(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title,time\nu\0,a,A,1\nu,b,B\0ee\u202bs\u200b,2\n")
        dataset = skipped(table)
        assert dataset.info.interactions.skipped == {"broken user id": 1}
        assert titles(dataset)[-1] == "B ees"

    def test_half_characters_in_events_and_columns_end_in_no_traceback(self, tmp_path: Path) -> None:
        row = ONE[:-1] + ', "event": "\\ud800", "genre\\ud800": "x"}\n'
        imported(put(tmp_path / "c.jsonl", row)).save(tmp_path / "out")
        assert any("choose with --events" in each for each in Dataset.load(tmp_path / "out").info.warnings)

    def test_a_name_that_is_no_text_ends_in_no_traceback(self, tmp_path: Path) -> None:
        table = tmp_path / os.fsdecode(b"cl\xffcks.csv")
        try:
            put(table, "user,item,title\nu,a,A\n")
        except OSError:
            pytest.skip("this file system has names of text only")
        imported(table).save(tmp_path / "out")
        assert Dataset.load(tmp_path / "out").info.sources == ("cl?cks.csv",)

    def test_tags_inside_of_words_part_nothing(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title\nu,a,H<sub>2</sub>O<br>and <b>air</b>\n")
        assert titles(imported(table)) == ["H2O and air"]


class TestNumbers:
    """Ids, times and ratings that programs changed."""

    @pytest.mark.parametrize("ids", [("1.23457E+12", "123"), ("1.0", "9007199254740993.0")])
    def test_lost_digits_are_found_among_whole_numbers(self, tmp_path: Path, ids: tuple[str, str]) -> None:
        table = put(tmp_path / "c.csv", f"user,item,title\n{ids[0]},a,A\n{ids[1]},a,A\n")
        assert skipped(table).info.interactions.skipped == {"imprecise user id": 1}

    def test_floats_among_whole_numbers_are_straightened(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title\n1,a,A\n1.0,b,B\n")
        assert imported(table).interactions["user_id"].to_list() == ["1", "1"]

    def test_single_precision_ids_have_lost_digits_early(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"user": [7.0, 16777217.0], "item": ["a", "a"], "title": ["A", "A"]})
        frame.with_columns(pl.col("user").cast(pl.Float32)).write_parquet(tmp_path / "c.parquet")
        assert skipped(tmp_path / "c.parquet").info.interactions.skipped == {"imprecise user id": 1}

    @pytest.mark.parametrize("other", ["20190231", "0", "1548892800"])
    def test_one_bad_value_makes_no_compact_date_a_number(self, tmp_path: Path, other: str) -> None:
        """2019-01-31 is 1548892800."""
        table = put(tmp_path / "c.csv", f"user,item,title,date\nu,a,A,20190131\nu,b,B,{other}\n")
        dataset = skipped(table)
        assert times(dataset) == [1548892800]
        assert dataset.info.interactions.skipped == {"unparsable time": 1}

    @pytest.mark.parametrize("value", ["2019", "201901", "43831.25"])
    def test_years_months_and_days_of_a_spreadsheet_are_doubted(self, tmp_path: Path, value: str) -> None:
        dataset = imported(put(tmp_path / "c.csv", f"user,item,title,date\nu,a,A,{value}\n"))
        assert any("taken for seconds of 1970" in each for each in dataset.info.warnings)

    def test_one_unit_is_not_called_several(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title,time\nu,a,A,8.81e8\nu,b,B,881000001\n")
        assert imported(table).info.warnings == ()

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("12/25/2010", "does not fit the column, whose dates begin with the day"),
            ("25-Dec-10", "a year of two digits is not guessed"),
            ("2019-01-31 10:00:00 PST", "stand for several zones each"),
        ],
    )
    def test_a_bad_time_says_why(self, tmp_path: Path, value: str, message: str) -> None:
        table = put(tmp_path / "c.csv", f"user,item,title,time\nu,a,A,25/12/2010\nu,b,B,{value}\n")
        with pytest.raises(DataError, match=rf"c\.csv, line 3: the time .*{message}.*--time-format"):
            imported(table)

    def test_a_column_of_seconds_under_any_name_is_named(self, tmp_path: Path) -> None:
        dataset = imported(put(tmp_path / "c.csv", "user,item,title,moment,batch_id\nu,a,A,1433221332,1433221332\n"))
        assert any("--time-column moment" in each for each in dataset.info.warnings)
        assert dataset.info.readings[0].not_taken == ("moment (looks like a time)",)

    def test_a_rating_column_of_words_is_left_and_named(self, tmp_path: Path) -> None:
        dataset = imported(put(tmp_path / "c.csv", "user,item,title,rating\nu,a,A,good\n"))
        assert "rating" not in dataset.interactions.columns
        assert any("column rating holds no numbers" in each for each in dataset.info.warnings)

    def test_yes_is_no_rating(self, tmp_path: Path) -> None:
        rows = [ONE[:-1] + ', "rating": true}', TWO[:-1] + ', "rating": 4}']
        dataset = skipped(put(tmp_path / "c.jsonl", "\n".join(rows)))
        assert dataset.info.interactions.skipped == {"unparsable rating": 1}

    def test_objects_are_no_missing_values(self, tmp_path: Path) -> None:
        row = {"user": {"$oid": "u"}, "item": "a", "title": "A", "time": {"$date": {"$numberLong": "1000000000000"}}}
        table = put(tmp_path / "c.jsonl", json.dumps(row))
        with pytest.raises(DataError, match=r"line 1: the user id is .*--user-column place\.id"):
            imported(table)
        with pytest.raises(DataError, match=r"line 1: the time .* is no moment; .*--time-column place\.time"):
            imported(table, columns=Columns(user="user.$oid"))
        columns = Columns(user="user.$oid", time="time.$date.$numberLong")
        assert imported(table, columns=columns).interactions.rows() == [("u", "a", 1000000000)]

    def test_ids_that_lost_their_zeros_are_recognised(self, tmp_path: Path) -> None:
        clicks = put(tmp_path / "c.csv", "user,item\nu,7\n")
        with pytest.raises(DataError, match="item '7' is not among the items; '007' is: write ids the same way"):
            imported(clicks, put(tmp_path / "i.csv", "item,title\n007,A\n"))


class TestLists:
    """Categories as databases and NumPy spell them."""

    @pytest.mark.parametrize(
        ("spelled", "expected"),
        [
            ("['Action' 'Sci Fi']", ["Action", "Sci Fi"]),
            ("array(['Action', 'Indie'], dtype=object)", ["Action", "Indie"]),
            ("[Action, Indie]", ["Action", "Indie"]),
            ('{Action,"Sci Fi"}', ["Action", "Sci Fi"]),
            ("Home>Kitchen", ["Home", "Kitchen"]),
            ("[Kids] and [Toys]", ["[Kids] and [Toys]"]),
        ],
    )
    def test_a_list_is_read_as_one(self, tmp_path: Path, spelled: str, expected: list[str]) -> None:
        frame = pl.DataFrame({"user": ["u"], "item": ["a"], "title": ["A"], "genres": [spelled]})
        frame.write_csv(tmp_path / "c.csv")
        assert imported(tmp_path / "c.csv").items["categories"].to_list() == [expected]

    def test_semicolons_that_are_left_are_said(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title,genres\nu,a,A,Rock; Pop\nu,b,B,Jazz\n")
        assert any("--categories-separator ';'" in each for each in imported(table).info.warnings)


class TestFlags:
    """What was asked for is done, or refused."""

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"columns": Columns(user="usr")}, "column 'usr' is missing; .*--user-column, perhaps user"),
            ({"columns": Columns(item_id="zz")}, "column 'zz' is missing"),
            ({"columns": Columns(item_id="item")}, "--item-id-column does not apply to interactions without a table"),
            ({"columns": Columns(separator="-")}, "--categories-separator does not apply to files without a column of"),
            ({"columns": Columns(time="item")}, "column item would be the item and the time: name another with"),
            ({"format": Format.RECBOLE}, r"c\.csv, line 1: the header has no name:type"),
        ],
    )
    def test_a_flag_without_effect_is_refused(self, tmp_path: Path, settings: Any, message: str) -> None:
        with pytest.raises(DataError, match=message):
            imported(put(tmp_path / "c.csv", "user,item,title\nu,a,A\n"), **settings)

    def test_moments_take_no_format(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"user": ["u"], "item": ["a"], "title": ["A"], "time": [datetime(2020, 1, 1)]})
        frame.write_parquet(tmp_path / "c.parquet")
        with pytest.raises(DataError, match="--time-format does not apply"):
            imported(tmp_path / "c.parquet", time_format="%Y")

    def test_mind_follows_an_encoding_and_takes_no_time_format(self, tmp_path: Path) -> None:
        put(tmp_path / "news.tsv", "N1\ta\tb\tCaf\xe9\t\tu\t[]\t[]\n".encode("cp437"))
        put(tmp_path / "behaviors.tsv", "1\tU1\t11/15/2019 8:55:22 AM\t\tN1-1\n")
        assert titles(imported(tmp_path, encoding="cp437")) == ["Caf\xe9"]
        with pytest.raises(DataError, match="--time-format does not apply"):
            imported(tmp_path, time_format="%Y")

    def test_ratings_of_amazon_without_header(self, tmp_path: Path) -> None:
        ratings = put(tmp_path / "ratings_Beauty.csv", "A1,B1,5.0,1369699200\n")
        meta = put(tmp_path / "meta.jsonl", '{"parent_asin": "B1", "title": "Pan"}\n')
        names = ("user_id,parent_asin,rating,timestamp",)
        dataset = imported(ratings, meta, no_header=True, names=names, min_user_interactions=1, min_item_interactions=1)
        assert dataset.interactions.rows() == [("A1", "B1", 1369699200, 5.0)]

    def test_names_of_other_width_than_the_file_are_told_apart(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "u,a,A,5\n")
        with pytest.raises(DataError, match=r"4 columns where --columns names 3; .*name as many as there are"):
            imported(table, no_header=True, names=("user,item,title",))

    def test_the_columns_of_a_format_are_not_said_to_be_named_by_the_user(self, tmp_path: Path) -> None:
        put(tmp_path / "movies.dat", "2::A::Drama\n")
        put(tmp_path / "ratings.dat", "1::2::5::9\n1::2::5\n")
        with pytest.raises(DataError, match=r"line 2: 3 columns where MovieLens has 4; mend or quote the row; or"):
            imported(tmp_path)

    def test_genres_that_are_not_numbered_are_refused(self, tmp_path: Path) -> None:
        put(tmp_path / "u.data", "1\t2\t3\t4\n")
        put(tmp_path / "u.item", "2|A|||x|" + "|".join("0" * 19) + "\n")
        put(tmp_path / "u.genre", "Action|x\n")
        with pytest.raises(DataError, match=r"u\.genre, line 1: 'x' is no genre's number"):
            imported(tmp_path)

    def test_a_rating_of_infinity_keeps_nothing(self, items: Path) -> None:
        with pytest.raises(ConfigError, match="--min-rating inf keeps nothing"):
            imported(items, min_rating=float("inf"))

    def test_events_that_name_none_are_refused(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title,event\nu,a,A,view\n")
        result = CliRunner().invoke(app, ["import", str(table), "--out", str(tmp_path / "out"), "--events", ","])
        assert "--events names no event" in str(result.exception)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("spelled", ["\\t", "tab"])
    def test_a_tab_can_be_spelled(self, tmp_path: Path, spelled: str) -> None:
        table = put(tmp_path / "c.csv", "user\titem\ttitle, long\nu\ta\tA\n")
        assert titles(imported(table, delimiter=spelled, columns=Columns(title="title, long"))) == ["A"]

    @pytest.mark.parametrize(
        ("header", "hint"),
        [("user~item~title", "say what parts its columns with --delimiter"), ("order_id,item", "give the orders and")],
    )
    def test_what_is_lacking_is_named(self, tmp_path: Path, header: str, hint: str) -> None:
        with pytest.raises(DataError, match=hint):
            imported(put(tmp_path / "c.csv", header + "\n1\n"))

    def test_nothing_left_names_the_first_line_of_each_reason(self, tmp_path: Path) -> None:
        table = put(tmp_path / "c.csv", "user,item,title,time\n,a,A,1\n")
        with pytest.raises(DataError, match=r"1 missing user id \(first: .*c\.csv, line 2\)"):
            skipped(table)
