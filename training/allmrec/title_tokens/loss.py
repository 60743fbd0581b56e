"""The loss of injected tokens in lists of titles: a batch of histories and candidates to a number.

Axes: B lists, C candidates, M branching nodes of all lists, S injected tokens, H the LLM's hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.alignment.projection import TitleProjector
from models.catalogue import PADDING_ITEM
from models.composer import PromptComposer
from models.precision import training_dtype
from models.scoring.likelihood import child_log_probs
from models.scoring.packing import pack
from training.allmrec.stage2.examples import Examples
from training.allmrec.stage2.inputs import Stage2Inputs
from training.allmrec.stage2.loss import corrected_surprise, path_log_probs
from training.allmrec.stage2.reader import FrozenReader
from training.allmrec.stage2.teachers import Teacher
from training.allmrec.title_tokens.config import TitleTokensConfig


class TitleTokensLoss:
    """A batch of examples to its loss: the surprise at the target among the candidates.

    A candidate's logit is `scale * (log P(title | list, injected tokens) - prior_share * log P(title))`.

    Args:
        told: the data, and the tables as the examples have them.
        projector: in training.
        composer: builds the lists.
        config: of the stage.
        teach: gives the distributions for distillation.
    """

    def __init__(
        self,
        told: Stage2Inputs,
        projector: TitleProjector,
        composer: PromptComposer,
        config: TitleTokensConfig,
        teach: Teacher,
    ) -> None:
        self._split, self._model, self._llm = told.split, told.model, told.llm
        self._projector, self._composer = projector, composer
        self._distillation, self._teach = config.distillation, teach
        dtype = training_dtype(config.training_dtype, self._llm.model.device)
        self._reader = FrozenReader(self._llm.model, dtype, config.gradient_checkpointing)
        self._priors = torch.from_numpy(told.model.title_log_probs).to(told.model.cf_vectors.device)

    def __call__(self, batch: Examples) -> torch.Tensor:
        """The mean loss of `batch`."""
        candidates = [items[items != PADDING_ITEM] for items in batch.items]
        histories = [self._split.train[user][:end] for user, end in zip(batch.users, batch.ends, strict=True)]
        owners = [self._split.user_ids[user] for user in batch.users]
        # A copy can be trained through, what inference made cannot.
        users_B_D = self._model.user_vectors(histories, owners).clone()
        limit = batch.as_text.shape[1] - batch.items.shape[1]
        joints = [self._joints(history, flags[:limit]) for history, flags in zip(histories, batch.as_text, strict=True)]
        logits_B_C = self.logits(users_B_D, histories, joints, candidates)
        loss = (1.0 - self._distillation) * corrected_surprise(logits_B_C, batch).mean()
        if self._distillation:
            loss = loss + self._distillation * self._distilled(logits_B_C, users_B_D, candidates)
        return loss

    def _joints(self, history: np.ndarray, as_text: np.ndarray) -> torch.Tensor:
        """(T, 2d') the joint embeddings of a history; of the latest items some by their text alone."""
        joint_T_2J = self._model.joint_item[torch.from_numpy(history)]
        latest = as_text[max(0, len(as_text) - len(history)) :]
        by_text = len(history) - len(latest) + np.flatnonzero(latest)
        joint_T_2J[torch.from_numpy(by_text)] = self._model.joint_text[torch.from_numpy(history[by_text])]
        return joint_T_2J

    def logits(
        self,
        users_B_D: torch.Tensor,
        histories: Sequence[np.ndarray],
        joints: Sequence[torch.Tensor],
        candidates: Sequence[np.ndarray],
    ) -> torch.Tensor:
        """(B, C) of the candidates, -inf beyond each list's own.

        Args:
            users_B_D: x_u.
            histories: item numbers, oldest first.
            joints: per history (T, 2d') what is injected of its items.
            candidates: item numbers.
        """
        layouts = [self._composer.lists.layout(history.tolist()) for history in histories]
        trees = [self._composer.lists.tree(items) for items in candidates]
        no_candidates = [self._model.joint_item[:0]] * len(layouts)
        soft_S_H = self._projector(layouts, users_B_D, joints, no_candidates)
        packed = pack([layout.token_ids for layout in layouts], [layout.soft_positions for layout in layouts], trees)
        packed = packed.to(soft_S_H.device)
        hidden_M_H = self._reader(packed, soft_S_H, packed.node_rows, packed.node_columns)
        nodes_M_C = child_log_probs(self._llm.model, hidden_M_H, packed.children_M_C, trees[0].vocabulary)
        likely_B_C = path_log_probs(trees, nodes_M_C)
        prior_B_C = torch.nn.utils.rnn.pad_sequence(
            [self._priors[torch.from_numpy(items)] for items in candidates], batch_first=True
        )
        # What is infinite must not be multiplied by what is trained: its gradient would not be a number.
        real_B_C = likely_B_C.isfinite()
        left_B_C = likely_B_C.masked_fill(~real_B_C, 0.0) - self._projector.prior_share * prior_B_C
        return (self._projector.scale * left_B_C).masked_fill(~real_B_C, -torch.inf)

    def _distilled(
        self, logits_B_C: torch.Tensor, users_B_D: torch.Tensor, candidates: Sequence[np.ndarray]
    ) -> torch.Tensor:
        """Mean cross-entropy with what the teacher says."""
        taught = self._teach(users_B_D, [], [torch.from_numpy(items) for items in candidates])
        wanted_B_C = torch.zeros_like(logits_B_C)
        for row, probabilities in enumerate(taught):
            wanted_B_C[row, : len(probabilities)] = torch.from_numpy(probabilities).to(wanted_B_C)
        log_probs_B_C = logits_B_C.log_softmax(dim=1).masked_fill(wanted_B_C == 0, 0.0)
        return -(wanted_B_C * log_probs_B_C).sum(dim=1).mean()
