"""An LLM whose own weights learn to rank titles: `allmrec-train tune-llm` (ADR 26).

A pretrained LM says how likely titles go together, and not what people take next. Here it learns the latter from
training sequences: among a target and negatives by the likelihoods that the blend weighs afterwards. The LLM that comes
of it is one like any other, and is frozen from then on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from models.devices import check_devices
from models.domain import Domain
from models.errors import ConfigError
from models.llm.checkpoint import fingerprint_checkpoint
from models.llm.families import check_family
from models.llm.loading import LanguageModel, load_config, load_llm, load_tokenizer, resolve
from models.llm.token_interface import INTERFACE_FILE
from models.title_lists import TitleLists
from training.allmrec.tuned import TunedOn, TuningData
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.llm2rec.batches import Dealt
from training.llm2rec.model import Tuning
from training.runs.loop import Outcome, Task, seed_everything
from training.runs.stage_run import StageRun
from training.tuning.config import TunedLLMConfig
from training.tuning.positions import Positions
from training.tuning.reading import Reading

LLM_FOLDER = "llm"
LABEL = "tune-llm"


def tune_llm(
    split: SequenceSplit,
    domain: Domain,
    config: TunedLLMConfig,
    data: TuningData,
    directory: Path,
    console: Console | None = None,
) -> Path:
    """The folder of the tuned LLM, made if need be, in float32: in half precision small steps would be rounded away.

    Args:
        split: the data.
        domain: the wording of lists.
        config: how.
        data: a fingerprint of them, and what is held out (`TunedOn`).
        directory: of the run; what is done there is not done again.
        console: for progress.

    Raises:
        ConfigError: the LLM cannot be loaded, is of a family that cannot be asked, reads injected tokens or is a tuned
            one; or the directory has an LLM that was tuned in another way.
        DataError: there is nothing to learn from.
        PromptTooLongError: the LLM's context has no room for a list.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    check_devices([config.device])
    check_llm(config.llm)
    fingerprint = fingerprint_checkpoint(resolve(config.llm))
    record = TunedOn(llm=fingerprint, title_list=config.title_list, **data._asdict())
    nameless = config.model_copy(update={"llm": ""})  # it is known by its weights
    run = StageRun(directory, nameless, config.seed, record.model_dump(exclude={"title_list", "interactions"}), console)
    folder = directory / LLM_FOLDER
    if run.is_done:
        run.alone(lambda: record.save(folder))  # one of before knew less
        run.say(f"{LABEL}: done before, unchanged: {folder}")
        return folder
    if folder.exists() and not run.is_begun:
        raise ConfigError(f"{folder} was tuned by other settings, on other data or of another LLM: name another --out")
    seed_everything(config.seed)
    llm = load_llm(config.llm, config.device, torch.float32)
    lists = TitleLists(split.catalogue.titles, llm.tokenizer, config.title_list, domain, llm.context_length)
    tuning = Tuning(llm.model, config.lora)
    if config.gradient_checkpointing:
        llm.model.gradient_checkpointing_enable({"use_reentrant": False})
    reading = Reading(llm, tuning.weights, lists)
    job = task(reading, split, lists, config)
    lists.after([])  # a list that does not fit is known before what was done is undone
    run.start()
    outcome = run.train(job, config.loop, LABEL)
    run.alone(lambda: save(llm, tuning, record, folder))
    run.write_curve(outcome.curve, LABEL)
    scale, share = float(reading.log_scale.detach().exp()), float(reading.share.detach())
    run.finish({"scale": scale, "prior_share": share, **outcome.summary})
    run.say(f"{LABEL}: {in_words(outcome, config.loop.monitor)}: {folder}")
    return folder


def check_llm(name: str) -> None:
    """What can be known of an LLM before its weights are read.

    Raises:
        ConfigError: it is not there, is of a family that cannot be asked, reads injected tokens, or is a tuned one.
    """
    load_tokenizer(name)
    check_family(name, load_config(name))
    if (Path(resolve(name)) / INTERFACE_FILE).is_file():
        raise ConfigError(
            f"LLM '{name}' was taught to read injected tokens, and tuned would not any more: name another"
        )
    TunedOn.refuse(name)


def task(reading: Reading, split: SequenceSplit, lists: TitleLists, config: TunedLLMConfig) -> Task[Dealt]:
    """What the loop drives; validation is among 1 + 19 uniform items, of users who had not met theirs.

    Raises:
        DataError: there is nothing to learn from.
    """
    positions = Positions(split, lists.lengths, config.title_list.history_items, config.negatives, config.seed)
    held_out = HeldOut.of(split, Holdout.VALIDATION, config.seed, config.validation_users)
    held_out = held_out.take(held_out.groups["new"])
    optimizer = torch.optim.AdamW(
        [
            {"params": [*reading.weights.parameters()], "lr": config.rate},
            {"params": [reading.log_scale, reading.share], "lr": config.reading_rate},
        ],
        weight_decay=0.0,
    )

    def loss(batch: Dealt) -> torch.Tensor:
        read = reading.read(*positions.take(batch))
        among = -reading.logits(read).log_softmax(dim=1)[:, 0].mean()
        return among - config.likelihood * (read.likely_B_C[:, 0] / read.target_tokens_B).mean()

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


def save(llm: LanguageModel, tuning: Tuning, record: TunedOn, folder: Path) -> None:
    """Write the LLM; the folder is there once all of it is."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    tuning.merge().save_pretrained(draft)
    llm.tokenizer.save_pretrained(draft)
    record.save(draft)
    for path in draft.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner alone; the service may be another user
    shutil.rmtree(folder, ignore_errors=True)  # of the same run, stopped before it was done
    draft.rename(folder)


def in_words(outcome: Outcome, monitor: str) -> str:
    """What training brought."""
    validated = [point[monitor] for point in outcome.curve if monitor in point]
    if not validated:
        return "tuned"
    if not outcome.best_step:
        return f"no better than it was (validation {monitor} {validated[0]:.4f}), and left as it was"
    if outcome.curve[0]["step"]:
        return f"validation {monitor} {max(validated):.4f}; it was not validated before"
    return f"validation {monitor} {validated[0]:.4f} to {max(validated):.4f}"
