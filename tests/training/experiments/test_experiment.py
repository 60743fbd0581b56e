"""`allmrec-train experiment`: tables on a shop of thirty items, from one command to the files."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from models.errors import DataError
from tests.tiny_encoder import retrain
from tests.training.ground import write_ground, write_shop
from training import baselines
from training.allmrec.recipe import load_recipe
from training.baselines.bench import Bench
from training.baselines.port import SYSTEMS, find_systems
from training.cli.experiment import _papers_target, _settings
from training.cli.main import app
from training.data.dataset import Dataset
from training.experiments.genres import GenreReport, named
from training.experiments.genres import recompute as recompute_genres
from training.experiments.presets import PRESETS, import_preset, present
from training.experiments.report import TableReport, published_costs, recompute
from training.experiments.scenarios import FEWEST_ASKED, FOREIGN, OVERALL, cold_users, few_shot
from training.experiments.tables import PUBLISHED_FILE, TABLES, Column, Row, Table, tomllib

MINI = Table(
    "mini",
    "For tests",
    (Row("SASRec", "backbone"), Row("MoRec", "morec")),
    (
        Column("Hit@1"),
        Column("Cold", group="cold", metric="ndcg@10"),
        Column("2 known", cold_users(2)),
        Column("K = 9", few_shot(9)),
    ),
)
LLM = Table(
    "llm",
    "Shares the backbone",
    (Row("SASRec", "backbone"), Row("A-LLMRec", "allmrec"), Row("w/o user", "allmrec", ('stage2.injection="items"',))),
    (Column("Hit@1"),),
)
TWO = Table("two", "Interrupted", MINI.rows, (Column("Hit@1"),))
LIKELY = Table("likely", "Of the LLM", (Row("LLM-Only, by likelihood", "llm_only_likely"),), (Column("Hit@1"),))
TEXTS = Table("texts", "Of texts", (Row("MoRec", "morec"),), (Column("Hit@1"),))
CROSS = Table("cross", "Elsewhere", (Row("MoRec", "morec"),), (Column("Hit@1", FOREIGN),))


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tables beside the papers'."""
    for table in (MINI, LLM, TWO, LIKELY, TEXTS, CROSS):
        monkeypatch.setitem(TABLES, table.id, table)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and two shops."""
    directory = tmp_path_factory.mktemp("experiments")
    write_ground(directory)
    write_shop(directory)
    write_shop(directory, "other", users=20, items=40, seed=1)
    return directory


def run(ground: Path, *arguments: str) -> Result:
    common = ["--recipe", str(ground / "recipe.toml"), "--out", str(ground / "out")]
    places = [str(ground / name) if name in {"shop", "other"} else name for name in arguments]
    return CliRunner().invoke(app, ["experiment", *places, *common])


def stages(ground: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (ground / "out" / "shop").rglob("done")}


@pytest.fixture(scope="module")
def mini(ground: Path) -> TableReport:
    """The table, run with two seeds."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(TABLES, MINI.id, MINI)
        result = run(ground, "mini", "shop", "--seeds", "2")
    assert result.exit_code == 0, result.output
    return TableReport.model_validate_json((ground / "out" / "shop" / "tables" / "mini.json").read_text())


def test_a_table_is_written_with_intervals_costs_and_a_picture(ground: Path, mini: TableReport) -> None:
    """Every row has every figure, what it cost to fit and to ask, and is compared with the reference."""
    folder = ground / "out" / "shop" / "tables"
    assert {path.suffix for path in folder.glob("mini.*")} == {".json", ".md", ".png"}
    assert (mini.seeds, mini.reference, mini.dataset) == (2, "SASRec", "shop")
    assert mini.chance == pytest.approx(1 / 20, abs=0.01)
    for title, row in mini.rows.items():
        assert row.training.seconds > 0
        assert row.training.memory > 10
        assert row.milliseconds > 0
        assert row.training.processor > 0
        assert row.processor_milliseconds > 0
        assert set(row.cells) == {"Hit@1", "Cold", "2 known", "K = 9"}
        for cell in row.cells.values():
            assert (cell.estimate is not None) == (cell.users >= FEWEST_ASKED)
            if cell.estimate is None:
                continue
            assert cell.estimate.low <= cell.estimate.mean <= cell.estimate.high
            assert (cell.less_reference is None) == (title == "SASRec")
    assert mini.rows["SASRec"].cells["Hit@1"].users == 12
    assert "| System | Hit@1 (12) |" in (folder / "mini.md").read_text()


def test_figures_follow_from_the_scores_that_were_saved(ground: Path, mini: TableReport) -> None:
    """Hit@1 by loops over the files, candidates among them; and all of the report by `recompute`."""
    home = ground / "out" / "shop"
    row = mini.rows["MoRec"]
    hits = []
    for directory in row.answers["overall"]:
        with np.load(home / directory / "scores.npz") as saved:
            scores, candidates = saved["morec"], saved["candidates"]
        assert candidates.shape == scores.shape == (12, 20)
        for of_user, items in zip(scores, candidates, strict=True):
            others = [score for score, item in zip(of_user[1:], items[1:], strict=True) if item]
            hits.append(all(score < of_user[0] for score in others))
    assert row.cells["Hit@1"].estimate.mean == pytest.approx(np.mean(hits))
    assert recompute(mini.model_copy(update={"chance": 0.0}), MINI, home) == mini


def test_again_nothing_is_trained_or_asked(ground: Path, mini: TableReport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same figures, from the files."""
    for name in ("backbone", "morec"):
        monkeypatch.setitem(SYSTEMS, name, replace(SYSTEMS[name], fit=lambda _: pytest.fail("fitted again")))
    before = stages(ground)
    assert run(ground, "mini", "shop", "--seeds", "2").exit_code == 0
    assert stages(ground) == before
    again = TableReport.model_validate_json((ground / "out" / "shop" / "tables" / "mini.json").read_text())
    assert again.rows == mini.rows


def test_tables_share_stages(ground: Path, mini: TableReport) -> None:
    """The backbone is the other table's, and so are its answers; stage 1 is one for both rows, stage 2 is not."""
    before = stages(ground)
    assert run(ground, "llm", "shop").exit_code == 0
    made = [path.parent.parent.name for path in set(stages(ground)) - set(before)]
    assert sorted(made) == ["stage1", "stage2", "stage2"]
    report = TableReport.model_validate_json((ground / "out" / "shop" / "tables" / "llm.json").read_text())
    assert report.rows["SASRec"].answers["overall"] == mini.rows["SASRec"].answers["overall"][:1]
    assert report.reference == "A-LLMRec"
    assert report.rows["A-LLMRec"].training.seconds > report.rows["SASRec"].training.seconds


def test_all_rows_are_of_the_same_users(ground: Path, mini: TableReport) -> None:
    """With an LLM 8 of 12 are asked about. SASRec's figure is of those, by loops; that of all stands beside it."""
    assert run(ground, "llm", "shop").exit_code == 0
    folder = ground / "out" / "shop"
    report = TableReport.model_validate_json((folder / "tables" / "llm.json").read_text())
    with np.load(folder / report.rows["A-LLMRec"].answers["overall"][0] / "scores.npz") as saved:
        told, users = saved["fewer"], saved["users"]
    with np.load(folder / mini.rows["SASRec"].answers["overall"][0] / "scores.npz") as saved:
        assert np.array_equal(saved["users"], users)
        scores = saved[mini.rows["SASRec"].ranker]
    hits = scores[:, 0] > scores[:, 1:].max(axis=1)
    cell = report.rows["SASRec"].cells["Hit@1"]
    assert (cell.users, cell.all_users, len(told)) == (8, 12, 8)
    assert cell.estimate.mean == pytest.approx(hits[told].mean())
    assert cell.of_all.mean == pytest.approx(hits.mean())
    assert {row.cells["Hit@1"].users for row in report.rows.values()} == {8}
    heads = (folder / "tables" / "llm.md").read_text().splitlines()[4].split(" | ")
    assert heads[:2] == ["| System", "Hit@1 (8)"]
    assert "Hit@1 of all asked" in heads


def answers(ground: Path, table: str, *settings: str) -> str:
    """The folder of the only row's answers."""
    options = [option for setting in settings for option in ("--set", setting)]
    result = run(ground, table, "shop", *options)
    assert result.exit_code == 0, result.output
    report = TableReport.model_validate_json((ground / "out" / "shop" / "tables" / f"{table}.json").read_text())
    (row,) = report.rows.values()
    return row.answers["overall"][0]


def test_answers_are_of_the_prompt_and_of_the_llm(ground: Path, tmp_path: Path) -> None:
    """Another list of titles, and an LLM that was trained again in the same folder, are asked anew; nothing else is."""
    llm = tmp_path / "llm"
    shutil.copytree(ground / "llm", llm)
    settings = f'stage2.llm="{llm}"', "blend.title_list.history_items=4"
    first = answers(ground, "likely", *settings)
    assert answers(ground, "likely", *settings) == first
    assert answers(ground, "likely", settings[0], "blend.title_list.history_items=1") != first
    retrain(llm)
    assert answers(ground, "likely", *settings) != first


def test_answers_are_of_the_text_encoder(ground: Path, tmp_path: Path) -> None:
    """MoRec whose encoder was trained again in the same folder is trained and asked anew."""
    encoder = tmp_path / "encoder"
    shutil.copytree(ground / "tiny-encoder", encoder)
    setting = f'baselines.morec.text_encoder="{encoder}"'
    first = answers(ground, "texts", setting)
    assert answers(ground, "texts", setting) == first
    retrain(encoder)
    assert answers(ground, "texts", setting) != first


def test_ctrl_c_loses_no_row(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said before it is there; the same command goes on."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    arguments = ("two", "shop", "--set", "backbone.learning_rate=3e-3")
    with monkeypatch.context() as patched:
        patched.setitem(SYSTEMS, "morec", replace(SYSTEMS["morec"], fit=interrupted))
        result = run(ground, *arguments)
    assert result.exit_code == 130
    before = stages(ground)
    fits = []
    of_backbone = SYSTEMS["backbone"].fit
    monkeypatch.setitem(
        SYSTEMS, "backbone", replace(SYSTEMS["backbone"], fit=lambda bench: fits.append(1) or of_backbone(bench))
    )
    assert run(ground, *arguments).exit_code == 0
    assert fits == []
    assert before.items() <= stages(ground).items()


def test_favourite_genres_are_chosen_and_written(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of users whose favourites were not learned from; figures follow from what was said, which is kept."""
    result = run(ground, "figure5", "shop")
    answers = ground / "out" / "shop" / "answers"
    kept = {path: path.stat().st_mtime_ns for path in answers.glob("genres-*.json")}
    assert len(kept) == 3
    assert run(ground, "figure4", "shop").exit_code == 0
    assert run(ground, "figure5", "shop").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in answers.glob("genres-*.json")} == kept
    with monkeypatch.context() as patched:  # a text encoder, say, that was trained again in the same folder
        patched.setattr(Bench, "identities", lambda *_, **__: {"text encoder": "another"})
        assert run(ground, "figure4", "shop").exit_code == 0
    assert len(list(answers.glob("genres-*.json"))) == len(kept) + 1  # the LLM alone reads nothing of it
    assert result.exit_code == 0, result.output
    report = GenreReport.model_validate_json((ground / "out" / "shop" / "tables" / "figure5.json").read_text())
    assert set(report.answers) == {"LLM-Only", "TALLRec", "A-LLMRec"}
    for name, said in report.answers.items():
        right = [genre == favorite for genre, favorite in zip(said.chosen, report.favorites, strict=True)]
        assert report.chosen[name].mean == pytest.approx(np.mean(right))
        assert len(said.written) == len(right) > 3
    empty = report.model_copy(update={"chosen": {}, "written": {}, "answered": {}})
    assert recompute_genres(empty) == report


def test_a_genre_counts_where_it_is_named_first() -> None:
    """Whatever stands around it; of two at one place the longer."""
    genres = ["Drama", "Action", "Action Comedy"]
    assert named("I would say action comedy, then Drama", genres) == "Action Comedy"
    assert named("drama or action", genres) == "Drama"
    assert named("Nothing", genres) is None


def test_a_genre_is_named_by_a_word_of_its_own() -> None:
    """Not by what begins or ends another word; scripts without spaces have none."""
    assert named("I like award winning software about warm hearts", ["War", "Drama"]) is None
    assert named("A partly fantastical romance", ["Art", "Romance"]) == "Romance"
    assert named("software, then war (sci-fi)", ["War", "Sci-Fi"]) == "War"
    assert named("War2, thrillers and dramas", ["War", "Drama", "Thriller"]) == "Thriller"
    assert named("artsy westerns", ["Art", "Western"]) == "Western"
    assert named("我喜欢动作片", ["动作"]) == "动作"


def test_another_catalogue_is_asked_about(ground: Path) -> None:
    """Learned from one shop, asked about the other's users; without it a line says what is lacking."""
    refused = run(ground, "cross", "shop")
    assert (refused.exit_code, "--target" in refused.output) == (2, True)
    result = run(ground, "cross", "shop", "--target", str(ground / "other"))
    assert result.exit_code == 0, result.output
    report = TableReport.model_validate_json((ground / "out" / "shop" / "tables" / "cross.json").read_text())
    assert (report.dataset, report.target) == ("shop", "other")
    with np.load(ground / "out" / "shop" / report.rows["MoRec"].answers["foreign"][0] / "scores.npz") as saved:
        assert saved["candidates"].max() > 30


def test_too_little_data_is_one_line(ground: Path) -> None:
    """Named: the scenario, and how much there is."""
    result = run(ground, "table6", "shop")
    assert result.exit_code == 2
    assert "error: scenario '256 users': shop has 30 users" in result.output


def test_a_table_without_enough_data_is_left_out_of_all(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next dataset has its turn."""
    for name in [name for name in TABLES if name not in {"mini", "table6"}]:
        monkeypatch.delitem(TABLES, name)
    monkeypatch.setattr("training.experiments.registry.FIGURES", {})
    result = run(ground, "--all", "shop", "other")
    assert result.exit_code == 0, result.output
    assert result.output.count("is left out: scenario '256 users'") == 2
    assert (ground / "out" / "other" / "tables" / "mini.md").is_file()


@pytest.mark.parametrize("name", ["training.json", "scores.npz", "cost.json"])
@pytest.mark.parametrize("left", [None, 0, 50])
def test_damaged_answers_are_asked_again(name: str, left: int | None, ground: Path, mini: TableReport) -> None:
    """Figures are those of before, whatever a full disk or a careless hand left."""
    home = ground / "out" / "shop"
    damaged = home / mini.rows["MoRec"].answers["overall"][0] / name
    if left is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:left])
    result = run(ground, "mini", "shop", "--seeds", "2")
    assert result.exit_code == 0, result.output
    again = TableReport.model_validate_json((home / "tables" / "mini.json").read_text())
    assert again.rows["MoRec"].cells == mini.rows["MoRec"].cells
    assert again.rows["MoRec"].milliseconds > 0


def test_a_mistyped_baseline_is_refused(ground: Path) -> None:
    result = run(ground, "mini", "shop", "--set", "baselines.morek.learning_rate=1e-3")
    assert result.exit_code == 2
    assert "baselines.morek: there is no such system; did you mean 'morec'?" in result.output


def test_raw_files_are_imported_on_the_way(ground: Path) -> None:
    """What their data cannot support is said, and a dataset that nothing can be learned from is refused in a line."""
    raw = ground / "files"
    raw.mkdir()
    (raw / "items.csv").write_text("item_id,title\n" + "".join(f"i{item},Title {item}\n" for item in range(9)))
    rows = [f"u{user},i{item},{item}\n" for user in range(4) for item in (user, user + 1)]
    (raw / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    result = run(ground, "two", str(raw))
    assert result.exit_code == 2
    assert "warning: no user has 3 interactions" in result.output
    assert "error: scenario 'all users': 0 users of files" in result.output


def test_the_list_names_all_systems_tables_and_presets() -> None:
    """With what they take."""
    output = CliRunner().invoke(app, ["experiment", "--list"]).output
    for name in (*SYSTEMS, *TABLES, *PRESETS):
        assert f"  {name} " in output
    assert "TALLRec: interactions, titles, LLM with LoRA" in output
    assert "Luxury_Beauty.json.gz, meta_Luxury_Beauty.json.gz; 4-core, ratings from 4" in output


def test_tables_name_systems_that_there_are_and_rows_that_were_published() -> None:
    """A misspelt row would lose the paper's figure silently."""
    systems, published = find_systems(baselines), tomllib.loads(PUBLISHED_FILE.read_text())
    for table in TABLES.values():
        assert len({row.title for row in table.rows}) == len(table.rows)
        assert {row.system for row in table.rows} <= set(systems)
        columns = {column.title for column in table.columns}
        columns |= {"training, min", "s a batch"} if table.times else set()
        assert all(set(figures) <= columns for figures in table.published.values())
    for name, rows in published.items():
        assert set(rows) <= {row.title for row in TABLES[name].rows}
    assert OVERALL in TABLES["table1"].scenarios


def write_amazon(folder: Path) -> None:
    """Five users and five items where all met all, a sixth whom 3 ratings bring under the core."""
    reviews = [
        {"reviewerID": f"u{user}", "asin": f"i{item}", "overall": 5.0, "unixReviewTime": 1_500_000_000 + item}
        for user in range(5)
        for item in range(5)
    ]
    reviews += [
        {
            "reviewerID": "u9",
            "asin": f"i{item}",
            "overall": 3.0 if item else 5.0,
            "unixReviewTime": 1_500_000_000 + item,
        }
        for item in range(5)
    ]
    write_reviews(folder, reviews, 6)


def write_reviews(folder: Path, reviews: list[dict[str, object]], items: int) -> None:
    """The files of a preset."""
    metadata = [{"asin": f"i{item}", "title": f"Cream {item}", "description": ["Soft."]} for item in range(items)]
    for name, rows in (("Luxury_Beauty", reviews), ("meta_Luxury_Beauty", metadata)):
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            file.write("\n".join(map(json.dumps, rows)))


def test_presets_filter_as_the_paper_does(tmp_path: Path) -> None:
    """Beauty: ratings above 3, then the 4-core; items of nobody leave. Without its files a line says which."""
    write_amazon(tmp_path)
    assert present(tmp_path) == ["amazon-beauty"]
    dataset = Dataset.load(import_preset("amazon-beauty", tmp_path, tmp_path / "made", Console(quiet=True)))
    assert dataset.interactions["user_id"].unique().sort().to_list() == [f"u{user}" for user in range(5)]
    assert dataset.items["item_id"].sort().to_list() == [f"i{item}" for item in range(5)]
    assert (dataset.info.name, dataset.info.domain) == ("amazon-beauty", "item")
    for name in ("Luxury_Beauty", "meta_Luxury_Beauty"):
        path = tmp_path / f"{name}.json.gz"
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"Cream", b"Lotion")))
    again = Dataset.load(import_preset("amazon-beauty", tmp_path, tmp_path / "made", Console(quiet=True)))
    assert set(again.items["title"]) == {f"Lotion {item}" for item in range(5)}
    with pytest.raises(DataError, match=r"amazon-toys needs Toys_and_Games\.json\.gz and meta_Toys_and_Games"):
        import_preset("amazon-toys", tmp_path, tmp_path / "toys", Console(quiet=True))


def test_the_papers_target_is_asked_where_it_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its files, or imported before."""
    assert PRESETS["amazon-movies"].target == "amazon-games"
    assert _papers_target("amazon-movies", tmp_path, tmp_path / "out") is None
    monkeypatch.setitem(PRESETS, "amazon-movies", replace(PRESETS["amazon-movies"], target="amazon-beauty"))
    write_amazon(tmp_path)
    assert _papers_target("amazon-movies", tmp_path, tmp_path / "out") == "amazon-beauty"
    assert _papers_target("shop", tmp_path, tmp_path / "out") is None
    path = import_preset("amazon-beauty", tmp_path, tmp_path / "out" / "amazon-beauty" / "data", Console(quiet=True))
    for file in tmp_path.glob("*.gz"):
        file.unlink()
    assert _papers_target("amazon-movies", tmp_path, tmp_path / "out") == "amazon-beauty"
    assert import_preset("amazon-beauty", tmp_path, path.parent, Console(quiet=True)) == path


def test_a_preset_may_be_the_target(ground: Path) -> None:
    """It is imported for the table that asks about it, and called by its name."""
    reviews = [
        {"reviewerID": f"u{user}", "asin": f"i{(user + place) % 30}", "overall": 5.0, "unixReviewTime": 10**9 + place}
        for user in range(30)
        for place in range(6)
    ]
    write_reviews(ground, reviews, 30)
    result = run(ground, "cross", "shop", "--target", "amazon-beauty", "--files", str(ground))
    report = ground / "out" / "shop" / "tables" / "cross.json"
    assert result.exit_code == 0, result.output
    assert TableReport.model_validate_json(report.read_text()).target == "amazon-beauty"
    for file in ground.glob("*.gz"):
        file.unlink()


@pytest.mark.parametrize("given", [[], ["stage2.rehearsal={epochs=4}"], ["stage2.rehearsal.minutes=9"]])
def test_no_loop_takes_longer_than_the_minutes_given(given: list[str]) -> None:
    """A rehearsal that the recipe has, or who asks, unless its own minutes are given."""
    for name in ("default", "papers"):
        recipe = load_recipe(name, _settings([], given, 3.0, name))
        assert (recipe.backbone.loop.minutes, recipe.stage1.loop.minutes, recipe.stage2.loop.minutes) == (3, 3, 3)
        if recipe.stage2.rehearsal is not None:
            assert recipe.stage2.rehearsal.minutes == (9 if "minutes" in "".join(given) else 3)
    assert load_recipe("default", _settings([], given, None, "default")).stage2.loop.minutes != 3


def test_a_column_that_cannot_be_had_does_not_cost_the_others(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine users can be learned from, and a hundred not; without the first column nothing is left."""
    column = Column("K = 9", few_shot(9)), Column("K = 100", few_shot(100))
    table = Table(
        "few",
        "Few",
        (Row("SASRec", "backbone", metrics=("ndcg@10",)),),
        (column[0], Column("All", metric="ndcg@10"), column[1]),
    )
    monkeypatch.setitem(TABLES, "few", table)
    result = run(ground, "few", "shop")
    assert result.exit_code == 0, result.output
    assert "a part of few is left out: scenario '100 users'" in " ".join(result.output.split())
    report = TableReport.model_validate_json((ground / "out" / "shop" / "tables" / "few.json").read_text())
    (row,) = report.rows.values()
    assert set(row.cells) == {"K = 9", "All"}
    assert row.cells["K = 9"].estimate is None  # nothing but NDCG means anything of this row
    assert row.cells["All"].estimate is not None
    monkeypatch.setitem(TABLES, "few", replace(table, columns=column[1:]))
    alone = run(ground, "few", "shop")
    assert isinstance(alone.exception, DataError) or "100 users" in alone.output
    assert alone.exit_code != 0


def test_a_backbone_of_ones_own_is_refused_where_rows_have_theirs(ground: Path) -> None:
    result = run(ground, "table11", "shop", "--set", "backbone.kind=external", "--set", "backbone.settings.items=x.npz")
    assert result.exit_code != 0
    assert "has a backbone of its own" in f"{result.output} {result.exception}"


def test_the_papers_costs_stand_beside_ours() -> None:
    """Minutes of training and seconds of a batch of Table 10, which are of no column."""
    table = TABLES["table10"]
    rows = {row.title: published_costs(table, row.title) for row in table.rows}
    assert rows["TALLRec"] == {"training, min": {"amazon-beauty": 588.58}, "s a batch": {"amazon-beauty": 3.36}}
    assert rows["A-LLMRec"]["s a batch"] == rows["A-LLMRec_all"]["s a batch"] == {"amazon-beauty": 1.98}
    assert published_costs(TABLES["table1"], "SASRec") == {}


def test_some_rows_of_a_table_stand_in_files_of_their_own(ground: Path, mini: TableReport) -> None:
    """The whole table stays; a system that is none, or not in the table, is refused."""
    folder = ground / "out" / "shop" / "tables"
    before = (folder / "mini.json").read_bytes()
    assert run(ground, "mini", "shop", "--only", "morec").exit_code == 0
    assert (folder / "mini.json").read_bytes() == before
    alone = TableReport.model_validate_json((folder / "mini-morec.json").read_text())
    assert list(alone.rows) == ["MoRec"]
    assert alone.rows["MoRec"].answers["overall"] == mini.rows["MoRec"].answers["overall"][:1]
    result = run(ground, "mini", "shop", "--only", "allmrec")
    assert result.exit_code == 2
    assert "mini has no row of allmrec" in result.output
    assert "figure4 is always drawn whole" in run(ground, "figure4", "shop", "--only", "allmrec").output
    assert "no such system: 'morc', did you mean 'morec'?" in run(ground, "mini", "shop", "--only", "morc").output
