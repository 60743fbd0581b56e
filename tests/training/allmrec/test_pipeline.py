"""`allmrec-train`: the whole chain on a catalogue of thirty items and an LLM that knows nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import BloomConfig
from typer.testing import CliRunner, Result

from models.alignment.text_encoder import TextEncoder
from models.bundle.manifest import Origin
from models.bundle.store import is_intact, load_bundle
from models.llm.loading import load_llm
from models.prompts.anchor import reading_of
from tests.device import DEVICE
from tests.tiny import tiny_head, tiny_llm, tiny_title_projector
from tests.tiny_encoder import retrain, write_tiny_encoder
from training.allmrec import pipeline
from training.allmrec.export import export
from training.cli.main import app
from training.data.dataset import Dataset
from training.data.splits import SequenceSplit
from training.evaluation.evaluate import EvaluationReport
from training.runs.stage_run import StageRun

RECIPE = """
device = "{device}"
refit = false

[backbone]
settings = {{ embedding_size = 8, max_length = 10, dropout = 0.1 }}
loop = {{ epochs = 2 }}

[stage1]
text_encoder = "{encoder}"
joint_size = 12
heads = {{ max_steps = 5 }}
loop = {{ max_steps = 2 }}
refit = {{ max_steps = 2 }}

[stage2]
llm = "{llm}"
validation_users = 5
loop = {{ max_steps = 2 }}

[stage2.examples]
candidates = 5
batch_tokens = 2000

[stage2.warm_start]
steps = 5

[evaluation]
users = 10
resamples = 50
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw CSV files, a text encoder, an LLM and a recipe for them."""
    directory = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(0)
    (directory / "shop").mkdir()
    with (directory / "shop" / "interactions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "timestamp"])
        for user in range(30):
            for time, item in enumerate(rng.permutation(28)[: rng.integers(4, 9)]):
                rows.writerow([f"u{user}", f"i{item}", time])
    with (directory / "shop" / "items.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "title"])
        rows.writerows([f"i{item}", f"Title {item}"] for item in range(30))
    llm = tiny_llm(interface=True)
    llm.model.save_pretrained(directory / "llm")
    llm.tokenizer.save_pretrained(directory / "llm")
    llm.interface.save(directory / "llm")
    encoder = write_tiny_encoder(directory, ["title", *map(str, range(30))])
    (directory / "recipe.toml").write_text(RECIPE.format(encoder=encoder, llm=directory / "llm", device=DEVICE))
    return directory


def allmrec_train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_fit(ground: Path, directory: Path, *settings: str) -> Result:
    options = [option for setting in settings for option in ("--set", setting)]
    return allmrec_train(
        "fit",
        ground / "shop",
        "--recipe",
        ground / "recipe.toml",
        "--out",
        directory / "run",
        "--bundle",
        directory / "bundle",
        *options,
    )


@pytest.fixture(scope="module")
def fitted(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fitted")
    result = run_fit(ground, directory)
    assert result.exit_code == 0, result.output
    return directory


def done(directory: Path) -> dict[str, int]:
    run = directory / "run"
    paths = [*run.glob("*/done"), *run.glob("examples/*/done")]
    return {path.relative_to(run).parts[0]: path.stat().st_mtime_ns for path in paths}


def test_fit_goes_from_raw_files_to_a_bundle_that_loads(ground: Path, fitted: Path) -> None:
    """The importer found out what the files are, and the bundle belongs to the LLM of the recipe."""
    bundle = load_bundle(fitted / "bundle")
    llm = load_llm(str(ground / "llm"))
    bundle.check_llm(llm.fingerprint, llm.name, reading_of(llm.tokenizer))
    assert bundle.manifest.llm.reading == reading_of(llm.tokenizer)
    split = SequenceSplit.from_dataset(Dataset.load(fitted / "run" / "data" / "dataset"))
    assert bundle.manifest.items == 30
    assert bundle.manifest.users == 30
    assert bundle.model.histories.of("u3").tolist() == split.full_history(split.user_ids.index("u3")).tolist()
    assert set(bundle.manifest.metrics) == {"backbone", "stage1", "stage2", "blend"}
    assert bundle.manifest.metrics["stage2"]["validation"]["ndcg@10"] > 0


def test_every_stage_leaves_its_config_and_metrics(fitted: Path) -> None:
    """And curves where something was trained."""
    run = fitted / "run"
    for stage in ("data", "backbone", "stage1", "stage2", "blend", "evaluation", "export"):
        assert {"config.json", "environment.json", "metrics.json"} <= {path.name for path in (run / stage).iterdir()}
    for stage in ("backbone", "stage1", "stage2"):
        assert (run / stage / "curve.png").is_file()
    assert (run / "evaluation" / "report.md").read_text().startswith("# Evaluation on shop")


@pytest.mark.parametrize("place", ["device", "stage2.device", "baselines.ctrl.device"])
def test_a_device_that_is_not_there_is_one_line_before_anything_runs(ground: Path, tmp_path: Path, place: str) -> None:
    """Wherever a recipe names it."""
    result = run_fit(ground, tmp_path, f"{place}=cuda:99")
    assert result.exit_code == 2
    assert "error: device 'cuda:99' cannot be used: " in result.output
    assert not (tmp_path / "run").exists()


def test_nothing_runs_again_when_nothing_changed(ground: Path, fitted: Path) -> None:
    """No stage is touched, no second version is published."""
    before, versions = done(fitted), sorted(os.listdir(fitted / "bundle"))
    result = run_fit(ground, fitted)
    assert result.exit_code == 0, result.output
    assert result.output.count("done before, unchanged") == 7
    assert done(fitted) == before
    assert sorted(os.listdir(fitted / "bundle")) == versions


def test_a_bundle_is_served_again_and_made_again_if_it_is_damaged(ground: Path, fitted: Path, tmp_path: Path) -> None:
    """What an export says is there can be served."""
    shutil.copytree(fitted, tmp_path, symlinks=True, dirs_exist_ok=True)
    home = tmp_path / "bundle"

    def exported() -> Path:
        result = run_fit(ground, tmp_path)
        assert result.exit_code == 0, result.output
        return load_bundle(home).path

    first = exported()
    (home / "current").unlink()
    assert exported() == first
    (home / "current").unlink()
    (home / "current").symlink_to("another")
    assert exported() == first
    (first / "projector.safetensors").write_bytes(b"damaged")
    assert is_intact(exported())  # in its place, where both are of one second


def test_a_changed_setting_runs_its_stage_and_those_after_it(
    ground: Path, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of evaluated users: nothing is trained or published again, only evaluated."""
    before = done(fitted)
    for stage in ("train_backbone", "train_stage1", "train_stage2"):
        monkeypatch.setattr(pipeline, stage, loads_only(getattr(pipeline, stage)))
    result = run_fit(ground, fitted, "evaluation.users=8")
    assert result.exit_code == 0, result.output
    after = done(fitted)
    assert {stage for stage in after if after[stage] != before[stage]} == {"evaluation"}
    report = EvaluationReport.model_validate_json((fitted / "run" / "evaluation" / "report.json").read_text())
    assert report.ranked_users == 8


def test_the_bundle_is_published_before_the_evaluation(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who stops the evaluation can serve; the same command then evaluates what is published."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "evaluate", interrupted)
        assert run_fit(ground, tmp_path).exit_code == 130
    version = load_bundle(tmp_path / "bundle").version
    result = run_fit(ground, tmp_path)
    assert result.exit_code == 0, result.output
    assert load_bundle(tmp_path / "bundle").version == version
    assert (tmp_path / "run" / "evaluation" / "report.md").is_file()


READERS = {"backbone": "backbone.settings", "stage1": "stage1", "blend": "signals"}
"""Who reads texts, and where in a recipe stands by which encoder."""


def hybrid_settings(directory: Path) -> list[str]:
    """A backbone that reads texts; every reader has an encoder of its own."""
    encoders = [f'{section}.text_encoder="{directory / stage}"' for stage, section in READERS.items()]
    return ["backbone.kind=hybrid", *encoders]


@pytest.fixture(scope="module")
def hybrid(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hybrid")
    for stage in READERS:
        shutil.copytree(ground / "tiny-encoder", directory / stage)
    result = run_fit(ground, directory, *hybrid_settings(directory))
    assert result.exit_code == 0, result.output
    return directory


def test_a_hybrid_goes_all_the_way(hybrid: Path) -> None:
    """Into a bundle whose items without interactions have the backbone's own vectors, and through the evaluation."""
    model = load_bundle(hybrid / "bundle").model
    assert not model.catalogue.trained[1:].all()
    assert torch.equal(model.cf_vectors, model.backbone.item_vectors)
    report = EvaluationReport.model_validate_json((hybrid / "run" / "evaluation" / "report.json").read_text())
    assert report.reference == "hybrid"


@pytest.mark.parametrize("stage", READERS)
def test_an_encoder_that_was_trained_again_runs_what_reads_it(
    ground: Path, hybrid: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same folder, under the same name: what stands before is done, the reader is not."""

    class StageStartedError(Exception):
        pass

    def starts(run: StageRun) -> None:
        raise StageStartedError(run.directory.name)

    monkeypatch.setattr(StageRun, "start", starts)
    weights = hybrid / stage / "model.safetensors"
    before = weights.read_bytes()
    retrain(hybrid / stage)
    result = run_fit(ground, hybrid, *hybrid_settings(hybrid))
    weights.write_bytes(before)
    assert isinstance(result.exception, StageStartedError), result.output
    assert str(result.exception) == stage
    assert run_fit(ground, hybrid, *hybrid_settings(hybrid)).exit_code == 0


def test_a_second_backbone_goes_all_the_way(ground: Path, tmp_path: Path) -> None:
    """A stage of its own, a signal of the blend, trained again for the bundle, and there only if it is weighed."""
    encoder = f'second.settings.text_encoder="{ground / "tiny-encoder"}"'
    settings = "second.kind=hybrid", encoder, "second.settings.embedding_size=6", "second.epochs=3", "refit=true"
    result = run_fit(ground, tmp_path, *settings)
    assert result.exit_code == 0, result.output
    assert "[4/7] second" in result.output
    bundle, run = load_bundle(tmp_path / "bundle"), tmp_path / "run"
    blends = bundle.manifest.blends
    weighed = {signal.id for blend in (blends.blend, blends.llm) for signal in blend.signals}
    assert "cf_second" in weighed | set(blends.blend.left_out)
    assert (bundle.model.second is not None) is ("cf_second" in weighed)
    assert (run / "refit" / "second").exists() is ("cf_second" in weighed)
    assert bundle.manifest.metrics["second"]["epochs"] == 3
    assert load_file(run / "second" / "backbone.safetensors")["items.weight"].shape == (31, 6)
    report = EvaluationReport.model_validate_json((run / "evaluation" / "report.json").read_text())
    assert "cf_second" in report.rankers
    assert "cf_second" in report.checks["permuted_titles"].losses
    again = run_fit(ground, tmp_path, *settings)
    assert "[4/7] second: done before, unchanged" in again.output


@pytest.mark.parametrize("kind", ["gru4rec", "nextitnet"])
def test_other_networks_become_bundles(kind: str, ground: Path, tmp_path: Path) -> None:
    """By the setting alone, through both stages."""
    arguments = ("--recipe", ground / "recipe.toml", "--out", tmp_path / "run", "--bundle", tmp_path / "bundle")
    result = allmrec_train("export", ground / "shop", *arguments, "--set", f"backbone.kind={kind}")
    assert "[5/5] export" in result.output, result.output
    assert result.exit_code == 0, result.output
    assert load_bundle(tmp_path / "bundle").manifest.backbone.kind == kind


def test_others_may_learn_from_what_was_before_a_moment(tmp_path: Path) -> None:
    """For `evaluate --time-split`: what came later is known to nobody."""
    times = [
        (f"u{user}", f"i{(7 * user + 3 * step) % 40}", 1_600_000_000 + 86_400 * (user + 3 * step))
        for user in range(30)
        for step in range(10)
    ]
    rows = "".join(f"{user},{item},{moment},{item} of the shop\n" for user, item, moment in times)
    (tmp_path / "events.csv").write_text("user,item,time,title\n" + rows)
    assert allmrec_train("import", tmp_path / "events.csv", "--out", tmp_path / "data").exit_code == 0
    part = tmp_path / "part.parquet"
    result = allmrec_train("training-part", tmp_path / "data", "--out", part, "--time-split")
    assert result.exit_code == 0, result.output
    dataset = Dataset.load(tmp_path / "data")
    assert pl.read_parquet(part).equals(SequenceSplit.by_time(dataset).training_frame())
    assert len(pl.read_parquet(part)) < len(dataset.interactions)


def test_vectors_of_others_become_a_bundle(ground: Path, fitted: Path, tmp_path: Path) -> None:
    """From what `training-part` writes to a bundle that has them; other vectors are another backbone."""
    part = tmp_path / "train.parquet"
    assert allmrec_train("training-part", fitted / "run" / "data" / "dataset", "--out", part).exit_code == 0
    train = pl.read_parquet(part)
    split = SequenceSplit.from_dataset(Dataset.load(fitted / "run" / "data" / "dataset"))
    assert train.filter(pl.col("user_id") == "u3").sort("position")["item_id"].to_list() == [
        split.catalogue.item_ids[item] for item in split.train[split.user_ids.index("u3")]
    ]
    home = fitted / "run" / "data" / "dataset"
    within = allmrec_train("training-part", home, "--out", home / "interactions.parquet")
    assert within.exit_code == 2
    assert "is in the dataset's own folder" in within.output.replace("\n", " ")
    arguments = ("--recipe", ground / "recipe.toml", "--out", tmp_path / "run", "--bundle", tmp_path / "bundle")
    settings = ("--set", "backbone.kind=external", "--set", f"backbone.settings={{items='{tmp_path / 'items.npz'}'}}")
    ids = train["item_id"].unique(maintain_order=True).to_numpy().astype(str)
    versions = []
    for scale in (1, 2):
        vectors = scale * np.random.default_rng(0).normal(size=(len(ids), 6)).astype(np.float32)
        np.savez(tmp_path / "items.npz", ids=ids, vectors=vectors)
        result = allmrec_train("export", ground / "shop", *arguments, *settings)
        assert result.exit_code == 0, result.output
        bundle = load_bundle(tmp_path / "bundle")
        item = bundle.model.catalogue.index_of(ids[0])
        np.testing.assert_array_equal(bundle.model.cf_vectors[item], vectors[0])
        versions.append(bundle.version)
    assert versions[0] != versions[1]


def test_examples_have_a_backbone_of_their_own(ground: Path, fitted: Path, tmp_path: Path) -> None:
    """Trained once, on less, and turned off by the setting; what is served is the same backbone as without it."""
    shutil.copytree(fitted / "run", tmp_path / "run")
    arguments = ("stage2", ground / "shop", "--recipe", ground / "recipe.toml", "--out", tmp_path / "run")
    settings = ("--set", "stage2.examples.held_back=0.3", "--set", "stage2.examples.negatives.retrieved=0.3")
    before = done(fitted)
    result = allmrec_train(*arguments, *settings)
    assert result.exit_code == 0, result.output
    after = done(tmp_path)
    assert {name for name in after if name not in before} == {"examples"}
    again = allmrec_train(*arguments, *settings)
    assert again.exit_code == 0, again.output
    assert done(tmp_path) == after
    (examples,) = (tmp_path / "run" / "examples").iterdir()
    ours, theirs = (load_file(folder / "backbone.safetensors") for folder in (tmp_path / "run" / "backbone", examples))
    assert not torch.equal(ours["items.weight"], theirs["items.weight"])


def test_ncf_goes_all_the_way(ground: Path, tmp_path: Path) -> None:
    """Users are known by who they are, in the bundle and in the evaluation, whatever their history.

    But for those that the step with the best weights took for strangers: a tenth of thirty.
    """
    result = run_fit(ground, tmp_path, "backbone.kind=ncf")
    assert result.exit_code == 0, result.output
    model = load_bundle(tmp_path / "bundle").model
    users = model.histories.user_ids()
    here, there = (model.user_vectors([history] * len(users), users) for history in ([1, 2], [3]))
    assert torch.isclose(here, there).all(dim=1).float().mean() > 0.7
    assert not torch.isclose(here[1:], here[:1]).all(dim=1).all()
    strangers = model.user_vectors([[1, 2], [3]])
    assert not torch.allclose(strangers[0], strangers[1])
    report = EvaluationReport.model_validate_json((tmp_path / "run" / "evaluation" / "report.json").read_text())
    assert report.reference == "ncf"


def test_results_are_of_several_seeds_and_go_on(ground: Path, tmp_path: Path) -> None:
    """One seed now, and later a second only; every seed has candidates of its own, and the table says how many."""
    arguments = ("results", ground / "shop", "--recipe", ground / "recipe.toml", "--runs", tmp_path, "--out", tmp_path)
    assert (result := allmrec_train(*arguments, "--seeds", 1)).exit_code == 0, result.output
    assert "1 seeds, 30 items" in (tmp_path / "results.md").read_text()
    before = (tmp_path / "shop-seed0" / "stage2" / "done").stat().st_mtime_ns
    assert (result := allmrec_train(*arguments, "--seeds", 2)).exit_code == 0, result.output
    assert (tmp_path / "shop-seed0" / "stage2" / "done").stat().st_mtime_ns == before
    assert "2 seeds, 30 items" in (tmp_path / "results.md").read_text()
    files = [np.load(tmp_path / f"shop-seed{seed}" / "evaluation" / "scores.npz") for seed in range(2)]
    assert np.array_equal(files[0]["users"], files[1]["users"])
    assert not np.array_equal(files[0]["candidates"], files[1]["candidates"])


def test_a_split_by_time_has_a_chain_of_its_own(ground: Path, fitted: Path, tmp_path: Path) -> None:
    """In a folder beside the others, none of which is touched; row numbers for times are refused in a line."""
    arguments = ("evaluate", "--recipe", ground / "recipe.toml", "--time-split", "--out", tmp_path)
    refused = allmrec_train(*arguments, ground / "shop")
    assert (refused.exit_code, "has no dates" in refused.output) == (2, True)
    dataset = Dataset.load(fitted / "run" / "data" / "dataset")
    moments = 1_500_000_000 + 1000 * pl.col("timestamp") + pl.col("user_id").hash(0) % 7000
    dated = dataset.interactions.with_columns(timestamp=moments.cast(pl.Int64)).sort("user_id", "timestamp")
    replace(dataset, interactions=dated).save(tmp_path / "dated")
    result = allmrec_train(*arguments, tmp_path / "dated")
    assert result.exit_code == 0, result.output
    report = EvaluationReport.model_validate_json((tmp_path / "time-split" / "evaluation" / "report.json").read_text())
    assert report.by_time
    assert 0 < report.users < 30
    assert not (tmp_path / "backbone").exists()


def loads_only(train):
    def checked(*arguments):
        run = next(argument for argument in arguments if hasattr(argument, "is_done"))
        assert run.is_done
        return train(*arguments)

    return checked


POOR = {
    "nobody_to_evaluate": [(f"u{user}", f"i{(user + step) % 9}", step) for user in range(30) for step in range(2)],
    "three_each": [(f"u{user}", f"i{(user + step) % 9}", step) for user in range(30) for step in range(3)],
    "one_user_to_evaluate": [("u0", f"i{item}", item) for item in range(5)]
    + [(f"u{user}", f"i{(user + step) % 9}", step) for user in range(1, 30) for step in range(2)],
    "two_users": [(f"u{user}", f"i{2 * user + step}", step) for user in range(2) for step in range(5)],
    "everybody_met_everything": [(f"u{user}", f"i{item}", item) for user in range(5) for item in range(4)],
    "one_item": [(f"u{user}", "i0", time) for user in range(5) for time in range(3)],
    "nothing_to_learn_from": [(f"u{user}", f"i{user}", 0) for user in range(9)],
}


@pytest.mark.filterwarnings("error:Mean of empty slice")
@pytest.mark.parametrize(
    ("poor", "titles", "kind"),
    [
        *((poor, "distinct", "hybrid") for poor in POOR),
        ("nobody_to_evaluate", "none", "sasrec"),
        ("two_users", "identical", "sasrec"),
    ],
)
def test_poor_data_end_in_a_bundle_or_are_refused_before_training(
    ground: Path, tmp_path: Path, poor: str, titles: str, kind: str
) -> None:
    """Never in a traceback, and never after the work is done."""
    (tmp_path / "shop").mkdir()
    with (tmp_path / "shop" / "interactions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user_id", "item_id", "timestamp"), *POOR[poor]])
    if titles != "none":
        items = sorted({item for _, item, _ in POOR[poor]})
        named = [(item, "Title 1" if titles == "identical" else f"Title {item[1:]}") for item in items]
        with (tmp_path / "shop" / "items.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("item_id", "title"), *named])
    options = [f"backbone.kind={kind}"]
    if kind == "hybrid":
        options.append(f'backbone.settings.text_encoder="{ground / "tiny-encoder"}"')
    arguments = ("--recipe", ground / "recipe.toml", "--out", tmp_path / "run", "--bundle", tmp_path / "bundle")
    sets = [option for setting in options for option in ("--set", setting)]
    result = allmrec_train("fit", tmp_path / "shop", *arguments, *sets)
    if result.exit_code == 0:
        assert load_bundle(tmp_path / "bundle").manifest.users == len({user for user, _, _ in POOR[poor]})
        assert (tmp_path / "run" / "evaluation").exists() is (poor not in ("nobody_to_evaluate", "three_each"))
    else:
        assert titles == "none" or poor not in ("nobody_to_evaluate", "three_each"), result.output
        assert (result.exit_code, (tmp_path / "run" / "backbone").exists()) == (2, False), result.output
        assert "error: " in result.output


def test_single_stages_are_commands(ground: Path, tmp_path: Path) -> None:
    """`backbone` trains no more than the backbone."""
    result = allmrec_train("backbone", ground / "shop", "--recipe", ground / "recipe.toml", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(tmp_path / "run")) == ["backbone", "data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "nowhere", "--out", "run"), "nowhere does not exist"),
        (("fit", "nowhere", "--out", "run", "--recipe", "dmeo"), "recipe 'dmeo' cannot be read"),
        (("fit", "nowhere", "--out", "run", "--set", "stage2.minuts=1"), "did you mean 'minutes'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    """No traceback."""
    result = allmrec_train(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [("stage2.load_in_8bit=true", "onto a GPU only"), ("stage2.llm={llm}", "ALiBi counts places")],
)
def test_an_llm_that_cannot_be_asked_is_refused_before_anything_is_trained(
    setting: str, message: str, ground: Path, tmp_path: Path
) -> None:
    """What its config says, and the recipe, is enough for that."""
    BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=2).save_pretrained(tmp_path / "bloom")
    chosen = setting.replace("{llm}", f"'{tmp_path / 'bloom'}'")
    recipe = ("--recipe", ground / "recipe.toml", "--out", tmp_path / "run")
    for command in ("fit", "evaluate"):
        result = allmrec_train(command, ground / "shop", *recipe, "--set", chosen)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
        assert not (tmp_path / "run" / "backbone").exists()


def test_ctrl_c_says_how_to_go_on(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130; the same command then finishes."""

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    arguments = ("backbone", ground / "shop", "--recipe", ground / "recipe.toml", "--out", tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "train_backbone", interrupted)
        result = allmrec_train(*arguments)
    assert result.exit_code == 130
    assert "The same command goes on" in result.output
    assert allmrec_train(*arguments).exit_code == 0


@pytest.fixture(scope="module")
def refitted(ground: Path, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, exported again with `--refit`."""
    directory = tmp_path_factory.mktemp("refitted")
    shutil.copytree(fitted / "run", directory / "run")
    recipe, run = ("--recipe", ground / "recipe.toml"), ("--out", directory / "run")
    result = allmrec_train("export", ground / "shop", *recipe, *run, "--bundle", directory / "bundle", "--refit")
    assert result.exit_code == 0, result.output
    return directory


def test_a_refit_learns_from_what_was_held_out(fitted: Path, refitted: Path) -> None:
    """Every interaction counts in its bundle, and what was fitted is something else; histories are the same."""
    before, after = (load_bundle(directory / "bundle") for directory in (fitted, refitted))
    split = SequenceSplit.from_dataset(Dataset.load(fitted / "run" / "data" / "dataset"))
    everything = sum(len(split.full_history(user)) for user in range(len(split)))
    assert after.model.catalogue.interactions.sum() == everything
    assert before.model.catalogue.interactions.sum() == everything - 2 * len(split)
    assert after.model.signals.popularity.sum() > before.model.signals.popularity.sum()
    assert not torch.equal(after.model.cf_vectors, before.model.cf_vectors)
    assert not torch.equal(after.model.projector.user.output.weight, before.model.projector.user.output.weight)
    assert after.model.histories.of("u3").tolist() == before.model.histories.of("u3").tolist()


def test_a_refit_keeps_what_was_chosen_and_says_so(fitted: Path, refitted: Path) -> None:
    """Blends, metrics and the manifest's words are those of the fit that held some out; no stage of that ran again."""
    before, after = (load_bundle(directory / "bundle").manifest for directory in (fitted, refitted))
    assert (before.refitted, after.refitted) == (False, True)
    assert after.blends == before.blends
    assert after.metrics == before.metrics
    assert after.text_encoder == before.text_encoder
    assert {name: time for name, time in done(refitted).items() if name != "export"}.keys() >= {"backbone", "stage2"}
    start = json.loads((refitted / "run" / "refit" / "stage2" / "metrics.json").read_text())["start"]
    for name in ("temperature", "similarity_weight", "series_weight"):
        assert start[name] == before.metrics["stage2"]["start"][name]
    steps = json.loads((refitted / "run" / "refit" / "stage2" / "metrics.json").read_text())["steps"]
    assert steps == before.metrics["stage2"]["best_step"]
    assert not (refitted / "run" / "refit" / "blend").exists()


def test_a_refit_is_done_once(ground: Path, refitted: Path) -> None:
    """The same command publishes nothing new."""
    versions = sorted(os.listdir(refitted / "bundle"))
    recipe, run = ("--recipe", ground / "recipe.toml"), ("--out", refitted / "run")
    result = allmrec_train("export", ground / "shop", *recipe, *run, "--bundle", refitted / "bundle", "--refit")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(refitted / "bundle")) == versions


def test_both_ways_to_ask_are_weighed(fitted: Path) -> None:
    """Each has its lift or weight in the blend with the LLM, and every title its constant in the bundle."""
    bundle = load_bundle(fitted / "bundle")
    blend = bundle.manifest.blends.llm
    weighed = {signal.id for signal in blend.signals}
    assert weighed & {"allmrec", "title_likelihood"}
    assert weighed | set(blend.left_out) >= {"allmrec", "title_likelihood", "title_prior"}
    assert len(bundle.model.title_log_probs) == 31
    assert (bundle.model.title_log_probs[1:] < 0).all()


def test_an_llm_that_reads_no_tokens_needs_no_stage_2(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked by titles alone: no projections are trained, prompts inject nothing, and the evaluation has it."""
    monkeypatch.setattr(pipeline, "train_stage2", None)
    ways = 'blend.ways=["title_likelihood"]', 'blend.title_list.vocabulary="catalogue"'
    result = run_fit(ground, tmp_path, *ways)
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "bundle")
    assert set(bundle.manifest.metrics) == {"backbone", "stage1", "blend"}
    assert bundle.manifest.prompt.injection == "none"
    assert "title_likelihood" in {signal.id for signal in bundle.manifest.blends.llm.signals}
    report = EvaluationReport.model_validate_json((tmp_path / "run" / "evaluation" / "report.json").read_text())
    assert {"title_likelihood", "title_prior", "llm"} <= set(report.rankers)
    assert "allmrec" not in report.rankers
    permuted = report.checks["permuted_titles"]
    assert "title_likelihood" in permuted.model_dump_json()


def test_the_llm_as_user_encoder_goes_all_the_way(ground: Path, tmp_path: Path) -> None:
    """A stage of its own, trained again for the bundle; in the evaluation; in the bundle if the blend weighs it."""
    ways = 'blend.ways=["user_encoder"]', "user_encoder.max_steps=3", "refit=true"
    result = run_fit(ground, tmp_path, *ways)
    assert result.exit_code == 0, result.output
    assert "[4/7] user_encoder" in result.output
    bundle = load_bundle(tmp_path / "bundle")
    assert set(bundle.manifest.metrics) == {"backbone", "stage1", "user_encoder", "blend"}
    assert [signal.id for signal in bundle.manifest.blends.llm.signals].count("user_encoder") == 1
    heads = [
        load_file(tmp_path / "run" / part / "user_head.safetensors") for part in ("user_encoder", "refit/user_encoder")
    ]
    assert not torch.equal(heads[0]["output.weight"], heads[1]["output.weight"])
    assert torch.equal(bundle.model.user_head.output.weight, heads[1]["output.weight"])
    report = EvaluationReport.model_validate_json((tmp_path / "run" / "evaluation" / "report.json").read_text())
    assert {"user_encoder", "llm"} <= set(report.rankers)
    assert {"user_encoder", "llm"} <= set(report.protocols["full"].rankers)
    assert result.exit_code == run_fit(ground, tmp_path, *ways).exit_code


def test_injected_titles_go_all_the_way(ground: Path, tmp_path: Path) -> None:
    """A stage of its own on positions held back, trained again for the bundle; in the evaluation and in the bundle."""
    ways = (
        'blend.ways=["title_injected"]',
        "title_tokens.max_steps=2",
        "title_tokens.examples.held_back=0.3",
        "refit=true",
    )
    result = run_fit(ground, tmp_path, *ways)
    assert result.exit_code == 0, result.output
    assert "[4/7] title_tokens" in result.output
    bundle = load_bundle(tmp_path / "bundle")
    assert set(bundle.manifest.metrics) == {"backbone", "stage1", "title_tokens", "blend"}
    assert [signal.id for signal in bundle.manifest.blends.llm.signals].count("title_injected") == 1
    start = bundle.manifest.metrics["title_tokens"]["start"]
    refit = json.loads((tmp_path / "run" / "refit" / "title_tokens" / "config.json").read_text())
    assert refit["config"]["chosen"] == {**start, "steps": bundle.manifest.metrics["title_tokens"]["best_step"]}
    assert bundle.model.title_projector is not None
    assert (bundle.model.title_log_probs[1:] < 0).all()
    report = EvaluationReport.model_validate_json((tmp_path / "run" / "evaluation" / "report.json").read_text())
    assert {"title_plain", "title_injected", "title_prior", "llm"} <= set(report.rankers)
    assert "title_plain" in report.rankers["title_injected"].differences
    assert "title_injected" in report.checks["permuted_titles"].losses
    assert "less Title, given the history" in (tmp_path / "run" / "evaluation" / "report.md").read_text()


def test_what_is_not_weighed_is_not_in_the_bundle(fitted: Path, tmp_path: Path) -> None:
    bundle = load_bundle(fitted / "bundle")
    origin = Origin(**{name: getattr(bundle.manifest, name) for name in Origin.model_fields})
    encoder = TextEncoder(str(bundle.path / "text_encoder"))
    others = {"user_head": tiny_head(), "title_projector": tiny_title_projector(), "second": bundle.model.backbone}
    unweighed = replace(bundle.model, **others)
    exported = load_bundle(export(tmp_path, unweighed, origin, encoder)).model
    assert (exported.user_head, exported.title_projector, exported.second) == (None, None, None)
