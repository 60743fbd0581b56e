"""`pretrain-lm`, `average-lm` and `evaluate-lm`: settings and what they leave behind."""

import copy
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.errors import ConfigError
from models.llm.loading import load_llm, load_tokenizer
from training.cli.main import app
from training.pretraining.architecture import Architecture, build_interface
from training.pretraining.circuit.gains import Gains
from training.pretraining.circuit.logits import RankingGains
from training.pretraining.config import PretrainConfig
from training.pretraining.evaluate import measure
from training.pretraining.pretrain import initial_model_of
from training.pretraining.saving import save
from training.runs.settings import with_changes


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def interface():
    return build_interface(Architecture(), 0)


@pytest.fixture(scope="module")
def constructed(tokenizer, interface):
    return initial_model_of(PretrainConfig(), tokenizer, interface)


def test_a_mean_lies_between_two_llms(constructed, tokenizer, interface, tmp_path):
    """The command writes an LLM whose weights lie as far between as asked for, and does not overwrite."""
    save(constructed, tokenizer, interface, tmp_path / "begun")
    arguments = ["average-lm", "embedded", str(tmp_path / "begun"), "--share", "0.25", "--out", str(tmp_path / "mean")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    mean, start, goal = (
        load_llm(name).model.state_dict() for name in (str(tmp_path / "mean"), "embedded", str(tmp_path / "begun"))
    )
    for name, weight in mean.items():
        expected = (0.75 * start[name] + 0.25 * goal[name]).bfloat16().float()
        torch.testing.assert_close(weight, expected)
    assert load_llm(str(tmp_path / "mean")).interface.is_close(interface)
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code != 0
    assert "is there already" in " ".join(again.output.split())


@pytest.mark.parametrize("differs", ["architectures", "tokenizers", "token interfaces"])
def test_llms_that_differ_in_more_than_weights_have_no_mean(constructed, tokenizer, interface, tmp_path, differs):
    other, model = copy.deepcopy(tokenizer), constructed
    if differs == "architectures":
        model = copy.deepcopy(constructed)
        model.config.num_attention_heads = 8
    if differs == "tokenizers":
        other.add_tokens(["<new>"])
    if differs == "token interfaces":
        interface = build_interface(Architecture(), 1)
    save(model, other, interface, tmp_path / "other")
    arguments = ["average-lm", "embedded", str(tmp_path / "other"), "--out", str(tmp_path / "mean")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert f"have different {differs}" in " ".join(result.output.split())
    assert not (tmp_path / "mean").exists()


def test_settings_can_be_changed_one_by_one(tmp_path):
    """`--set` goes before the file, the file before the defaults."""
    path = tmp_path / "settings.toml"
    path.write_text("learning_rate = 1e-4\nseed = 3\n")
    config = with_changes(PretrainConfig(), ["seed=4", "gains.note.write=0.5"], "pretrain-lm", path)
    assert (config.learning_rate, config.seed, config.gains.note.write) == (1e-4, 4, 0.5)
    limited = with_changes(PretrainConfig(), ["loop.max_steps=5"], "pretrain-lm").loop
    assert limited == PretrainConfig().loop.model_copy(update={"max_steps": 5})
    with pytest.raises(ConfigError, match="noise_level"):
        with_changes(PretrainConfig(), ["gains.noise_level=1"], "pretrain-lm")


@pytest.mark.parametrize("text", ["mixture.answers=1", "mixture.explanations=1.0"])
def test_some_prompts_must_be_left_to_validate_on(text):
    """A run without any whose ranking can be measured would break at its first validation."""
    with pytest.raises(ConfigError, match="must leave prompts whose ranking can be measured"):
        with_changes(PretrainConfig(), [text], "pretrain-lm")


def test_a_config_file_with_an_unknown_setting_is_refused(tmp_path):
    """The error names the file."""
    path = tmp_path / "settings.toml"
    path.write_text("learning_rat = 1e-4\n")
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        with_changes(PretrainConfig(), [], "pretrain-lm", path)


def test_gains_and_seed_come_from_the_file(tmp_path):
    """A recipe sets any field."""
    path = tmp_path / "settings.toml"
    path.write_text("seed = 7\n[gains.ranking]\nwrite = 3.0\n")
    config = with_changes(PretrainConfig(), [], "pretrain-lm", path)
    assert (config.seed, config.gains) == (7, Gains(ranking=RankingGains(write=3.0)))


def test_the_command_trains_and_does_not_train_twice(tmp_path):
    """`allmrec-train pretrain-lm` leaves an LLM, a curve and its plot; a second call finds it done."""
    path = tmp_path / "settings.toml"
    path.write_text(
        "titles = 100\nprompts_per_epoch = 8\nvalidation_prompts = 8\n"
        '[loop]\nmax_steps = 2\nvalidate_every = 50\nmonitor = "closeness"\n'
    )
    arguments = ["pretrain-lm", "--out", str(tmp_path / "run"), "--config", str(path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert {"llm", "curve.json", "curve.png", "metrics.json"} <= {p.name for p in (tmp_path / "run").iterdir()}
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0
    assert "done already" in again.output


def test_the_command_measures_the_prompts_asked_for(monkeypatch):
    """`allmrec-train evaluate-lm` draws as many prompts as it is told, with as many candidates, as sharp."""
    seen = []

    def spy(model, examples):
        seen.extend(examples)
        return measure(model, examples)

    monkeypatch.setattr("training.pretraining.commands.measure", spy)
    arguments = ["evaluate-lm", "--prompts", "30", "--candidates", "6", "--sharpness", "0.2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "branching node" in result.output
    assert re.search(r"names a choice in \d+\.\d% of \d+ prompts", " ".join(result.output.split()))
    assert len(seen) == 30
    recommend = [example for example in seen if not example.text]
    assert {len(example.layout.choices) for example in recommend} == {6}
    assert (
        np.median(
            [example.preferences.log_probs.std() for example in recommend if not example.preferences.series.any()]
        )
        < 0.4
    )
