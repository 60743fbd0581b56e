"""The stage `user_encoder`: teach a head to make user vectors of the states of a frozen LLM.

The LLM reads the titles of a history as one list (`models.prompts.title_list`), untrained. A causal LM's state behind
each title is that of the list so far, so that one pass over a window of a training sequence gives a position to learn
from for each of its items. What is learned is the next item's softmax over the catalogue, with the frozen item vectors
of CF space as its classes: new items, which stand there by their text, need no other training. The backbone, which
learned from far more than an LLM can read in this time, teaches its own distribution after the same history.

Axes: P positions, B of a batch, M items that targets are told from, D CF size d, H the LLM's hidden size,
E validation users.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from models.alignment.user_head import UserHead
from models.bundle.catalogue_model import CatalogueModel
from models.composer import Encoding
from models.config import Config
from models.engines.remembering import remembering
from models.engines.transformers import in_process
from models.llm.loading import LanguageModel
from models.rankers.collaborative import candidate_logits
from models.rankers.user_encoder import read_all
from training.allmrec.stage2.inputs import Stage2Inputs
from training.backbones.windows import Windows
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun

HEAD_FILE = "user_head.safetensors"
LABEL = "user encoder"


class UserEncoderConfig(Config):
    """The stage `user_encoder`.

    Attributes:
        prompts: at most this many lists are read by the LLM. Each has a position for every title that it shows.
        hidden_size: of the head's layer between.
        dropout: of that layer.
        distillation: share of the loss that asks for the backbone's distribution instead of the item that followed.
        softmax_items: at most so many items are drawn for each batch, uniformly, that its targets are told from; all
            that were met in training if there are no more.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        batch_size: positions.
        validation_users: at most this many users are validated on.
        seed: of the choice of lists, the head and its training.
        loop: when to stop, validate and save.
    """

    prompts: int = Field(4000, gt=0)
    hidden_size: int = Field(512, gt=0)
    dropout: float = Field(0.5, ge=0, lt=1)
    distillation: float = Field(0.9, ge=0, le=1)
    softmax_items: int = Field(16384, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(256, gt=0)
    validation_users: int = Field(1000, gt=0)
    seed: int = 0
    loop: LoopConfig = LoopConfig(epochs=40, validate_every=0.5, patience=6)


@dataclass(frozen=True)
class Positions:
    """What is learned from.

    Attributes:
        states: (P, H) of the LLM after histories.
        targets: (P,) the items that followed.
        teachers: (P, d) x_u of the same histories.
    """

    states: torch.Tensor
    targets: torch.Tensor
    teachers: torch.Tensor


def train_user_encoder(inputs: Stage2Inputs, config: UserEncoderConfig, run: StageRun, answers: Path) -> UserHead:
    """Run the stage, or load its result if it is done. The first process does it alone.

    Args:
        inputs: what stage 1 left, and the LLM.
        config: the stage's config, of which `run` was made.
        run: the stage's directory. Gets `user_head.safetensors`.
        answers: a file that keeps what the LLM said: no history is read twice, nor again after a stop.

    Raises:
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if not run.is_done:
        run.start()
        run.alone(lambda: _train(inputs, config, run, answers))
    return UserHead.of_weights(load_file(run.directory / HEAD_FILE)).to(inputs.model.cf_vectors.device)


def _train(inputs: Stage2Inputs, config: UserEncoderConfig, run: StageRun, answers: Path) -> None:
    held_out = HeldOut.of(inputs.split, Holdout.VALIDATION, config.seed, config.validation_users)
    learned, asked_E_H = read_histories(inputs, held_out, config, run, answers)
    seed_everything(config.seed)
    head, outcome = fit_head(learned, held_out, asked_E_H, inputs.model, config, run)
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}, run.directory / HEAD_FILE
    )
    run.write_curve(outcome.curve, LABEL)
    run.finish({"positions": len(learned.targets), **outcome.summary})


def read_histories(
    inputs: Stage2Inputs, held_out: HeldOut, config: UserEncoderConfig, run: RunContext, answers: Path | None = None
) -> tuple[Positions, torch.Tensor]:
    """Have the LLM read what is learned from and the histories of `held_out`: positions, and states (E, H)."""
    composer = inputs.composer(inputs.model)
    windows = Windows(inputs.split.train, inputs.prompt.title_list.history_items)
    chosen = np.random.default_rng(config.seed).permutation(len(windows.users))[: config.prompts]
    sequences = [windows.items_of(chosen[place : place + 1])[0] for place in range(len(chosen))]
    questions = [composer.encodings(items[:-1].tolist()) for items in sequences]
    asked = [composer.encoding(history.tolist()) for history in held_out.users.histories]
    states = asyncio.run(_states([*questions, *asked], inputs.llm, run, answers))
    # What is shown of a history are its latest titles.
    targets = [items[len(items) - len(read) :] for items, read in zip(sequences, states[: len(sequences)], strict=True)]
    nothing, device = np.zeros((0, inputs.llm.token_size), dtype=np.float32), inputs.model.cf_vectors.device
    learned, asked_E_H = (np.concatenate([nothing, *part]) for part in (states[: len(targets)], states[len(targets) :]))
    targets_P = np.concatenate([np.zeros(0, dtype=np.int64), *targets])
    histories, owners = [], []
    for user, items, those in zip(windows.users[chosen], sequences, targets, strict=True):
        histories += [items[:place] for place in range(len(items) - len(those), len(items))]
        owners += [inputs.split.user_ids[user]] * len(those)
    teachers = inputs.model.user_vectors(histories, owners).to(device).clone()
    positions = Positions(torch.from_numpy(learned).to(device), torch.from_numpy(targets_P).to(device), teachers)
    return positions, torch.from_numpy(asked_E_H).to(device)


async def _states(
    questions: Sequence[Encoding], llm: LanguageModel, run: RunContext, answers: Path | None
) -> list[np.ndarray]:
    """What the LLM says to all `questions`."""
    with run.progress() as bar:
        task = bar.add_task(f"{LABEL}: the LLM reads", total=len(questions))
        async with in_process(llm) as engine, remembering(engine, answers, llm.precision) as remembers:
            return await read_all(remembers, questions, lambda: bar.advance(task))


def fit_head(
    learned: Positions,
    held_out: HeldOut,
    asked_E_H: torch.Tensor,
    model: CatalogueModel,
    config: UserEncoderConfig,
    run: RunContext,
) -> tuple[UserHead, Outcome]:
    """Train the head; returns it with its best weights on validation users, and how training went.

    Args:
        learned: what is learned from.
        held_out: validation users; none, and the last weights are kept.
        asked_E_H: their states.
        model: has the item vectors.
        config: of the stage.
        run: keeps checkpoints.
    """
    items_N_D = model.cf_vectors
    head = UserHead(learned.states.shape[1], config.hidden_size, items_N_D.shape[1], config.dropout)
    head = head.to(items_N_D.device)
    head.standardise(learned.states)
    met = torch.from_numpy(np.flatnonzero(model.catalogue.trained)).to(items_N_D.device)

    def batches(epoch: int) -> list[np.ndarray]:
        order = epoch_rng(config.seed, epoch).permutation(len(learned.targets))
        return [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]

    def loss(rows: np.ndarray) -> torch.Tensor:
        batch = torch.from_numpy(rows).to(items_N_D.device)
        users_B_D, drawn_M = head(learned.states[batch]), drawn_items(met, config.softmax_items)
        targets = softmax_loss(users_B_D, learned.targets[batch], items_N_D, drawn_M, len(met))
        taught = distillation_loss(users_B_D, learned.teachers[batch], items_N_D[drawn_M])
        return (1 - config.distillation) * targets + config.distillation * taught

    def validate() -> dict[str, float]:
        return mean_metrics(candidate_logits(head(asked_E_H), items_N_D, held_out.candidates.items))

    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    outcome = run.train(Task(head, optimizer, batches, loss, validate if len(held_out) else None), config.loop, LABEL)
    return head.requires_grad_(False), outcome


def distillation_loss(users_B_D: torch.Tensor, teachers_B_D: torch.Tensor, items_M_D: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the users' softmax over M items to that of their teachers' vectors."""
    taught_B_M = (teachers_B_D @ items_M_D.T).softmax(dim=1)
    return -(taught_B_M * (users_B_D @ items_M_D.T).log_softmax(dim=1)).sum(dim=1).mean()


def drawn_items(met: torch.Tensor, count: int) -> torch.Tensor:
    """(M,) all of `met`, or `count` of them, drawn uniformly with replacement."""
    if len(met) <= count:
        return met
    return met[torch.randint(len(met), (count,), device=met.device)]


def softmax_loss(
    users_B_D: torch.Tensor, targets_B: torch.Tensor, items_N_D: torch.Tensor, drawn_M: torch.Tensor, of: int
) -> torch.Tensor:
    """Mean -log softmax of the targets among `of` items, of which M are there to stand for all.

    Args:
        users_B_D: user vectors.
        targets_B: item numbers.
        items_N_D: all item vectors.
        drawn_M: item numbers, all `of` of them or a uniform sample. Where one is the target, it is left out.
        of: how many there are.
    """
    targets_B_1 = (users_B_D * items_N_D[targets_B]).sum(dim=1, keepdim=True)
    others_B_M = users_B_D @ items_N_D[drawn_M].T + math.log(of / len(drawn_M))
    others_B_M = others_B_M.masked_fill(drawn_M == targets_B[:, None], -torch.inf)
    return (torch.cat([targets_B_1, others_B_M], dim=1).logsumexp(dim=1) - targets_B_1[:, 0]).mean()
