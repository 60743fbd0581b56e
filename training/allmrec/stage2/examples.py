"""What stage 2 is trained on: users at some point of their sequence, and candidates for what comes next."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
from pydantic import Field

from models.batching import consecutive
from models.catalogue import PADDING_ITEM
from models.config import Config
from training.allmrec.stage2.negatives import NegativeConfig, Negatives, Retrieve
from training.data.sequences import Sequences
from training.data.splits import SequenceSplit
from training.runs.loop import epoch_rng

# Quotes, comma and slot around a title, and the words around them, roughly: batches are cut by it, nothing else.
TOKENS_PER_ENTRY = 5
TOKENS_PER_PROMPT = 60


class Positions(StrEnum):
    """Which items of a training sequence are predicted."""

    LAST = "last"
    """The last one, as in the paper."""
    ALL = "all"
    """Another random one in every epoch ("A-LLMRec_all", spread over the epochs)."""


class ExampleConfig(Config):
    """What stage 2's prompts contain.

    Attributes:
        history_items: history items told in a prompt.
        max_title_tokens: longer titles are cut.
        candidates: the target and this many less one sampled non-interacted items.
        positions: which items are predicted.
        held_back: share of every training sequence, the latest of it, that is predicted, by a backbone that was not
            fitted to it (ADR 20). Without any, all of the sequence is, by the backbone that was.
        negatives: of which kinds.
        text_prompts: share of the prompts in which all items are injected by their text, q_i.
        text_items: share of the items injected by their text in the other prompts.
        batch_tokens: prompt tokens, padding included, of one step.
        epoch_users: users of an epoch, drawn anew for each; all if not given.
    """

    history_items: int = Field(10, ge=0)
    max_title_tokens: int = Field(16, gt=0)
    candidates: int = Field(20, gt=1)
    positions: Positions = Positions.ALL
    held_back: float = Field(0.0, ge=0, lt=1)
    negatives: NegativeConfig = NegativeConfig()
    text_prompts: float = Field(0.25, ge=0, le=1)
    text_items: float = Field(0.1, ge=0, le=1)
    batch_tokens: int = Field(6144, gt=0)
    epoch_users: int | None = Field(None, gt=0)


@dataclass(frozen=True)
class Examples:
    """Training examples; a batch is some of them.

    Attributes:
        users: (B,) rows of the split.
        ends: (B,) length of the history: the target is the item after it.
        items: (B, C) candidates in the order of the prompt, padding last.
        answers: (B,) which of them is the target.
        as_text: (B, H + C) whether each history item, the latest last, and each candidate is injected by its text.
        log_odds: (B, C) logarithms of how likely each candidate was to be sampled, up to a constant.
    """

    users: np.ndarray
    ends: np.ndarray
    items: np.ndarray
    answers: np.ndarray
    as_text: np.ndarray
    log_odds: np.ndarray

    def __len__(self) -> int:
        """How many."""
        return len(self.users)

    def part(self, index: int, count: int) -> tuple[Examples | None, float]:
        """As `Task.part`: every `count`-th."""
        part = self.take(np.arange(index, len(self), count))
        return part if len(part) else None, len(part) / len(self)

    def take(self, rows: np.ndarray) -> Examples:
        """Some of them."""
        return Examples(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class ExampleSampler:
    """Draws an epoch's examples.

    Args:
        split: the data; only training interactions are looked at.
        config: what to draw.
        title_lengths: (N+1,) tokens of every title.
        seed: of all that is random.
        fitted: what the backbone that tells of these users was trained on, if not on all of their training items: what
            follows is predicted, and of items that it never met none is a target or a negative.
        retrieve: what that backbone holds likeliest, for retrieved negatives.
    """

    def __init__(
        self,
        split: SequenceSplit,
        config: ExampleConfig,
        title_lengths: np.ndarray,
        seed: int,
        fitted: SequenceSplit | None = None,
        retrieve: Retrieve | None = None,
    ) -> None:
        self._train, self._config, self._seed = split.train, config, seed
        self._ends = predicted(split) if fitted is None else predicted(split, fitted)
        self._eligible = np.flatnonzero(self._ends.lengths)
        # Items without interactions are never a target: as negatives they would only be learned to lose.
        known = (split if fitted is None else fitted).catalogue.trained
        self._negatives = Negatives(split, known, config.negatives, retrieve)
        self._title_lengths = title_lengths

    def batches(self, epoch: int) -> list[Examples]:
        """The batches of `epoch`: prompts of like length share a batch, whose padded size is within the budget."""
        rng = epoch_rng(self._seed, epoch)
        examples = self._draw(rng)
        lengths = self._lengths(examples)
        # Some noise mixes the batches from epoch to epoch.
        order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)), kind="stable")
        batches = [examples.take(rows) for rows in consecutive(order, lengths, most_padded=self._config.batch_tokens)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def _draw(self, rng: np.random.Generator) -> Examples:
        config = self._config
        users = rng.permutation(self._eligible)[: config.epoch_users]
        last = self._ends.lengths[users] - 1
        places = last if config.positions is Positions.LAST else rng.integers(last + 1)
        ends = self._ends.items[self._ends.offsets[users] + places]
        targets = np.asarray([self._train[user][end] for user, end in zip(users, ends, strict=True)], dtype=np.int64)
        items, log_odds = self._negatives.beside(targets, users, ends, config.candidates - 1, rng)
        # A random order, padding last.
        keys = rng.random(items.shape) + (items == PADDING_ITEM)
        order = np.argsort(keys, axis=1)
        entries = config.history_items + config.candidates
        as_text = rng.random((len(users), entries)) < config.text_items
        as_text |= rng.random((len(users), 1)) < config.text_prompts
        return Examples(
            users=users,
            ends=ends,
            items=np.take_along_axis(items, order, axis=1),
            answers=np.argmax(order == 0, axis=1),
            as_text=as_text,
            log_odds=np.take_along_axis(log_odds, order, axis=1),
        )

    def _lengths(self, examples: Examples) -> np.ndarray:
        told = np.asarray(
            [
                self._title_lengths[self._train[user][max(0, end - self._config.history_items) : end]].sum()
                for user, end in zip(examples.users, examples.ends, strict=True)
            ]
        )
        offered = self._title_lengths[examples.items].sum(axis=1)
        entries = np.minimum(examples.ends, self._config.history_items) + self._config.candidates
        return np.asarray(told + offered + TOKENS_PER_ENTRY * entries + TOKENS_PER_PROMPT)


def predicted(split: SequenceSplit, fitted: SequenceSplit | None = None) -> Sequences:
    """Of every user the lengths of histories in front of which an item may be predicted, ascending.

    Args:
        split: the data.
        fitted: the same with training sequences cut short: only what it lacks is predicted, if others bring it items of
            that kind. All but first items if not given.
    """
    train = Sequences.of(split.train)
    ends = np.arange(len(train.items)) - np.repeat(train.offsets[:-1], train.lengths)
    if fitted is None:
        wanted = ends >= 1
    else:
        shown = np.repeat(Sequences.of(fitted.train).lengths, train.lengths)
        wanted = (ends >= np.maximum(shown, 1)) & fitted.catalogue.trained[train.items]
    counts = np.bincount(train.owners[wanted], minlength=len(train))
    return Sequences(ends[wanted], counts)
