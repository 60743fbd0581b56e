"""Stage 2 without the LLM: where a law says how it reads tokens, projections learn by the law first.

An answer of the law costs a thousandth of one of the LLM's, so that targets are met for many epochs. What the LLM makes
of the tokens otherwise is for the steps that follow.

Axes: B prompts, C candidates, n items of a batch, Y coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.catalogue import PADDING_ITEM
from models.composer import PromptComposer
from models.llm.law import ExactReader, TokenLaw, series_table
from models.llm.token_interface import TokenInterface
from models.rankers.tokens import TokenRanker
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.examples import Examples, ExampleSampler
from training.allmrec.stage2.inputs import Stage2Inputs
from training.allmrec.stage2.loss import corrected_surprise
from training.allmrec.stage2.teachers import Teacher
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.runs.context import RunContext
from training.runs.loop import LoopConfig, Outcome, Task

BATCH_TOKENS = 1 << 17
"""Of prompts that nobody reads: about 256 of them a step."""
REHEARSAL_USERS = 5_000
"""Who are validated on at most: the law answers at once."""


class LawLoss:
    """A batch of examples to the loss of what the law says of their tokens.

    Args:
        told: the data, and the tables as the examples have them; the projector of its model is in training.
        composer: says what a prompt shows.
        interface: has the law.
        distillation: share of the teacher.
        teach: gives the distributions for distillation.
    """

    def __init__(
        self,
        told: Stage2Inputs,
        composer: PromptComposer,
        interface: TokenInterface,
        distillation: float,
        teach: Teacher,
    ) -> None:
        self._split, self._model, self._composer = told.split, told.model, composer
        self._distillation, self._teach = distillation, teach
        self._joint = torch.cat([told.model.joint_item, told.model.joint_text])
        self._interface = interface.to(self._joint.device)

    def __call__(self, batch: Examples) -> torch.Tensor:
        """The mean loss of `batch`."""
        histories = [self._split.train[user][:end] for user, end in zip(batch.users, batch.ends, strict=True)]
        users_B_D = self._model.user_vectors(histories, [self._split.user_ids[user] for user in batch.users]).clone()
        shown = [self._composer.template.config.shown(history) for history in histories]
        by_text = len(self._model.joint_item)
        limit = batch.as_text.shape[1] - batch.items.shape[1]
        shown_rows = [
            items + by_text * flags[limit - len(items) : limit]
            for items, flags in zip(shown, batch.as_text, strict=True)
        ]
        rows_B_C = batch.items + by_text * batch.as_text[:, limit:]
        logits_B_C = self._logits(
            users_B_D, shown_rows, rows_B_C, series_table(self._composer.titles, shown, batch.items)
        )
        logits_B_C = logits_B_C.masked_fill(torch.from_numpy(batch.items == PADDING_ITEM).to(users_B_D.device), -1e9)
        loss = (1.0 - self._distillation) * corrected_surprise(logits_B_C, batch).mean()
        if self._distillation:
            loss = loss + self._distillation * self._surprise(logits_B_C, users_B_D, shown_rows, rows_B_C)
        return loss

    def _logits(
        self, users_B_D: torch.Tensor, shown: Sequence[np.ndarray], rows_B_C: np.ndarray, series_B_C: np.ndarray
    ) -> torch.Tensor:
        """(B, C) by the law; each item's token is made once."""
        reader = ExactReader(self._model.projector, self._interface)
        distinct, places = np.unique(np.concatenate([*shown, rows_B_C.ravel()]), return_inverse=True)
        items_n_Y = reader.items(self._joint[torch.from_numpy(distinct).to(self._joint.device)])
        ends = np.cumsum([len(rows) for rows in shown])
        *histories, candidates = np.split(places, ends)
        users_B_Y1 = reader.users_of(users_B_D, items_n_Y, histories)
        chosen = torch.from_numpy(candidates.reshape(rows_B_C.shape)).to(items_n_Y.device)
        return reader.logits(users_B_Y1, items_n_Y[chosen], torch.from_numpy(series_B_C).to(users_B_Y1))

    def _surprise(
        self, logits_B_C: torch.Tensor, users_B_D: torch.Tensor, shown: Sequence[np.ndarray], rows_B_C: np.ndarray
    ) -> torch.Tensor:
        """Cross-entropy with what the teacher says."""
        by_text = len(self._model.joint_item)
        candidates = [torch.from_numpy(rows[rows % by_text != PADDING_ITEM]) for rows in rows_B_C]
        taught = self._teach(users_B_D, [torch.from_numpy(rows) for rows in shown], candidates)
        wanted_B_C = np.zeros(logits_B_C.shape, dtype=np.float32)
        for row, probabilities in enumerate(taught):
            wanted_B_C[row, : len(probabilities)] = probabilities
        return -(torch.from_numpy(wanted_B_C).to(logits_B_C) * logits_B_C.log_softmax(dim=1)).sum(dim=1).mean()


def rehearse(
    told: Stage2Inputs,
    composer: PromptComposer,
    interface: TokenInterface,
    teach: Teacher,
    sampler: ExampleSampler,
    config: Stage2Config,
    run: RunContext,
) -> Outcome:
    """Train the projector by the law, as `config.rehearsal` says.

    Args:
        told: as in `LawLoss`.
        composer: of the model that is served, on which validation is.
        interface: has the law.
        teach: gives the distributions for distillation.
        sampler: draws the examples.
        config: of the stage.
        run: keeps checkpoints.
    """
    loop = config.rehearsal
    if loop is None:
        return Outcome()
    if config.chosen is not None:
        if not config.chosen.rehearsal_steps:
            return Outcome()
        ends = {"epochs": None, "minutes": None, "patience": None, "validate_first": False}
        loop = LoopConfig(**{**loop.model_dump(), **ends, "max_steps": config.chosen.rehearsal_steps})
    held_out = HeldOut.of(told.split, Holdout.VALIDATION, config.seed, REHEARSAL_USERS)
    law = TokenLaw.of(interface, composer.titles, composer.template.config.history_items)
    ranker = TokenRanker("tokens", "Tokens", composer.model, law)
    projector = told.model.projector.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        projector.parameters(), lr=config.rehearsal_learning_rate, betas=config.betas, weight_decay=0.0
    )
    task = Task(
        projector,
        optimizer,
        sampler.batches,
        LawLoss(told, composer, interface, config.distillation, teach),
        (lambda: mean_metrics(ranker.compute(held_out.users, held_out.candidates.items)))
        if not config.chosen
        else None,
        Examples.part,
    )
    outcome = run.train(task, loop, "stage 2 by the law", "rehearsal")
    projector.requires_grad_(False)
    return outcome
