"""An LLM whose own weights learn to rank titles: `allmrec-train tune-llm` (ADR 26).

A pretrained LM says how likely titles go together, and not what people take next. Here it learns the latter from
training sequences: among a target and negatives by the likelihoods that the blend weighs afterwards. The LLM that comes
of it is one like any other, and is frozen from then on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from models.devices import check_devices
from models.domain import Domain
from models.llm.checkpoint import fingerprint_checkpoint
from models.llm.loading import LanguageModel, load_config, load_llm, resolve
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.llm2rec.batches import Dealt
from training.llm2rec.model import Tuning
from training.runs.loop import Outcome, Task, seed_everything
from training.runs.stage_run import StageRun
from training.tuning.config import TunedLLMConfig
from training.tuning.lists import Lists, Positions
from training.tuning.reading import Reading

LLM_FOLDER = "llm"
LABEL = "tune-llm"


def tune_llm(
    split: SequenceSplit, domain: Domain, config: TunedLLMConfig, directory: Path, console: Console | None = None
) -> Path:
    """The folder of the tuned LLM, made if need be, in the precision of the one that it was made of.

    Args:
        split: the data.
        domain: the wording of lists.
        config: how.
        directory: of the run; what is done there is not done again.
        console: for progress.

    Raises:
        ConfigError: the LLM cannot be loaded, or is of a family that cannot be asked.
        DataError: there is nothing to learn from.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    check_devices([config.device])
    inputs = {"llm": fingerprint_checkpoint(resolve(config.llm)), "data": _fingerprint(split, domain)}
    run = StageRun(directory, config, config.seed, inputs, console)
    if run.is_done:
        run.say(f"{LABEL}: done before, unchanged")
        return directory / LLM_FOLDER
    run.start()
    seed_everything(config.seed)
    llm = load_llm(config.llm, config.device, torch.float32)
    tuning = Tuning(llm.model, config.lora)
    lists = Lists(split.catalogue.titles, llm.tokenizer, config.title_list, domain, llm.context_length)
    reading = Reading(llm, tuning.weights, lists, config.gradient_checkpointing)
    outcome = run.train(task(reading, split, lists, config), config.loop, LABEL)
    run.alone(lambda: _save(llm, tuning, directory / LLM_FOLDER, config.llm))
    run.write_curve(outcome.curve, LABEL)
    run.finish(_figures(reading, outcome))
    return directory / LLM_FOLDER


def task(reading: Reading, split: SequenceSplit, lists: Lists, config: TunedLLMConfig) -> Task[Dealt]:
    """What the loop drives; validation is among 1 + 19 uniform items, of users who had not met theirs."""
    positions = Positions(split, lists.lengths, config.title_list.history_items, config.negatives, config.seed)
    held_out = HeldOut.of(split, Holdout.VALIDATION, config.seed, config.validation_users)
    held_out = held_out.take(held_out.groups["new"])
    optimizer = torch.optim.AdamW(
        [
            {"params": [*reading.weights.parameters()], "lr": config.learning_rate},
            {"params": [reading.log_scale, reading.share], "lr": config.reading_rate},
        ],
        weight_decay=0.0,
    )

    def loss(batch: Dealt) -> torch.Tensor:
        read = reading.read(*positions.take(batch))
        surprise = -reading.logits(read).log_softmax(dim=1)[:, 0].mean()
        unlikely = -read.likely_B_C[:, 0].mean() * reading.log_scale.exp().detach()
        return (1.0 - config.likelihood) * surprise + config.likelihood * unlikely

    def validate() -> dict[str, float]:
        scores = np.full(held_out.candidates.items.shape, -np.inf)
        for start in range(0, len(held_out), config.batch_lists):
            part = held_out.part(start, start + config.batch_lists)
            logits_B_C = reading.logits(reading.read(part.users.histories, part.candidates.items))
            scores[start : start + len(part)] = logits_B_C.float().cpu().numpy()
        return mean_metrics(scores)

    return Task(
        module=reading,
        optimizer=optimizer,
        batches=lambda epoch: positions.batches(epoch, config.batch_lists),
        loss=loss,
        validate=validate if len(held_out) else None,
        part=Dealt.part,
    )


def _save(llm: LanguageModel, tuning: Tuning, folder: Path, name: str) -> None:
    dtype = load_config(name).dtype or torch.float32
    tuning.merge().to(dtype).save_pretrained(folder)
    llm.tokenizer.save_pretrained(folder)


def _figures(reading: Reading, outcome: Outcome) -> dict[str, object]:
    scale, share = float(reading.log_scale.detach().exp()), float(reading.share.detach())
    return {"scale": scale, "prior_share": share, **outcome.summary}


def _fingerprint(split: SequenceSplit, domain: Domain) -> str:
    """SHA-256 of all that is read of the data."""
    said = [split.catalogue.titles, domain.model_dump()]
    digest = hashlib.sha256(json.dumps(said, default=list).encode())
    for part in (*split.train, split.validation):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
