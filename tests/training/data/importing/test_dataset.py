"""The dataset folder and the command line that makes it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import ValidationError
from typer.testing import CliRunner

from models.errors import DataError
from training.cli.data import app
from training.data.dataset import ITEMS_SCHEMA, Dataset, DatasetInfo
from training.data.importing.source import source_name


@pytest.fixture
def dataset() -> Dataset:
    interactions = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [5]})
    items = pl.DataFrame(
        {"item_id": ["a"], "title": ["A"], "description": [""], "categories": [[]]}, schema=dict(ITEMS_SCHEMA)
    )
    return Dataset(DatasetInfo(name="one", format="test", users=1), interactions, items)


def test_what_is_saved_is_loaded(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "deep" / "one")
    loaded = Dataset.load(tmp_path / "deep" / "one")
    assert loaded.info == dataset.info
    assert_frame_equal(loaded.interactions, dataset.interactions)
    assert_frame_equal(loaded.items, dataset.items)


def test_an_older_dataset_is_replaced_and_nothing_else_stays(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "one")
    Dataset(dataset.info.model_copy(update={"name": "two"}), dataset.interactions, dataset.items).save(tmp_path / "one")
    assert Dataset.load(tmp_path / "one").info.name == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("other", ["notes.txt", "raw/items.csv", "items.csv"])
def test_nothing_but_a_dataset_is_replaced(dataset: Dataset, tmp_path: Path, other: str) -> None:
    """The sources may lie there, too."""
    dataset.save(tmp_path / "one")
    kept = tmp_path / "one" / other
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("dear to somebody")
    with pytest.raises(DataError, match=rf"one holds more than a dataset \({other.partition('/')[0]}\): move"):
        dataset.save(tmp_path / "one")
    assert kept.read_text() == "dear to somebody"


def test_what_comes_by_itself_is_replaced(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "one")
    for name in (".DS_Store", "._x", "Thumbs.db"):
        (tmp_path / "one" / name).touch()
    dataset.save(tmp_path / "one")
    assert Dataset.load(tmp_path / "one").info == dataset.info


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *[("shop.csv.gz", "shop"), ("Toys.JSON.GZ", "Toys"), ("ml-100k.inter", "ml-100k"), (".csv", ".csv")],
        *[
            ("shop/", "shop"),
            ("shop.v1/", "shop.v1"),
            ("2026.10/", "2026.10"),
            (".shop/", ".shop"),
            ("s.csv/", "s.csv"),
        ],
    ],
)
def test_datasets_are_called_after_their_sources(tmp_path: Path, path: str, name: str) -> None:
    """Files without what they are, folders by their whole names: two of these have two."""
    place = tmp_path / path
    place.mkdir() if path.endswith("/") else place.touch()
    assert source_name(place) == name


def test_a_failed_save_leaves_the_older_dataset(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk gives out when the new folder is moved into place."""
    dataset.save(tmp_path / "one")
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(DataError, match="cannot be written: disk on fire"):
        dataset.save(tmp_path / "one")
    assert Dataset.load(tmp_path / "one").info == dataset.info
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("moment", ["new", "one"])
def test_ctrl_c_while_saving_leaves_the_older_dataset(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """It strikes after the older dataset was moved aside, or just as the new one is moved in."""
    dataset.save(tmp_path / "one")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        moved = rename(self, target) if self.name == "one" else None
        if self.name == moment:
            raise KeyboardInterrupt
        return moved or rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dataset.save(tmp_path / "one")
    assert Dataset.load(tmp_path / "one").info == dataset.info
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_folder_of_other_things_is_never_replaced(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match="is no dataset"):
        dataset.save(tmp_path)
    assert (tmp_path / "photo.jpg").exists()


def test_a_folder_that_is_no_dataset_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="allmrec-train import"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize("name", ["interactions.parquet", "items.parquet", "dataset.json"])
def test_a_damaged_file_is_named(dataset: Dataset, tmp_path: Path, name: str) -> None:
    dataset.save(tmp_path / "one")
    (tmp_path / "one" / name).write_bytes(b"junk")
    with pytest.raises(DataError, match=name):
        Dataset.load(tmp_path / "one")


def test_a_missing_column_is_named(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "one")
    dataset.interactions.drop("timestamp").write_parquet(tmp_path / "one" / "interactions.parquet")
    with pytest.raises(DataError, match="needs a column timestamp"):
        Dataset.load(tmp_path / "one")


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ValidationError, match="choose one of item, movie"):
        DatasetInfo(name="x", format="test", domain="film")


class TestCommands:
    """`import` and `demo`."""

    def test_import_reports_every_row(self, tmp_path: Path) -> None:
        (tmp_path / "i.csv").write_text("user,item,time\nu,a,1\nu,a,2\nu,zzz,3\n")
        (tmp_path / "t.csv").write_text("item,title\na,A\n")
        arguments = ["import", str(tmp_path), "--out", str(tmp_path / "out"), "--on-bad-row", "skip", "--drop-repeats"]
        result = CliRunner().invoke(app, [*arguments, "--domain", "song", "--name", "tunes"])
        assert result.exit_code == 0
        assert "bad: unknown item" in result.output
        assert "left out: repeated user-item pair" in result.output
        info = Dataset.load(tmp_path / "out").info
        assert (info.name, info.domain, info.interactions.kept) == ("tunes", "song", 1)

    def test_import_tells_and_keeps_what_was_taken_for_what(self, tmp_path: Path) -> None:
        (tmp_path / "i.tsv").write_text("user\titem\tdate\ttitle\tmy_grade\nu\ta\t2020-01-01\tA\t3\n")
        result = CliRunner().invoke(app, ["import", str(tmp_path), "--out", str(tmp_path / "out")])
        assert result.exit_code == 0
        for told in ("encoding", "utf-8", "tab", "first line", "date: ISO 8601", "my_grade (looks like a rating)"):
            assert told in result.output
        reading = Dataset.load(tmp_path / "out").info.readings[0]
        assert reading.columns == {"user": "user", "item": "item", "time": "date", "title": "title"}
        assert reading.values["time"] == "ISO 8601"
        assert reading.taken_for["delimiter"] == "tab"

    def test_an_interrupted_import_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "i.csv").write_text("user,item,title\nu,a,A\n")

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(pl.DataFrame, "write_parquet", interrupted)
        result = CliRunner().invoke(app, ["import", str(tmp_path / "i.csv"), "--out", str(tmp_path / "out")])
        assert result.exit_code == 130
        assert "nothing was written" in result.output
        assert [path.name for path in tmp_path.iterdir()] == ["i.csv"]

    def test_inspect_shows_the_data_and_draws_it(self, tmp_path: Path) -> None:
        (tmp_path / "i.csv").write_text(
            "user,item,time,title\nu,a,1500000000,A\nu,b,1600000000,B\nv,a,1600000000,A\nw,c,1600000000,C\n"
        )
        CliRunner().invoke(app, ["import", str(tmp_path / "i.csv"), "--out", str(tmp_path / "out")])
        picture = tmp_path / "pictures" / "out.png"
        result = CliRunner().invoke(app, ["inspect", str(tmp_path / "out"), "--picture", str(picture)])
        assert result.exit_code == 0
        for told in ("2017-07-14 to 2020-09-13", "median 1", "no user has 3 interactions", "warning"):
            assert told in result.output
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert max(map(len, result.output.splitlines())) <= 80 + len(str(picture))

    @pytest.mark.parametrize("name", ["US$_2020_$ sales", "$\\foo_{$"])
    def test_inspect_draws_whatever_the_name_and_the_ratings(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "i.csv").write_text("user,item,rating,title\nu,a,1e308,A\nu,b,-1e308,B\nv,a,5,A\nv,c,1,C\n")
        CliRunner().invoke(app, ["import", str(tmp_path / "i.csv"), "--name", name, "--out", str(tmp_path / "out")])
        picture = tmp_path / "out.png"
        result = CliRunner().invoke(app, ["inspect", str(tmp_path / "out"), "--picture", str(picture)])
        assert result.exit_code == 0
        assert picture.read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("command", ["import", "demo"])
    def test_a_wrong_output_folder_is_refused_before_the_work(self, tmp_path: Path, command: str) -> None:
        (tmp_path / "photo.jpg").touch()
        sources = [str(tmp_path)] if command == "import" else []
        result = CliRunner().invoke(app, [command, *sources, "--out", str(tmp_path)])
        assert isinstance(result.exception, DataError)

    def test_core_sets_both_thresholds(self, tmp_path: Path) -> None:
        (tmp_path / "i.csv").write_text("user,item,time\nu,a,1\nu,b,2\nv,a,1\nv,b,2\nw,a,1\n")
        (tmp_path / "t.csv").write_text("item,title\na,A\nb,B\n")
        CliRunner().invoke(app, ["import", str(tmp_path), "--out", str(tmp_path / "out"), "--core", "2"])
        settings = Dataset.load(tmp_path / "out").info.settings
        assert (settings["min_user_interactions"], settings["min_item_interactions"]) == (2, 2)

    def test_demo_follows_its_options(self, tmp_path: Path) -> None:
        options = ["--users", "30", "--items", "120", "--seed", "3"]
        result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), *options])
        assert result.exit_code == 0
        info = Dataset.load(tmp_path / "out").info
        assert (info.users, info.items.kept, info.settings["seed"], info.domain) == (30, 120, 3, "movie")
