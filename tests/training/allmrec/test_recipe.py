"""Recipes: what ships can be read, and what is wrong is said with file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.backbones import backbone_config
from models.errors import ConfigError
from training.allmrec.recipe import load_recipe, shipped_recipes
from training.allmrec.stage2.config import Loss
from training.backbones.config import PRESETS
from training.backbones.external import ExternalSource
from training.backbones.objectives import Objective
from training.baselines.ctrl import CTRLConfig
from training.baselines.morec import MoRecConfig
from training.baselines.recformer_network import RecformerConfig
from training.baselines.tallrec import TALLRecConfig
from training.data.importing.ledger import OnBadRow
from training.runs.loop import LoopConfig
from training.runs.settings import merged


def written(directory: Path, text: str) -> str:
    path = directory / "mine.toml"
    path.write_text(text)
    return str(path)


def test_the_shipped_recipes_can_be_read() -> None:
    """All of them; the paper's says what the paper says."""
    assert shipped_recipes() == ["default", "demo", "paper", "papers", "real-lm"]
    for name in shipped_recipes():
        load_recipe(name)
    paper = load_recipe("paper")
    kinds = {"morec": MoRecConfig, "ctrl": CTRLConfig, "recformer": RecformerConfig, "tallrec": TALLRecConfig}
    for name, kind in kinds.items():
        said = merged(paper.baselines["every"], paper.baselines[name])
        config = kind.model_validate(merged(kind().model_dump(), said)).limited
        assert config.device == "cuda"
        assert {loop.minutes for _, loop in config if isinstance(loop, LoopConfig)} == {1440}
    assert paper.stage2.llm == "facebook/opt-6.7b"
    assert paper.stage2.loss is Loss.TITLE
    # One validation, at the end, chooses nothing.
    assert paper.stage2.loop.epochs == paper.stage2.loop.validate_every == 5
    assert not paper.stage2.loop.validate_first
    assert (paper.stage1.batch_size, paper.stage1.learning_rate, paper.stage1.loop.epochs) == (32, 1e-4, 10)
    assert (paper.stage1.positions, paper.stage1.text_categories) == (1, False)
    assert (paper.backbone.objective, paper.backbone.settings["embedding_size"]) == (Objective.BCE, 50)
    assert (list(paper.backbone.candidates), paper.backbone.trained_negatives) == (["sasrec"], False)


def test_the_default_gives_its_half_hour_to_what_is_worth_it() -> None:
    """Half an hour by its limits, and more of it to the backbone, on which all else stands, than to the LLM's steps."""
    recipe = load_recipe("default")
    assert recipe.second is not None
    parts = (recipe.backbone, recipe.second, recipe.stage1, recipe.stage2)
    minutes = [part.loop.minutes or 0 for part in parts]
    assert sum(minutes) <= 30
    assert minutes[0] >= minutes[3] > 0


def test_presets_are_chosen_among_by_name() -> None:
    """The default has several; one of them, or a backbone of one's own, can be asked for."""
    assert len(load_recipe("default").backbone.candidates) > 2
    one = load_recipe("default", ["backbone.presets=['hybrid_bce']"]).backbone
    assert one.candidates == {"hybrid_bce": PRESETS["hybrid_bce"]}
    kind = load_recipe("default", ["backbone.kind=gru4rec", "backbone.learning_rate=3e-3"]).backbone
    assert [preset.kind for preset in kind.candidates.values()] == ["gru4rec"]
    own = load_recipe("default", ["backbone.presets=[]", "backbone.learning_rate=3e-3"]).backbone
    assert {name: preset.learning_rate for name, preset in own.candidates.items()} == {"sasrec": 3e-3}


@pytest.mark.parametrize("recipe", ["default", "paper", "papers"])
@pytest.mark.parametrize("kind", ["gru4rec", "nextitnet", "ncf", "hybrid", "external"])
def test_a_kind_of_ones_own_takes_of_the_recipes_settings_what_it_has(recipe: str, kind: str) -> None:
    """SASRec's blocks are nothing to a GRU, and imported vectors have their own size; what is given is always kept."""
    given = {"items": "items.npz"} if kind == "external" else {"dropout": 0.3}
    ours = [f"backbone.kind={kind}", *(f"backbone.settings.{name}={value!r}" for name, value in given.items())]
    settings = load_recipe(recipe, ours).backbone.settings
    assert settings.items() >= given.items()
    if kind == "external":
        ExternalSource.of(settings)
    else:
        backbone_config(
            kind, {"num_items": 3, "text_size": 4, **settings} if kind == "hybrid" else {"num_items": 3, **settings}
        )
    if recipe != "default" and kind != "external":
        assert settings["embedding_size"] == 50
    with pytest.raises(ConfigError, match="unknown key 'strange'"):
        backbone_config(
            kind, {"num_items": 3, **load_recipe(recipe, [*ours, "backbone.settings.strange=1"]).backbone.settings}
        )


def test_what_no_backbone_has_stays_to_be_refused(tmp_path: Path) -> None:
    """A misspelt setting of one's own recipe is not another backbone's."""
    own = tmp_path / "own.toml"
    own.write_text("[backbone]\nsettings = { dropuot = 0.4, blocks = 2 }\n")
    settings = load_recipe(str(own), ["backbone.kind=gru4rec"]).backbone.settings
    assert settings == {"dropuot": 0.4}
    with pytest.raises(ConfigError, match="'dropuot'"):
        backbone_config("gru4rec", {"num_items": 3, **settings})


def test_a_text_encoder_is_named_once_for_all_presets_that_read_texts() -> None:
    """They keep all else that they are tuned to; those that read none are left as they are; the second likewise."""
    recipe = load_recipe("default", ["backbone.text_encoder=encoders/mine", "second.text_encoder=encoders/mine"])
    assert recipe.second is not None
    given = recipe.backbone.candidates | recipe.second.candidates
    read = {name for name, preset in given.items() if preset.settings.get("text_encoder") == "encoders/mine"}
    assert read == {"hybrid_softmax", "hybrid_sampled", "hybrid_bce"}
    for name in read:
        kept = {key: value for key, value in given[name].settings.items() if key != "text_encoder"}
        assert given[name].model_copy(update={"settings": kept}) == PRESETS[name]
    assert given["sasrec_sampled"] == PRESETS["sasrec_sampled"]


def test_a_backbone_of_ones_own_takes_the_text_encoder_too() -> None:
    """Beside its other settings."""
    chosen = ["backbone.kind=hybrid", "backbone.settings.dropout=0.3", "backbone.text_encoder=encoders/mine"]
    hybrid = load_recipe("default", chosen).backbone.candidates["hybrid"]
    assert hybrid.settings == {"dropout": 0.3, "text_encoder": "encoders/mine"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("backbone.presets=['hybird']", r"'backbone'.*preset 'hybird' is unknown: choose among sasrec_bce, "),
        ("backbone.learning_rate=3e-3", r"'backbone'.*presets have their own 'learning_rate': give presets = \[\]"),
        (
            "backbone={presets=['sasrec_sampled'], text_encoder='mine'}",
            r"'backbone'.*'text_encoder' is of no effect: sasrec_sampled read no texts",
        ),
    ],
)
def test_settings_that_presets_would_not_heed_are_refused(setting: str, message: str) -> None:
    """Rather than doing nothing."""
    with pytest.raises(ConfigError, match=message):
        load_recipe("default", [setting])


def test_a_file_overrides_the_defaults(tmp_path: Path) -> None:
    """What it does not name stays as it is by default."""
    recipe = load_recipe(written(tmp_path, "[stage2]\nlearning_rate = 5e-5\n[stage2.examples]\ncandidates = 10\n"))
    assert recipe.stage2.learning_rate == 5e-5
    assert recipe.stage2.examples.candidates == 10
    assert recipe.stage2.examples.history_items == 10


def test_one_seed_is_the_seed_of_every_stage(tmp_path: Path) -> None:
    """Unless a stage sets its own."""
    recipe = load_recipe(written(tmp_path, "seed = 7\n[stage1]\nseed = 1\n"))
    seeds = [recipe.backbone.seed, recipe.stage1.seed, recipe.stage2.seed, recipe.evaluation.seed]
    assert seeds == [7, 1, 7, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[stage2]\nlerning_rate = 1e-4\n", r"unknown key 'stage2\.lerning_rate', did you mean 'learning_rate'\?"),
        ("[stage2.loop]\nminuts = 3\n", r"unknown key 'stage2\.loop\.minuts', did you mean 'minutes'\?"),
        ("[stage4]\nx = 1\n", r"unknown key 'stage4'"),
        ("[stage2]\nlearning_rate = -1\n", r"'stage2\.learning_rate': Input should be greater than 0"),
        ("[stage2]\nloss = 'hinge'\n", r"'stage2\.loss': Input should be 'choice' or 'title'"),
        ("[stage2\n", r"not valid TOML.*line 1"),
        ("stage2 = 3\n", r"'stage2'"),
    ],
)
def test_mistakes_are_named_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """So that a typo is found without reading code."""
    with pytest.raises(ConfigError, match=message) as error:
        load_recipe(written(tmp_path, text))
    assert "mine.toml" in str(error.value)


def test_a_recipe_that_does_not_exist_lists_those_that_do() -> None:
    """Names, and that a file is possible."""
    with pytest.raises(
        ConfigError, match=r"'dmeo' cannot be read: name one of default, demo, paper, papers, real-lm, or a TOML"
    ):
        load_recipe("dmeo")


class TestOverrides:
    def test_values_are_read_as_toml_and_words_as_text(self) -> None:
        """Numbers, booleans and tables by notation; a bare word is a string."""
        settings = ["stage2.learning_rate=2e-4", "stage1.freeze=true", "stage2.llm=facebook/opt-125m", "seed=3"]
        recipe = load_recipe("demo", settings)
        assert recipe.stage2.learning_rate == 2e-4
        assert recipe.stage1.freeze is True
        assert recipe.stage2.llm == "facebook/opt-125m"
        assert recipe.backbone.seed == 3

    def test_a_second_backbone_has_the_next_seed(self) -> None:
        """So that the same preset is not the same backbone twice; a recipe need not have one."""
        recipe = load_recipe("default", ["seed=3"])
        assert (recipe.backbone.seed, recipe.second.seed) == (3, 4)
        assert load_recipe("default", ["second.seed=9"]).second.seed == 9
        assert load_recipe("demo").second is None

    def test_one_device_is_that_of_all_that_have_no_other(self) -> None:
        """Stages, the second backbone and baselines; what is not said runs on the processor."""
        recipe = load_recipe("papers", ["device=cuda", "stage1.device=cpu", "second.kind=sasrec"])
        assert (recipe.backbone.device, recipe.stage1.device, recipe.stage2.device) == ("cuda", "cpu", "cuda")
        assert (recipe.second.device, recipe.baselines["every"]["device"]) == ("cuda", "cuda")
        assert set(recipe.devices) == {"cuda", "cpu"}
        assert set(load_recipe("papers").devices) == {"cpu"}
        assert set(load_recipe("paper").devices) == {"cuda"}

    def test_a_second_backbone_can_be_another_or_none(self) -> None:
        """By the same settings as the first, on its device; beside an imported one there is none unless it is said."""
        other = load_recipe("default", ["second.kind=sasrec", "backbone.device=cuda"]).second
        assert (other.kind, other.presets, other.device) == ("sasrec", (), "cuda")
        assert load_recipe("default", ["second={}"]).second is None
        assert load_recipe("default", ["backbone.kind=external"]).second is None
        assert load_recipe("default", ["backbone.kind=external", "second.minutes=1"]).second is not None
        with pytest.raises(ConfigError, match="seed"):
            load_recipe("default", ['seed="abc"'])

    def test_the_loop_may_be_left_out(self) -> None:
        """`stage2.minutes` is `stage2.loop.minutes`."""
        assert load_recipe("demo", ["stage2.minutes=5"]).stage2.loop.minutes == 5
        assert load_recipe("demo", ["stage2.loop.minutes=5"]) == load_recipe("demo", ["stage2.minutes=5"])

    def test_the_later_one_counts(self) -> None:
        """As on any command line."""
        assert load_recipe("demo", ["seed=1", "seed=2"]).seed == 2

    @pytest.mark.parametrize("setting", ["stage2.minutes", "=3", "stage2.=3"])
    def test_what_is_no_setting_is_refused(self, setting: str) -> None:
        """With the way to write one."""
        with pytest.raises(ConfigError, match=r"write it as section\.key=value"):
            load_recipe("demo", [setting])

    def test_a_value_has_no_keys(self) -> None:
        """`seed` is a number."""
        with pytest.raises(ConfigError, match=r"'seed' is a value, not a section"):
            load_recipe("demo", ["seed=1", "seed.x=3"])


def test_raw_files_are_imported_as_the_recipe_says(tmp_path: Path) -> None:
    """Bad rows are left out and counted by default, whatever else is said of the data."""
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nmin_rating = 4\n")
    assert load_recipe(str(path)).data.on_bad_row is OnBadRow.SKIP
    assert load_recipe(str(path), ["data.on_bad_row=fail"]).data.on_bad_row is OnBadRow.FAIL
    assert load_recipe(str(path)).data.min_rating == 4
