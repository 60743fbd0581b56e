"""Stage 2 on the LLM that is in memory, whatever its family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.llm.forward import embed_tokens
from models.scoring.choices import ChoiceTrie
from models.scoring.packing import PackedBatch, pack
from tests.models.scoring.families import EXACT, VOCABULARY, tiny
from training.allmrec.stage2.reader import FrozenReader


def question(model) -> tuple[PackedBatch, torch.Tensor]:
    rng = np.random.default_rng(0)
    tries = [ChoiceTrie([[5, 6, 7], [5, 6, 8], [9]], 3), ChoiceTrie([[5], [6]], 3)]
    prompts = [rng.integers(4, VOCABULARY, length) for length in (30, 21)]
    batch = pack(prompts, [np.asarray([4]), np.asarray([7])], tries)
    return batch, embed_tokens(model, torch.tensor([70, 80])).flip(1).requires_grad_(True)


def read(model, **how) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states, and the gradient of the soft tokens."""
    batch, soft_S_H = question(model)
    reader = FrozenReader(model, **{"dtype": torch.float32, **how})
    hidden_O_H = reader(batch, soft_S_H, batch.node_rows, batch.node_columns)
    hidden_O_H.float().square().sum().backward()
    return hidden_O_H.detach(), soft_S_H.grad


@pytest.fixture(params=["opt", "gemma2", "gpt2", "qwen3_moe"])
def model(request: pytest.FixtureRequest):
    return tiny(request.param, EXACT[request.param])


def test_checkpointing_changes_memory_and_nothing_else(model, monkeypatch: pytest.MonkeyPatch):
    """The same states and gradients, each layer run once more, and the LLM as it was afterwards."""
    runs = []
    layers = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    for layer in layers:
        monkeypatch.setattr(
            layer, "forward", lambda *args, _run=layer.forward, **kw: runs.append(1) or _run(*args, **kw)
        )
    hidden, gradient = read(model)
    once = len(runs)
    again, gradient_again = read(model, gradient_checkpointing=True)
    torch.testing.assert_close(again, hidden, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradient_again, gradient, atol=1e-3, rtol=1e-3)
    assert len(runs) - once == 2 * len(layers)
    assert not model.training


def test_another_precision_takes_no_second_llm(model):
    """bfloat16 for float32 weights: near them, and all parameters that the pass reads are the LLM's own."""
    before = {id(parameter) for parameter in model.parameters()}
    expected, _ = read(model)
    hidden, gradient = read(model, dtype=torch.bfloat16)
    assert (hidden.float() - expected).norm() < 0.1 * expected.norm()
    assert (hidden.float() - expected).abs().max() > 0
    assert gradient.isfinite().all()
    assert {id(parameter) for parameter in FrozenReader(model, torch.bfloat16)._model.parameters()} == before


def test_an_llm_in_half_precision_is_read_as_it_is(model):
    hidden, _ = read(model.to(torch.bfloat16), dtype=torch.float32)
    assert hidden.dtype == torch.bfloat16
