"""The embedded LLM as it ships."""

import pytest

from models.llm.loading import EMBEDDED_DIRECTORY, load_llm
from training.pretraining import preferences
from training.pretraining.architecture import Architecture, build_interface
from training.pretraining.config import PretrainConfig
from training.pretraining.evaluate import measure
from training.pretraining.mixture import Mixture
from training.pretraining.pretrain import draw


def test_what_is_shipped_is_complete():
    """The embedded LLM fits its budget, holds 20 history items and 30 candidates, and carries the interface."""
    names = {path.name for path in EMBEDDED_DIRECTORY.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "interface.safetensors",
        "MODEL_CARD.md",
    } <= names
    assert sum(path.stat().st_size for path in EMBEDDED_DIRECTORY.iterdir()) <= 12_000_000
    llm = load_llm("embedded")
    assert llm.context_length >= 50 * 20 + 100
    expected = build_interface(Architecture(), PretrainConfig().interface_seed)
    assert llm.interface.is_close(expected)


def test_what_is_shipped_reads_injected_tokens(factory):
    """On fresh prompts of every kind the embedded LLM reaches most of what can be reached."""
    llm = load_llm("embedded")
    result = measure(llm.model, draw(factory, Mixture(explanations=0.0), 80, seed=5))["all"]
    assert result["share"] > 0.85
    assert result["rank"] > 0.75


@pytest.mark.parametrize(("similarity", "popularity"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_what_is_shipped_reads_every_signal(factory, monkeypatch, similarity, popularity):
    """It ranks by what the user likes alone, by what is like the history alone, and by what is popular alone."""
    monkeypatch.setattr(preferences, "_similarity_share", lambda _: similarity)
    monkeypatch.setattr(preferences, "_popularity_share", lambda _: popularity)
    examples = draw(factory, Mixture(candidates=(20, 20), title_tokens=2, genres=0.0, explanations=0.0), 80, seed=6)
    shown = [example for example in examples if len(example.preferences.history) >= 2]
    assert measure(load_llm("embedded").model, shown)["all"]["rank"] > 0.7
