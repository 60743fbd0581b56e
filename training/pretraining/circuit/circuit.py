"""Puts the heads together and writes them into an OPT."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from models.llm.token_interface import TokenInterface
from models.scoring.opt_training import POSITION_OFFSET
from training.pretraining.architecture import Architecture
from training.pretraining.circuit.beginnings import locate_head, path_head, series_head
from training.pretraining.circuit.context import context_heads
from training.pretraining.circuit.copying import follow_head, repeat_head
from training.pretraining.circuit.gains import Gains
from training.pretraining.circuit.head import Head
from training.pretraining.circuit.logits import correction_heads, note_head, ranking_heads
from training.pretraining.circuit.residual import Residual
from training.pretraining.circuit.titles import first_token_heads, second_token_head

_INITIAL_STD = 0.02
"""Of OPT's own initialisation."""
_NOISE = 0.01
"""Of every embedding, outside of the directions of identity: so that nothing is exactly zero and learns alike."""


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that the circuit has to know.

    Attributes:
        open_quote: begins a title.
        close_quote: ends one.
        start: begins a text.
        wording: tokens of the wording that all prompts share, which carry little identity.
    """

    open_quote: int
    close_quote: int
    start: int
    wording: frozenset[int]


class Circuit:
    """Builds the initial weights.

    Args:
        architecture: sizes and layout.
        interface: the convention for injected tokens.
        tokens: those that prompts are made of.
        gains: strengths.
        seed: of the random codes.
    """

    def __init__(
        self, architecture: Architecture, interface: TokenInterface, tokens: SpecialTokens, gains: Gains, seed: int
    ) -> None:
        self._tokens, self._gains = tokens, gains
        self._head_size = architecture.head_size
        self._generator = torch.Generator().manual_seed(seed)
        self._residual = Residual(architecture, interface, gains.position, self._generator)

    def layers(self) -> Iterator[Sequence[Head]]:
        """The heads of each layer, from the first."""
        residual, gains = self._residual, self._gains
        yield context_heads(residual, gains.context)
        yield [
            *first_token_heads(residual, gains.titles),
            second_token_head(residual, gains.titles),
            note_head(residual, gains.note, gains.ranking.popularity),
        ]
        yield [
            series_head(residual, gains.series),
            path_head(residual, gains.path, 1.0),
            path_head(residual, gains.path, -1.0),
            locate_head(residual, gains.locate),
        ]
        yield ranking_heads(residual, gains.ranking)
        yield correction_heads(residual, gains.correction, gains.ranking, (1.0, -1.0))
        yield [
            *correction_heads(residual, gains.second_correction, gains.ranking, (1.0,)),
            repeat_head(residual, gains.repeat),
            follow_head(residual, gains.follow),
        ]

    @torch.no_grad()
    def write(self, model: Any) -> None:
        """Overwrite the weights of a stock OPT."""
        decoder = model.model.decoder
        self._write_embeddings(decoder.embed_tokens.weight)
        self._write_positions(decoder.embed_positions.weight)
        decoder.final_layer_norm.weight.fill_(self._gains.output)
        for layer, heads in zip(decoder.layers, self.layers(), strict=False):
            self._write_attention(layer.self_attn, heads)
            for linear, std in ((layer.fc1, _INITIAL_STD), (layer.fc2, _INITIAL_STD * self._gains.feed_forward)):
                linear.weight.normal_(0.0, std, generator=self._generator)
                linear.bias.zero_()

    def _write_attention(self, attention: Any, heads: Sequence[Head]) -> None:
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            projection.weight.zero_()
            projection.bias.zero_()
        unscaled = math.sqrt(self._head_size)  # attention divides scores by it
        for number, head in enumerate(heads):
            rows = slice(number * self._head_size, (number + 1) * self._head_size)
            attention.q_proj.weight[rows] = head.query * unscaled
            attention.q_proj.bias[rows] = head.query_bias * unscaled
            attention.k_proj.weight[rows] = head.key
            attention.v_proj.weight[rows] = head.value
            attention.out_proj.weight[:, rows] = head.output.T

    def _write_embeddings(self, table: torch.Tensor) -> None:
        """A random unit code a token; those of the wording share most of theirs, quotes and start are one axis each."""
        residual = self._residual
        table.normal_(0.0, 1.0, generator=self._generator)
        codes = table[:, : len(residual.identity)]
        codes = codes / codes.norm(dim=1, keepdim=True)
        rest = _NOISE * (table - table @ residual.identity.T @ residual.identity)
        table.copy_(codes @ residual.identity + rest)
        wording = sorted(self._tokens.wording)
        table[wording] *= self._gains.wording
        table[wording] += math.sqrt(1 - self._gains.wording**2) * residual.wording  # unit length again
        table[self._tokens.open_quote] = residual.open_quote
        table[self._tokens.close_quote] = residual.close_quote
        table[self._tokens.start] = residual.start

    def _write_positions(self, table: torch.Tensor) -> None:
        positions = self._residual.positions
        table.zero_()
        table[:, : 2 * positions.count] = positions.table(len(table) - POSITION_OFFSET)
