"""Attention that the circuit leaves idle can learn."""

from typing import Any

import torch

from models.llm.loading import load_llm
from models.scoring.packing import hidden_states
from tests.training.pretraining.conftest import circuit_of, small
from training.pretraining.architecture import build_model
from training.pretraining.batch import collate
from training.pretraining.config import PretrainConfig
from training.pretraining.initialisation import initialise_idle_attention
from training.pretraining.mixture import Mixture
from training.pretraining.objective import Objective
from training.pretraining.pretrain import draw, initial_model_of, pretrain
from training.runs.stage_run import StageRun


def test_initialising_idle_attention_changes_nothing_yet_and_lets_all_learn(tokenizer, interface, factory):
    """The circuit computes the same with random free rows; after a step, every attention dimension gets a gradient.

    The first step gives heads that were free as a whole something to say, and only then does it matter what they ask.
    """
    config = PretrainConfig()
    model = build_model(config.architecture, tokenizer).eval()
    circuit_of(config, tokenizer, interface).write(model)
    batch = collate(draw(factory, Mixture(), 12, seed=4))

    def gradients(model: Any = model) -> list[torch.Tensor]:
        model.zero_grad()
        Objective(model, 0.05, 0.3, 0.05, torch.float32)(batch).backward()
        layers = [layer.self_attn for layer in model.model.decoder.layers]
        pairs = [(layer.q_proj.weight.grad, layer.k_proj.weight.grad) for layer in layers]
        pairs += [(layer.v_proj.weight.grad, layer.out_proj.weight.grad.T) for layer in layers]
        return [first.abs().sum(dim=1) + second.abs().sum(dim=1) for first, second in pairs]

    with torch.no_grad():
        before = hidden_states(model, batch.packed, batch.soft_tokens_S_H)
    assert any((gradient == 0).any() for gradient in gradients())
    initialise_idle_attention(model, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(hidden_states(model, batch.packed, batch.soft_tokens_S_H), before)
    for started in (model, initial_model_of(config, tokenizer, interface)):
        gradients(started)
        torch.optim.SGD(started.parameters(), lr=1e-3).step()
        assert all((gradient > 0).all() for gradient in gradients(started))


def test_going_on_from_weights_initialises_their_idle_attention(tokenizer, interface, tmp_path):
    """An LLM of which whole heads are idle has none that is after a step."""
    config = small()
    start = build_model(config.architecture, tokenizer)
    circuit_of(config, tokenizer, interface).write(start)

    def idle(weights: dict[str, torch.Tensor]) -> int:
        return sum(
            int((~weight.any(dim=1)).sum()) for name, weight in weights.items() if name.endswith("q_proj.weight")
        )

    assert idle(start.state_dict()) > 0
    run = StageRun(tmp_path, config, config.seed, {})
    pretrain(config, tokenizer, run, start_from=start.state_dict())
    assert idle(load_llm(str(tmp_path / "llm")).model.state_dict()) == 0
