"""Stage 2's losses: a batch of prompts to a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from models.catalogue import PADDING_ITEM
from models.composer import PromptComposer
from models.llm.head import head_of
from models.precision import training_dtype
from models.prompts.layout import PromptLayout
from models.scoring.choices import ChoiceTrie
from models.scoring.likelihood import ContinuationTree
from models.scoring.packing import PackedBatch, node_logits, pack
from training.allmrec.stage2.config import Loss, Stage2Config
from training.allmrec.stage2.examples import Examples
from training.allmrec.stage2.inputs import Stage2Inputs
from training.allmrec.stage2.reader import FrozenReader
from training.allmrec.stage2.teachers import Teacher


class Stage2Loss:
    """A batch of examples to its loss.

    Args:
        inputs: the data, the tables as the examples have them and the frozen LLM; the projector of its model is in
            training.
        composer: builds the prompts.
        config: of the stage.
        teach: gives the distributions for distillation.
    """

    def __init__(self, inputs: Stage2Inputs, composer: PromptComposer, config: Stage2Config, teach: Teacher) -> None:
        self._split, self._model, self._llm = inputs.split, inputs.model, inputs.llm
        self._template, self._titles = composer.template, composer.titles
        self._config, self._teach = config, teach
        llm, model = inputs.llm, inputs.model
        dtype = training_dtype(config.training_dtype, llm.model.device)
        self._reader = FrozenReader(llm.model, dtype, config.gradient_checkpointing)
        # Item i by its text is row i + N + 1.
        self._joint = torch.cat([model.joint_item, model.joint_text])
        self._text_offset = len(model.joint_item)

    def __call__(self, batch: Examples) -> torch.Tensor:
        """The mean loss of `batch`."""
        candidates = [items[items != PADDING_ITEM] for items in batch.items]
        histories = [self._split.train[user][:end] for user, end in zip(batch.users, batch.ends, strict=True)]
        shown = [self._template.config.shown(history) for history in histories]
        layouts = [
            self._template.recommend(self._titles.of(history), self._titles.of(items), self._config.injection)
            for history, items in zip(shown, candidates, strict=True)
        ]
        tries = [ChoiceTrie(layout.choices, self._template.end_token) for layout in layouts]
        users_B_D = self._model.user_vectors(histories, [self._split.user_ids[user] for user in batch.users])
        limit = self._config.examples.history_items
        shown_rows = [
            self._rows(items, flags[limit - len(items) : limit])
            for items, flags in zip(shown, batch.as_text, strict=True)
        ]
        candidate_rows = [
            self._rows(items, flags[limit : limit + len(items)])
            for items, flags in zip(candidates, batch.as_text, strict=True)
        ]
        soft_S_H = self._model.projector(
            layouts,
            users_B_D,
            [self._joint[rows] for rows in shown_rows],
            [self._joint[rows] for rows in candidate_rows],
        )
        if self._config.loss is Loss.TITLE:
            return self._title_loss(layouts, batch.answers, soft_S_H)
        taught = self._teach(users_B_D, shown_rows, candidate_rows) if self._config.distillation else None
        return self._choice_loss(layouts, tries, _Wanted(batch, taught, self._config.distillation), soft_S_H)

    def _rows(self, items: np.ndarray, as_text: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy(items + self._text_offset * as_text)
        return rows.to(self._joint.device)

    def _choice_loss(
        self, layouts: Sequence[PromptLayout], tries: Sequence[ChoiceTrie], wanted: _Wanted, soft_S_H: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy between the distribution asked for and the constrained decoder's."""
        batch = _packed(layouts, tries).to(soft_S_H.device)
        hidden_M_H = self._reader(batch, soft_S_H, batch.node_rows, batch.node_columns)
        log_probs_M_C = node_logits(self._llm.model, hidden_M_H, batch.children_M_C).log_softmax(dim=1)
        mass_M_C = node_masses(tries, wanted.by_nodes, log_probs_M_C.shape).to(log_probs_M_C.device)
        loss = -(mass_M_C * log_probs_M_C.masked_fill(mass_M_C == 0, 0.0)).sum()
        if wanted.corrected:
            loss = loss + wanted.share * corrected_surprise(choice_log_probs(tries, log_probs_M_C), wanted.batch).sum()
        return loss / len(layouts)

    def _title_loss(self, layouts: Sequence[PromptLayout], answers: np.ndarray, soft_S_H: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the target's tokens and the closing quote, over the whole vocabulary."""
        titles = [
            [*layout.choices[answer], self._template.end_token] for layout, answer in zip(layouts, answers, strict=True)
        ]
        prompts = [
            PromptLayout(
                np.concatenate([layout.token_ids, np.asarray(title[:-1], dtype=np.int64)]),
                layout.soft_positions,
                layout.slot_kinds,
                layout.slot_ordinals,
                layout.choices,
            )
            for layout, title in zip(layouts, titles, strict=True)
        ]
        no_tries = [ChoiceTrie([title], self._template.end_token) for title in titles]
        batch = _packed(prompts, no_tries).to(soft_S_H.device)
        rows = [row for row, title in enumerate(titles) for _ in title]
        columns = [
            len(layout.token_ids) - 1 + depth
            for layout, title in zip(layouts, titles, strict=True)
            for depth in range(len(title))
        ]
        targets = torch.tensor([token for title in titles for token in title], device=soft_S_H.device)
        hidden_O_H = self._reader(batch, soft_S_H, *torch.tensor([rows, columns], device=soft_S_H.device))
        logits_O_V = head_of(self._llm.model).all_logits(hidden_O_H)
        return nn.functional.cross_entropy(logits_O_V, targets, reduction="sum") / len(layouts)


class _Wanted:
    """Which distributions a batch's choices are to have.

    Args:
        batch: its examples.
        taught: per prompt (C,) what a teacher says.
        distillation: what the teacher counts beside the target.

    Attributes:
        share: what the target counts.
        corrected: whether candidates were drawn with different odds, so that the target is asked for by
            `corrected_surprise`.
        by_nodes: per prompt (C,) all else.
    """

    def __init__(self, batch: Examples, taught: Sequence[np.ndarray] | None, distillation: float) -> None:
        self.batch, self.share = batch, 1.0 - distillation
        self.corrected = bool(batch.log_odds.any()) and self.share > 0
        shown = (batch.items != PADDING_ITEM).sum(axis=1)
        share = 0.0 if self.corrected else self.share
        # Padding stands last, so a target's place is the same without it.
        self.by_nodes = [share * np.eye(count)[answer] for count, answer in zip(shown, batch.answers, strict=True)]
        if taught is not None:
            taught_parts = zip(self.by_nodes, taught, strict=True)
            self.by_nodes = [target + distillation * probabilities for target, probabilities in taught_parts]


def choice_log_probs(tries: Sequence[ChoiceTrie], log_probs_M_C: torch.Tensor) -> torch.Tensor:
    """(B, C) log P of each prompt's choices under constrained decoding, -inf beyond them; equal ones share evenly.

    Args:
        tries: of B prompts.
        log_probs_M_C: of the children of all branching nodes, in the order in which a packed batch lists them.
    """
    shares = np.zeros((len(tries), max(len(trie) for trie in tries)), dtype=np.float32)
    for row, trie in enumerate(tries):
        shares[row, : len(trie)] = -np.log(np.bincount(trie.groups)[trie.groups])
    return path_log_probs(tries, log_probs_M_C) + torch.from_numpy(shares).to(log_probs_M_C.device)


def path_log_probs(tries: Sequence[ChoiceTrie | ContinuationTree], log_probs_M_C: torch.Tensor) -> torch.Tensor:
    """(B, C) log P of each prompt's strings, -inf beyond them; arguments as of `choice_log_probs`."""
    widest = max(len(trie) for trie in tries)
    places, columns = [], []
    real_B_C = np.zeros((len(tries), widest), dtype=bool)
    first, children = 0, log_probs_M_C.shape[1]
    for row, trie in enumerate(tries):
        real_B_C[row, : len(trie)] = True
        for choice, steps in enumerate(trie.steps):
            columns += [(first + branch) * children + child for branch, child in steps]
            places += [row * widest + choice] * len(steps)
        first += len(trie.branches)
    device = log_probs_M_C.device
    taken = log_probs_M_C.flatten()[torch.tensor(columns, dtype=torch.int64, device=device)]
    sums = torch.zeros(real_B_C.size, device=device)
    sums = sums.index_add(0, torch.tensor(places, dtype=torch.int64, device=device), taken)
    return sums.view(real_B_C.shape).masked_fill(~torch.from_numpy(real_B_C).to(device), -torch.inf)


def corrected_surprise(log_probs_B_C: torch.Tensor, batch: Examples) -> torch.Tensor:
    """(B,) -log P(target) among candidates that were drawn with different odds.

    An item that is the next one with probability p and a negative with odds q is, among candidates, the next one with
    probability in proportion to p / q: so log q is taken from the log-probabilities, whose optimum is then log p
    whatever q is (Bengio and Senecal 2008).

    Args:
        log_probs_B_C: of the choices, -inf beyond them.
        batch: the examples.
    """
    odds_B_C = torch.from_numpy(batch.log_odds[:, : log_probs_B_C.shape[1]]).to(log_probs_B_C)
    answers_B_1 = torch.from_numpy(batch.answers).to(log_probs_B_C.device)[:, None]
    return -(log_probs_B_C - odds_B_C).log_softmax(dim=1).gather(1, answers_B_1)[:, 0]


def node_masses(tries: Sequence[ChoiceTrie], wanted: Sequence[np.ndarray], shape: Sequence[int]) -> torch.Tensor:
    """(M, C) the probability mass that goes through every child of every branching node.

    Args:
        tries: of the prompts.
        wanted: per prompt (K,) the distribution over its choices.
        shape: (M, C), nodes in the order in which a packed batch lists them.
    """
    mass_M_C = np.zeros(tuple(shape), dtype=np.float32)
    first = 0
    for trie, probabilities in zip(tries, wanted, strict=True):
        for probability, steps in zip(probabilities, trie.steps, strict=True):
            for branch, child in steps:
                mass_M_C[first + branch, child] += probability
        first += len(trie.branches)
    return torch.from_numpy(mass_M_C)


def _packed(layouts: Sequence[PromptLayout], tries: Sequence[ChoiceTrie]) -> PackedBatch:
    return pack([layout.token_ids for layout in layouts], [layout.soft_positions for layout in layouts], tries)
