"""The constructed circuit: what it can do before any training."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.errors import ConfigError
from models.llm.loading import load_llm
from models.prompts.layout import Slot
from models.scoring.packing import child_logits, hidden_states
from tests.training.pretraining.conftest import SHORT, circuit_of
from training.pretraining.architecture import Architecture, build_interface, build_model
from training.pretraining.batch import collate
from training.pretraining.circuit.beginnings import LocateGains
from training.pretraining.circuit.copying import FollowGains
from training.pretraining.circuit.gains import Gains
from training.pretraining.config import PretrainConfig
from training.pretraining.evaluate import measure
from training.pretraining.example import Example
from training.pretraining.mixture import Mixture
from training.pretraining.pretrain import draw, initial_model_of


def test_the_constructed_circuit_ranks_before_any_training(constructed, tokenizer, interface, factory):
    """Most of Bayes without one step; the ordinary initialisation is at chance."""
    examples = draw(factory, SHORT, 100, seed=2)
    ordinary = initial_model_of(PretrainConfig(constructed=False), tokenizer, interface).eval()
    read, guessed = measure(constructed, examples)["all"], measure(ordinary, examples)["all"]
    assert read["share"] > 0.8
    assert read["rank"] > 0.7
    assert abs(guessed["rank"]) < 0.1
    assert guessed["share"] < 0.4


@pytest.fixture
def alike(factory, monkeypatch):
    """Draws prompts in which three candidates share so many first tokens and differ in the next; names their nodes."""
    titles = factory.titles.draw

    def drawn(shared: int) -> tuple[list[Example], str]:
        def begun(rng: np.random.Generator, mixture: Mixture, history: int, candidates: int) -> list[list[int]]:
            found = titles(rng, mixture, history, candidates)
            beginning = rng.choice(factory.titles._pieces, shared).tolist()
            different = rng.choice(factory.titles._pieces, 3, replace=False).tolist()
            for place, last in zip(rng.choice(candidates, 3, replace=False), different, strict=True):
                found[history + place] = [*beginning, last]
            return found

        monkeypatch.setattr(factory.titles, "draw", begun)
        mixture = Mixture(candidates=(10, 10), collisions=0.0, series=0.0, genres=0.0, explanations=0.0)
        name = "nodes after 1 shared tokens" if shared == 1 else "nodes after 2+ shared tokens"
        return draw(factory, mixture, 400, seed=9), name  # of 120, the share of a uniform guess varied from .36 to .61

    return drawn


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_titles_that_begin_alike_are_told_apart(constructed, alike, shared, trained):
    """After one shared token and after several, the LM is nearer to the truth than a uniform guess, trained or not."""
    examples, nodes = alike(shared)
    found = measure(load_llm("embedded").model if trained else constructed, examples)[nodes]
    assert found["prompts"] > 350
    assert found["kl"] < (0.6 if trained else 0.9) * found["uniform_kl"]


@pytest.mark.parametrize("shared", [2, 4])
def test_locating_titles_tells_them_apart_after_several_tokens(constructed, tokenizer, interface, alike, shared):
    """Without it the untrained circuit is no better than a uniform guess there."""
    examples, nodes = alike(shared)
    without = PretrainConfig(gains=Gains(locate=LocateGains(write=0.0), follow=FollowGains(write=0.0)))
    not_located = measure(initial_model_of(without, tokenizer, interface), examples)[nodes]
    assert not_located["kl"] > not_located["uniform_kl"]
    assert measure(constructed, examples)[nodes]["kl"] < 0.8 * not_located["kl"]


@torch.no_grad()
@pytest.mark.parametrize("trained", [False, True])
def test_series_count_by_their_weight(constructed, interface, factory, trained):
    """Two logits more of it raise the candidates of a series against the others of their prompt, trained or not."""
    model = load_llm("embedded").model if trained else constructed
    examples = draw(factory, Mixture(candidates=(20, 20), series=1.0, title_tokens=4, explanations=0.0), 150, seed=7)
    raised = []
    for example in examples:
        of_series = example.preferences.series > 0
        if not of_series.any() or of_series.all():
            continue
        read = []
        for weight in (0.0, 2.0 / interface.coupling):
            batch = collate([example])
            change = (weight - example.preferences.user[-1]) * interface.series_axis
            batch.soft_tokens_S_H[torch.from_numpy(example.layout.slot_kinds == Slot.USER)] += change.float()
            hidden = hidden_states(model, batch.packed, batch.soft_tokens_S_H)
            read.append(example.trie.log_probs(child_logits(model, batch.packed, hidden)))
        gain = read[1] - read[0]
        raised.append(gain[of_series].mean() - gain[~of_series].mean())
    assert len(raised) > 20
    assert 1.0 < np.mean(raised) < 3.0


def test_the_least_position_code_is_enough(tokenizer):
    """Heads name some frequencies: 24 dimensions have as many, and less is refused before anything runs."""
    config = PretrainConfig(architecture=Architecture(position_size=24))
    model = build_model(config.architecture, tokenizer)
    circuit_of(config, tokenizer, build_interface(config.architecture, 0)).write(model)
    assert all(weight.isfinite().all() for weight in model.state_dict().values())
    with pytest.raises(ValidationError, match="position_size"):
        Architecture(position_size=22)


def test_heads_that_are_too_small_are_refused(tokenizer):
    """An item's 89 coordinates and 7 more have to fit."""
    config = PretrainConfig(architecture=Architecture(hidden_size=380, head_size=95))
    circuit = circuit_of(config, tokenizer, build_interface(config.architecture, 0))
    with pytest.raises(ConfigError, match="95 dimensions are too small"):
        list(circuit.layers())
