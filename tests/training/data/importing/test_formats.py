"""What each importer makes of sound input."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from training.data.dataset import Dataset
from training.data.importing.columns import Columns
from training.data.importing.importer import Format, ImportConfig, prepare


def imported(*sources: Path, **settings: Any) -> Dataset:
    return prepare(ImportConfig(sources=sources, **settings)).run()[0]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_movielens_csv_keeps_the_year_and_splits_genres(tmp_path: Path) -> None:
    write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,10,4.0,20\n1,11,3.5,10\n2,10,5.0,7\n")
    write(
        tmp_path / "movies.csv",
        'movieId,title,genres\n10,"Heat, The (1995)",Action|Crime\n11,Old (1950),(no genres listed)\n'
        "12,New (2020),Drama\n",
    )
    dataset = imported(tmp_path)
    assert dataset.info.format == Format.MOVIELENS
    assert dataset.info.domain == "movie"
    assert dataset.interactions.rows() == [("1", "11", 10, 3.5), ("1", "10", 20, 4.0), ("2", "10", 7, 5.0)]
    assert dataset.items.rows() == [
        ("10", "Heat, The (1995)", "", ["Action", "Crime"]),
        ("11", "Old (1950)", "", []),
        ("12", "New (2020)", "", ["Drama"]),
    ]
    assert dataset.info.unseen_items == 1


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_dat_reads_latin_1_and_utf_8(tmp_path: Path, encoding: str) -> None:
    write(tmp_path / "ratings.dat", "1::7::5::978300760\n")
    write(tmp_path / "movies.dat", "7::Misérables, Les (1995)::Drama|Musical\n", encoding)
    dataset = imported(tmp_path)
    assert dataset.items.row(0) == ("7", "Misérables, Les (1995)", "", ["Drama", "Musical"])
    assert dataset.interactions.row(0) == ("1", "7", 978300760, 5.0)


def test_amazon_2018_pairs_reviews_with_metadata(tmp_path: Path) -> None:
    """Metadata is HTML: entities become characters, tags go; items without reviews leave by default."""
    reviews = [
        {"reviewerID": "u", "asin": "B1", "overall": 5.0, "unixReviewTime": 1400000000},
        {"reviewerID": "u", "asin": "B2", "overall": 2.0, "unixReviewTime": 1300000000},
    ]
    metadata = [
        {
            "asin": "B1",
            "title": "Salt &amp; <i>Pepper</i>",
            "description": ["Two", "<p>parts</p>"],
            "category": ["A", "B"],
        },
        {"asin": "B2", "title": "Cup", "description": "One", "categories": [["A &amp; C", "D"], ["A &amp; C"]]},
        {"asin": "B3", "title": "Unsold"},
    ]
    write_lines(tmp_path / "Kitchen.json.gz", reviews)
    write_lines(tmp_path / "meta_Kitchen.json.gz", metadata)
    dataset = imported(tmp_path, min_user_interactions=1, min_item_interactions=1)
    assert dataset.info.format == Format.AMAZON
    assert dataset.items.rows() == [
        ("B1", "Salt & Pepper", "Two parts", ["A", "B"]),
        ("B2", "Cup", "One", ["A & C", "D"]),
    ]
    assert dataset.interactions.rows() == [("u", "B2", 1300000000, 2.0), ("u", "B1", 1400000000, 5.0)]
    assert dataset.info.items.dropped == {"without interactions": 1}


def test_amazon_2023_has_other_keys_and_milliseconds(tmp_path: Path) -> None:
    """Two events within one second keep the order of their milliseconds."""
    reviews = [
        {"user_id": "u", "asin": "x", "parent_asin": "P1", "rating": 4.0, "timestamp": 1600000000900, "title": "good"},
        {"user_id": "u", "asin": "y", "parent_asin": "P2", "rating": 4.0, "timestamp": 1600000000100, "title": "bad"},
    ]
    metadata = [{"parent_asin": "P1", "title": "One"}, {"parent_asin": "P2", "title": "Two", "categories": ["C"]}]
    files = write_lines(tmp_path / "r.jsonl", reviews), write_lines(tmp_path / "m.jsonl", metadata)
    dataset = imported(*files, min_user_interactions=1, min_item_interactions=1)
    assert dataset.interactions.rows() == [("u", "P2", 1600000000, 4.0), ("u", "P1", 1600000000, 4.0)]


def test_amazon_2014_metadata_may_be_python_literals(tmp_path: Path) -> None:
    write_lines(tmp_path / "reviews.json", [{"reviewerID": "u", "asin": "1", "overall": 1, "unixReviewTime": 5}])
    write_lines(tmp_path / "meta.json", ["{'asin': '1', 'title': \"It's\", 'categories': [['Books']]}"])
    dataset = imported(tmp_path, min_user_interactions=1, min_item_interactions=1)
    assert dataset.items.row(0) == ("1", "It's", "", ["Books"])


def test_amazon_is_five_core_unless_told_otherwise(tmp_path: Path) -> None:
    """Users 0..4 review items 0..4 each; user 5 reviews one item and falls out."""
    pairs = [(user, item) for user in range(5) for item in range(5)] + [(5, 0)]
    write_lines(
        tmp_path / "r.json",
        [{"reviewerID": f"u{u}", "asin": f"i{i}", "overall": 5, "unixReviewTime": i} for u, i in pairs],
    )
    write_lines(tmp_path / "meta_r.json", [{"asin": f"i{i}", "title": f"t{i}"} for i in range(5)])
    dataset = imported(tmp_path)
    assert dataset.info.users == 5
    assert dataset.info.interactions.dropped == {"outside the core (at least 5 a user, 5 an item)": 1}


@pytest.mark.parametrize(
    ("interactions", "items"),
    [
        ("user_id,item_id,timestamp\nu,1,2\nu,2,1\n", "item_id,title\n1,One\n2,Two\n"),
        ("User ID;ProductId;Date\nu;1;2020-01-02\nu;2;2020-01-01T10:00:00Z\n", "id;Name\n1;One\n2;Two\n"),
        ("uid\titem\tts\nu\t1\t1600000000000\nu\t2\t1500000000\n", "iid\tmovie title\n1\tOne\n2\tTwo\n"),
        ('"customer_id","asin","rating"\n"u","2","1"\n"u","1",""\n', '"asin","title"\n"1","One"\n"2","Two"\n'),
    ],
)
def test_usual_column_names_and_delimiters_are_recognised(tmp_path: Path, interactions: str, items: str) -> None:
    """Each table has u meet item 2, then item 1: by time, or by row where there is no time."""
    write(tmp_path / "some.csv", interactions)
    write(tmp_path / "other.csv", items)
    dataset = imported(tmp_path)
    assert dataset.interactions["item_id"].to_list() == ["2", "1"]
    assert dataset.items["title"].to_list() == ["One", "Two"]


def test_columns_can_be_named(tmp_path: Path) -> None:
    interactions = write(tmp_path / "a.csv", "who,what,when,liked,user_id\nu,x,9,4,wrong\n")
    items = write(tmp_path / "b.csv", "key,label,about,kinds,title\nx,X!,text,a;b,wrong\n")
    columns = Columns(
        user="who",
        item="what",
        time="when",
        rating="liked",
        item_id="key",
        title="label",
        description="about",
        categories="kinds",
        separator=";",
    )
    dataset = imported(interactions, items, columns=columns)
    assert dataset.interactions.rows() == [("u", "x", 9, 4.0)]
    assert dataset.items.rows() == [("x", "X!", "text", ["a", "b"])]


def test_parquet_with_native_types(tmp_path: Path) -> None:
    interactions = pl.DataFrame({"user": [7, 7], "item": [1, 2], "time": ["2020-01-02", "2020-01-01"]})
    interactions = interactions.with_columns(pl.col("time").str.to_datetime())
    interactions.write_parquet(tmp_path / "i.parquet")
    pl.DataFrame({"item": [1, 2], "title": ["One", "Two"], "genres": [["a", "b"], None]}).write_parquet(
        tmp_path / "t.parquet"
    )
    dataset = imported(tmp_path)
    assert dataset.info.format == Format.PARQUET
    assert dataset.interactions.rows() == [("7", "2", 1577836800), ("7", "1", 1577923200)]
    assert dataset.items["categories"].to_list() == [["a", "b"], []]


def test_one_table_can_carry_the_titles_too(tmp_path: Path) -> None:
    table = write(tmp_path / "log.csv", "user,item,time,title\nu,1,1,One\nu,2,2,Two\nv,1,1,One\n")
    dataset = imported(table)
    assert dataset.items.rows() == [("1", "One", "", []), ("2", "Two", "", [])]
    assert dataset.info.interactions.kept == 3


def test_several_listed_tables_are_joined_in_order(tmp_path: Path) -> None:
    first = write(tmp_path / "train.csv", "user,item\nu,1\n")
    second = write(tmp_path / "test.csv", "user,item\nu,2\n")
    items = write(tmp_path / "items.csv", "item,title\n1,One\n2,Two\n")
    assert imported(first, second, items).interactions["item_id"].to_list() == ["1", "2"]


def test_quoted_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    write(tmp_path / "i.csv", "\ufeffuser,item,time\nu,1,1\n")
    write(tmp_path / "t.csv", '\ufeffitem,title,description\n1,"Ünder\nthe ""sea""","a, b"\n')
    assert imported(tmp_path).items.row(0) == ("1", 'Ünder the "sea"', "a, b", [])
