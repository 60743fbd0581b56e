"""Stage 2 without the LLM: what the law says of tokens is what they are trained for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.llm.law import ExactReader, series_table
from models.prompts.template import PromptConfig
from tests.tiny import law_logits, tiny_contents, tiny_llm, tiny_split
from training.allmrec.stage2.config import Chosen, Stage2Config
from training.allmrec.stage2.examples import ExampleConfig, ExampleSampler
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.rehearsal import LawLoss
from training.allmrec.stage2.stage import train_stage2
from training.allmrec.stage2.teachers import token_teacher
from training.allmrec.stage2.warm_start import WarmStartConfig
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun

CONFIG = Stage2Config(
    examples=ExampleConfig(candidates=5, batch_tokens=4000),
    rehearsal=LoopConfig(max_steps=30, validate_every=100, validate_first=True),
    rehearsal_learning_rate=3e-3,
    warm_start=WarmStartConfig(steps=20, batch_size=64),
    validation_users=10,
    loop=LoopConfig(max_steps=1),
)


def inputs(interface: bool = True) -> Stage2Inputs:
    split = tiny_split()
    contents = tiny_contents(split)
    return Stage2Inputs(
        split, contents, ItemTexts(contents.joint_text, contents.cf_vectors), tiny_llm(interface), PromptConfig()
    )


@pytest.mark.parametrize("by_text", [False, True])
def test_the_loss_is_what_the_law_says_of_the_target(*, by_text: bool) -> None:
    """Minus log P(target), prompt by prompt; beside it, what a teacher says against what is read."""
    told = inputs()
    model, interface = told.model, told.llm.interface
    composer = told.composer(model)
    config = ExampleConfig(candidates=5, text_items=0.0, text_prompts=float(by_text), batch_tokens=100_000)
    batch = ExampleSampler(told.split, config, np.full(31, 4), seed=3).batches(0)[0]
    histories = [told.split.train[user][:end] for user, end in zip(batch.users, batch.ends, strict=True)]
    joint = model.joint_text if by_text else model.joint_item
    shown = [history[-10:] for history in histories]
    series = series_table(composer.titles, shown, batch.items)
    users = model.user_vectors(histories)
    read = law_logits(ExactReader(model.projector, interface), users, joint, shown, batch.items, series)
    log_probs = torch.from_numpy(read).log_softmax(dim=1)
    surprise = -log_probs[torch.arange(len(batch)), torch.from_numpy(batch.answers)].mean()
    entropy = -(log_probs.exp() * log_probs).sum(dim=1).mean()
    teach = token_teacher(model, composer.titles, interface)
    for share in (0.0, 0.25):
        loss = LawLoss(told, composer, interface, share, teach)(batch)
        assert float(loss.detach()) == pytest.approx(float((1 - share) * surprise + share * entropy), abs=1e-4)


def start(run: StageRun) -> dict[str, float]:
    return json.loads((run.directory / "metrics.json").read_text())["start"]


def test_projections_are_rehearsed_and_the_best_are_kept(tmp_path: Path) -> None:
    """The steps that are kept are in the metrics, and another fit takes as many without looking at anybody."""
    run = StageRun(tmp_path / "first", CONFIG, 0, {})
    train_stage2(inputs(), CONFIG, run)
    kept = start(run)["rehearsal_steps"]
    assert kept in (0.0, 30.0)
    chosen = Chosen(temperature=1.0, steps=0, rehearsal_steps=7)
    config = CONFIG.model_copy(update={"chosen": chosen})
    run = StageRun(tmp_path / "second", config, 0, {})
    model = train_stage2(inputs(), config, run)
    assert start(run)["rehearsal_steps"] == 7
    assert "rehearsal_ndcg@10" not in start(run)
    bare = config.model_copy(update={"rehearsal": None})
    unrehearsed = train_stage2(inputs(), bare, StageRun(tmp_path / "third", bare, 0, {}))
    assert not torch.equal(model.projector.user.output.weight, unrehearsed.projector.user.output.weight)


def test_an_llm_without_a_law_cannot_be_rehearsed_for(tmp_path: Path) -> None:
    """It is trained as if nothing had been said."""
    run = StageRun(tmp_path / "run", CONFIG, 0, {})
    train_stage2(inputs(interface=False), CONFIG, run)
    assert "rehearsal_steps" not in start(run)
