"""What LLM2Rec is trained on: titles and histories of several catalogues, as tokens of one LLM.

Axes: L tokens of a sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from models.alignment.text_encoder import catalogue_texts
from models.catalogue import Catalogue
from models.errors import DataError
from models.prompts.titles import encode_plain
from training.data.sequences import Sequences
from training.data.splits import SequenceSplit
from training.llm2rec.config import ItemTexts, LLM2RecConfig, Stage
from training.llm2rec.start_token import start_token

SEPARATOR, END = ",", "\n"
"""Of titles, and after the last; a title that is not the first begins with a space."""


@dataclass(frozen=True)
class Domain:
    """A catalogue with its users.

    Attributes:
        name: of the dataset's folder.
        split: its data; training sequences alone are learned from.
    """

    name: str
    split: SequenceSplit

    @cached_property
    def titles_fingerprint(self) -> str:
        """SHA-256 of all titles, in any order: folders are called anything, and users come and go."""
        titles = sorted(set(self.split.catalogue.titles))
        return hashlib.sha256(json.dumps(titles).encode()).hexdigest()


class Sentence(NamedTuple):
    """Titles in a row.

    Attributes:
        ids: (L,) int64 tokens.
        targets: (L,) bool: the tokens that are to be predicted.
    """

    ids: np.ndarray
    targets: np.ndarray


class Titles:
    """The titles of a catalogue, as they stand in sentences.

    Args:
        tokenizer: of the LLM.
        catalogue: the items.
        max_tokens: longer titles are cut.
    """

    def __init__(self, tokenizer: Any, catalogue: Catalogue, max_tokens: int) -> None:
        titles = [" ".join(title.split()) for title in catalogue.titles]
        self._start = [start_token(tokenizer)[1]]
        self._separator, self._end = encode_plain(tokenizer, [SEPARATOR, END])
        self._first = [ids[:max_tokens] for ids in encode_plain(tokenizer, titles)]
        self._later = [ids[:max_tokens] for ids in encode_plain(tokenizer, [f" {title}" for title in titles])]
        self.lengths = np.asarray([len(ids) for ids in self._later], dtype=np.int64) + len(self._separator)

    @property
    def tokens(self) -> set[int]:
        """All that a sentence may hold."""
        pieces = (self._start, self._separator, self._end, *self._first, *self._later)
        return {token for piece in pieces for token in piece}

    def sentence(self, items: np.ndarray, targets: int) -> Sentence:
        """Titles of items, oldest first, as `T1, T2, T3` and a new line.

        Args:
            items: item numbers.
            targets: so many of the last are to be predicted, the new line too.
        """
        pieces = [(self._start, False)]
        for place, item in enumerate(items.tolist()):
            if place:
                pieces.append((self._separator, False))
            wanted = place >= len(items) - targets
            pieces.append(((self._later if place else self._first)[item], wanted))
        pieces.append((self._end, targets > 0))
        ids = np.concatenate([np.asarray(piece, dtype=np.int64) for piece, _ in pieces])
        return Sentence(ids, np.repeat([wanted for _, wanted in pieces], [len(piece) for piece, _ in pieces]))


class Sentences:
    """The sentences of a domain, made when they are asked for.

    Args:
        titles: of its items.
        sequences: U arrays of item numbers, oldest first; those of one item give no sentence.
        history_items: titles before a target, at most.
        packed: see `CSFTConfig.packed`.

    Attributes:
        lengths: tokens of each sentence, to batch by: exact but for first titles and the end.
    """

    def __init__(self, titles: Titles, sequences: Sequence[np.ndarray], history_items: int, packed: bool) -> None:
        flat = Sequences.of(sequences)
        self._titles, self._items, self._packed = titles, flat.items, packed
        stride = history_items if packed else 1
        spans = [
            (int(begin) + max(0, stop - 1 - history_items), int(begin) + stop)
            for begin, length in zip(flat.offsets, flat.lengths, strict=False)
            for stop in range(int(length), 1, -stride)
        ]
        self._spans = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
        total = np.concatenate([[0], np.cumsum(titles.lengths[flat.items])])
        self.lengths = total[self._spans[:, 1]] - total[self._spans[:, 0]]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._spans)

    def __getitem__(self, row: int) -> Sentence:
        """A sentence."""
        start, stop = self._spans[row]
        items = self._items[start:stop]
        return self._titles.sentence(items, len(items) - 1 if self._packed else 1)


class Corpus:
    """All domains together.

    Args:
        domains: where titles and histories are from.
        tokenizer: of the LLM, which puts the start token before texts.
        config: says what is cut where, and what IEM reads.
    """

    def __init__(self, domains: Sequence[Domain], tokenizer: Any, config: LLM2RecConfig) -> None:
        self.domains, self.tokenizer, self._config = domains, tokenizer, config
        self.titles = [Titles(tokenizer, domain.split.catalogue, config.max_title_tokens) for domain in domains]

    @property
    def names(self) -> list[str]:
        """Of the domains."""
        return [domain.name for domain in self.domains]

    @cached_property
    def texts(self) -> list[list[int]]:
        """Tokens of what IEM reads, each distinct text once, with the start token."""
        found: dict[tuple[int, ...], None] = {}
        for domain in self.domains:
            written = item_texts(domain.split.catalogue, self._config.texts)[1:]
            cut = self.tokenizer(written, truncation=True, max_length=self._config.max_text_tokens)["input_ids"]
            found.update(dict.fromkeys(tuple(ids) for ids in cut))
        return [list(ids) for ids in found]

    @property
    def alike(self) -> int:
        """How many texts that differ are the same once they are cut."""
        written = set().union(*(item_texts(each.split.catalogue, self._config.texts)[1:] for each in self.domains))
        return len(written) - len(self.texts)

    @cached_property
    def vocabulary(self) -> np.ndarray:
        """Every token that is ever predicted, ascending."""
        of_titles = (titles.tokens for titles in self.titles)
        return np.asarray(sorted(set().union(*of_titles, *map(set, self.texts))), dtype=np.int64)

    def check(self, stages: Sequence[Stage]) -> None:
        """Refuse what a stage has nothing to learn from, before any stage takes its time.

        Raises:
            DataError: no training sequence has two items, or all texts are the same.
        """
        if Stage.CSFT in stages and not any(map(len, self.sentences())):
            raise DataError("llm2rec: no training sequence has two items, so there is no next title to learn")
        if Stage.CONTRASTIVE in stages and len(self.texts) < 2:
            raise DataError("llm2rec: all items have the same text, so there is nothing to tell apart; see the titles")

    def sentences(self) -> list[Sentences]:
        """Those of training, by domain."""
        csft = self._config.csft
        return [
            Sentences(titles, domain.split.train, csft.history_items, csft.packed)
            for titles, domain in zip(self.titles, self.domains, strict=True)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that is learned from."""
        digest = hashlib.sha256(self.vocabulary.tobytes())
        digest.update(json.dumps([self.names, self.texts]).encode())
        for domain in self.domains:
            flat = Sequences.of(domain.split.train)
            digest.update(json.dumps(domain.split.catalogue.titles).encode())
            digest.update(flat.items.astype(np.int64).tobytes() + flat.lengths.tobytes())
        return digest.hexdigest()


def item_texts(catalogue: Catalogue, texts: ItemTexts) -> list[str]:
    """The N+1 texts of a catalogue; that of the padding row is empty."""
    return catalogue_texts(catalogue) if texts is ItemTexts.ITEM else ["", *catalogue.titles[1:]]
