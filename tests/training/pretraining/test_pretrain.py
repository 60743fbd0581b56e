"""The stage: what it leaves behind, and that it is deterministic."""

import json
import signal
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from models.llm.loading import load_llm
from tests.training.pretraining.conftest import small
from training.pretraining.objective import Objective
from training.pretraining.pretrain import pretrain
from training.runs.loop import Interrupted
from training.runs.stage_run import StageRun


def test_the_stage_makes_an_llm_that_loads(tokenizer, tmp_path):
    """Trained a few steps, its folder loads by plain transformers and as an LLM with its interface."""
    config = small()
    run = StageRun(tmp_path / "run", config, config.seed, {})
    metrics = pretrain(config, tokenizer, run)
    assert run.is_done
    assert metrics["all"]["prompts"] == 16
    folder = tmp_path / "run" / "llm"
    loaded = load_llm(str(folder))
    assert loaded.interface is not None
    assert loaded.interface.coupling == pytest.approx(0.25)
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3


def test_the_same_seed_gives_the_same_weights_even_if_stopped(tokenizer, tmp_path, monkeypatch):
    """Deterministic from recipe and seed; Ctrl-C within an epoch and the same call again make no difference."""
    config = small()

    def train(name: str) -> bytes:
        pretrain(config, tokenizer, StageRun(tmp_path / name, config, config.seed, {}))
        return (tmp_path / name / "llm" / "model.safetensors").read_bytes()

    straight = train("straight")
    losses = []
    loss = Objective.__call__

    def stopping(self: Objective, batch: Any) -> torch.Tensor:
        losses.append(loss(self, batch))
        if len(losses) == 1:
            signal.raise_signal(signal.SIGINT)
        return losses[-1]

    monkeypatch.setattr(Objective, "__call__", stopping)
    with pytest.raises(Interrupted):
        train("stopped")
    assert not (tmp_path / "stopped" / "llm").exists()
    assert train("stopped") == straight
    assert len(losses) == 3
