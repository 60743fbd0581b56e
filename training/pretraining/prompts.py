"""Training prompts: synthetic titles and worlds in exactly the prompts that the product builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from models.config import Config
from models.domain import DOMAINS
from models.llm.law import in_series
from models.llm.token_interface import TokenInterface
from models.prompts.layout import PromptLayout, Slot
from models.prompts.template import PromptConfig, PromptTemplate
from models.prompts.titles import TitleTokens, encode_plain
from models.scoring.choices import ChoiceTrie
from models.scoring.packing import PackedBatch, pack
from training.pretraining.titles import TitleGrammar
from training.pretraining.words import GENRES
from training.pretraining.worlds import World, draw_world

MAX_TITLE_TOKENS = 16
MAX_HISTORY = 20
GENRE_SHARPNESS = 0.6


class Mixture(Config):
    """What the prompts look like.

    Attributes:
        candidates: fewest and most candidates.
        twenty: share of prompts with exactly 20 candidates, if that lies in the range.
        title_tokens: most tokens of a title; a prompt's own limit is one of 1, 2, 4, 8, 16 up to this.
        history: most history items.
        collisions: share of random-token titles that begin as another one does.
        series: of the prompts with a history, the share in which some candidates begin as titles of it do. Titles of
            one or two tokens cannot: they would be equal.
        genres: share of genre prompts.
        explanations: share of explanation prompts.
        answers: of the prompts that are no explanations, the share whose answer, drawn from the truth, is written out.
        sharpness: median over prompts of the standard deviation of the candidates' logits, series left out; genre
            prompts have `GENRE_SHARPNESS` of it, and explanations, whose answer is in the titles, are not concerned.
    """

    candidates: tuple[int, int] = (5, 30)
    twenty: float = 0.5
    title_tokens: int = MAX_TITLE_TOKENS
    history: int = MAX_HISTORY
    collisions: float = 0.4
    series: float = 0.4
    genres: float = Field(0.15, ge=0, le=1)
    explanations: float = Field(0.1, ge=0, le=1)
    answers: float = Field(0.0, ge=0, le=1)
    sharpness: float = Field(2.5, gt=0)


@dataclass(frozen=True)
class Example:
    """One training prompt.

    Attributes:
        layout: the prompt. What is to be written is part of its token ids.
        trie: of the choices; of one alone if something is to be written.
        world: the geometry and the true answer.
        soft_tokens: (S, d_tok).
        text: what is to be written: nothing, an explanation or an answer.
        written: its tokens, at the end of the prompt.
    """

    layout: PromptLayout
    trie: ChoiceTrie
    world: World
    soft_tokens: torch.Tensor
    text: Literal["", "explanations", "answers"] = ""
    written: int = 0

    @property
    def length(self) -> int:
        """Packed tokens, nearly: the few branching paths are not counted."""
        return len(self.layout.token_ids)

    def node_targets(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Per branching node the true distribution (C,) of its children, and (M,) the probability to get there."""
        if self.text:
            return [], np.zeros(0)
        probs = np.exp(self.world.log_probs)
        masses = [np.zeros(len(branch.children)) for branch in self.trie.branches]
        for prob, steps in zip(probs, self.trie.steps, strict=True):
            for branch, child in steps:
                masses[branch][child] += prob
        reach = np.asarray([mass.sum() for mass in masses])
        return [mass / max(total, 1e-30) for mass, total in zip(masses, reach, strict=True)], reach


class PromptFactory:
    """Draws examples.

    Args:
        tokenizer: the embedded LLM's.
        interface: the convention for injected tokens.
        context_length: of the LLM.
        seed: of the stock of titles.
        titles: size of the stock of grammar titles.
    """

    def __init__(
        self, tokenizer: Any, interface: TokenInterface, context_length: int, seed: int = 0, titles: int = 20_000
    ) -> None:
        self._coupling = interface.coupling
        self._slot_types = interface.slot_types.double().numpy()
        self._user_basis = torch.cat([interface.user_basis, interface.series_axis[None]]).double().numpy()
        self._item_basis = (
            torch.cat([interface.item_basis, interface.similarity_basis, interface.popularity_axis[None]])
            .double()
            .numpy()
        )
        self._sizes = len(interface.item_basis), len(interface.similarity_basis)
        grammar = TitleGrammar(np.random.default_rng([seed, 1]))
        self._stock = TitleTokens(tokenizer, [grammar.title() for _ in range(titles)], MAX_TITLE_TOKENS)
        groups = [grammar.series(2 + number % 4) for number in range(titles // 10)]
        self._series = [TitleTokens(tokenizer, group, MAX_TITLE_TOKENS).of(range(len(group))) for group in groups]
        self._genres = TitleTokens(tokenizer, GENRES, MAX_TITLE_TOKENS)
        self._pieces = np.asarray(
            [
                token
                for token in range(len(tokenizer))
                if token not in tokenizer.all_special_ids and '"' not in tokenizer.decode([token])
            ]
        )
        self._templates = [
            PromptTemplate(
                tokenizer,
                PromptConfig(domain=domain, history_items=MAX_HISTORY, max_title_tokens=MAX_TITLE_TOKENS),
                context_length,
            )
            for domain in DOMAINS.values()
        ]
        self._open, self._close, self._and, self._stop = encode_plain(tokenizer, [' "', '"', " and", "."])
        self._end = [int(tokenizer.eos_token_id)]

    def draw(self, rng: np.random.Generator, mixture: Mixture) -> Example:
        """One example of `mixture`."""
        kind = rng.random()
        if kind < mixture.explanations:
            return self._explanation(rng, mixture)
        genre = kind < mixture.explanations + mixture.genres
        least, most = mixture.candidates
        candidates = int(rng.integers(least, most + 1))
        if least <= 20 <= most and rng.random() < mixture.twenty:
            candidates = 20
        history = 0 if rng.random() < 0.2 else int(rng.integers(0, min(mixture.history, 10) + 1))
        if rng.random() < 0.15:
            history = int(rng.integers(0, mixture.history + 1))
        template = self._templates[rng.integers(len(self._templates))]
        titles = self._titles(rng, mixture, history, candidates)
        told, offered = titles[:history], titles[history:]
        if genre:
            offered = self._genres.of(rng.choice(len(self._genres), candidates, replace=False))
            layout = template.favorite_genre(told, offered)
        else:
            layout = template.recommend(told, offered)
        sharpness = mixture.sharpness * (GENRE_SHARPNESS if genre else 1.0)
        world = draw_world(rng, *self._sizes, in_series(told, offered), history, self._coupling, sharpness)
        if mixture.answers and rng.random() < mixture.answers:
            answer = layout.choices[rng.choice(candidates, p=np.exp(world.log_probs))]
            return self._written([*answer, *self._close, *self._stop, *self._end], layout, world, "answers")
        trie = ChoiceTrie(layout.choices, template.end_token)
        return Example(layout, trie, world, self._soft_tokens(layout, world))

    def _explanation(self, rng: np.random.Generator, mixture: Mixture) -> Example:
        template = self._templates[rng.integers(len(self._templates))]
        told = self._titles(rng, mixture, 0, int(rng.integers(1, 4)))
        genre = self._genres[int(rng.integers(len(self._genres)))]
        layout = template.explanation(told, genre)
        sentence = self.sentence([list(choice) for choice in told])
        world = draw_world(rng, *self._sizes, np.zeros(2), len(told), self._coupling)
        return self._written(sentence, layout, world, "explanations")

    def _written(
        self, text: list[int], layout: PromptLayout, world: World, kind: Literal["explanations", "answers"]
    ) -> Example:
        """The prompt that `layout` begins and `text` ends, with nothing to choose."""
        ended = replace(layout, token_ids=np.concatenate([layout.token_ids, np.asarray(text, dtype=np.int64)]))
        no_choice = ChoiceTrie(layout.choices[:1], self._close[-1])
        return Example(ended, no_choice, world, self._soft_tokens(layout, world), kind, len(text))

    def sentence(self, titles: Sequence[list[int]]) -> list[int]:
        """` "A" and "B" and "C".` and the end of text, for titles in the order told.

        No commas: after a title, the LM has to know only whether there is another one.
        """
        tokens: list[int] = []
        for number, title in enumerate(titles):
            if number:
                tokens += self._and
            tokens += [*self._open, *title, *self._close]
        return [*tokens, *self._stop, *self._end]

    def _soft_tokens(self, layout: PromptLayout, world: World) -> torch.Tensor:
        kinds, ordinals = layout.slot_kinds, layout.slot_ordinals
        tokens = self._slot_types[kinds]
        tokens[kinds == Slot.USER] += world.user @ self._user_basis
        for kind, vectors in ((Slot.HISTORY, world.history), (Slot.CANDIDATE, world.candidates)):
            mask = kinds == kind
            tokens[mask] += vectors[ordinals[mask]] @ self._item_basis
        return torch.from_numpy(tokens).float()

    def _titles(self, rng: np.random.Generator, mixture: Mixture, history: int, candidates: int) -> list[list[int]]:
        """Titles of the history and the candidates, all different, in random order."""
        count = history + candidates
        limits = [limit for limit in (1, 2, 4, 8, 16) if limit <= mixture.title_tokens]
        limit = int(rng.choice(limits))
        if limit >= 4 and rng.random() < 0.6:
            drawn = self._grammar_titles(rng, count, limit)
        else:
            drawn = self._random_titles(rng, count, limit, mixture.collisions)
        drawn = [drawn[index] for index in rng.permutation(count)]
        if history and rng.random() < mixture.series:
            drawn[history:] = self._continued(rng, drawn[:history], drawn[history:], limit)
        distinct: dict[tuple[int, ...], None] = {}
        for title in map(tuple, drawn):
            fresh = title
            while fresh in distinct:
                fresh = tuple(rng.choice(self._pieces, len(title)).tolist())
            distinct[fresh] = None
        return [list(title) for title in distinct]

    def _continued(
        self, rng: np.random.Generator, told: list[list[int]], offered: list[list[int]], limit: int
    ) -> list[list[int]]:
        """`offered`, some of which begin as titles of `told` do."""
        chance = rng.uniform(0.0, 0.3)
        return [self._begun(rng, told, title, limit) if rng.random() < chance else title for title in offered]

    def _begun(self, rng: np.random.Generator, told: list[list[int]], title: list[int], limit: int) -> list[int]:
        beginning = told[rng.integers(len(told))]
        shared = 1 + int(rng.random() < 0.8) + int(rng.random() < 0.3)
        return (beginning[:shared] + title)[:limit]

    def _grammar_titles(self, rng: np.random.Generator, count: int, limit: int) -> list[list[int]]:
        titles = self._stock.of(rng.integers(len(self._stock), size=count))
        start = 0
        while start < count and rng.random() < 0.5:
            series = self._series[rng.integers(len(self._series))][: count - start]
            titles[start : start + len(series)] = series
            start += len(series)
        return [title[:limit] for title in titles]

    def _random_titles(self, rng: np.random.Generator, count: int, limit: int, collisions: float) -> list[list[int]]:
        lengths = rng.integers(1, limit + 1, size=count)
        tokens = rng.choice(self._pieces, size=(count, limit))
        titles = [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]
        if limit > 1:
            for index in np.flatnonzero(rng.random(count) < collisions / 2):
                other = titles[rng.integers(count)]
                shared = 1 if rng.random() < 0.6 else int(rng.integers(1, len(other) + 1))
                titles[index] = (other[:shared] + titles[index])[:limit]
        return titles


@dataclass(frozen=True)
class TrainingBatch:
    """Packed examples with what they should answer.

    Attributes:
        packed: the prompts and their branching paths.
        soft_tokens_T_D: in the order of the packed batch's slots.
        targets_M_C: the true distribution at each branching node, 0 beyond a node's own children.
        reach_M: the probability that the constrained decoder gets to the node.
        text_rows, text_columns, text_targets: (W,) positions of free text and the tokens that follow.
        tokens: tokens in the batch without padding.
    """

    packed: PackedBatch
    soft_tokens_T_D: torch.Tensor
    targets_M_C: torch.Tensor
    reach_M: torch.Tensor
    text_rows: torch.Tensor
    text_columns: torch.Tensor
    text_targets: torch.Tensor
    tokens: int


def collate(examples: Sequence[Example]) -> TrainingBatch:
    """Pack examples into one batch."""
    packed = pack(
        [example.layout.token_ids for example in examples],
        [example.layout.soft_positions for example in examples],
        [example.trie for example in examples],
    )
    targets_M_C = torch.zeros(packed.children_M_C.shape)
    reach: list[np.ndarray] = []
    text: list[tuple[int, int, int]] = []
    node = 0
    for row, example in enumerate(examples):
        targets, reached = example.node_targets()
        reach.append(reached)
        for target in targets:
            targets_M_C[node, : len(target)] = torch.from_numpy(target)
            node += 1
        ids = example.layout.token_ids
        text += [(row, at - 1, int(ids[at])) for at in range(len(ids) - example.written, len(ids))]
    text_W_3 = torch.tensor(text, dtype=torch.int64).reshape(-1, 3)
    return TrainingBatch(
        packed=packed,
        soft_tokens_T_D=torch.cat([example.soft_tokens for example in examples]),
        targets_M_C=targets_M_C,
        reach_M=torch.from_numpy(np.concatenate(reach)).float(),
        text_rows=text_W_3[:, 0],
        text_columns=text_W_3[:, 1],
        text_targets=text_W_3[:, 2],
        tokens=sum(example.length for example in examples),
    )
