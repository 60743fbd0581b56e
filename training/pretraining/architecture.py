"""The embedded OPT's size and the layout of its residual stream."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from transformers import OPTConfig, OPTForCausalLM

from models.config import Config
from models.llm.token_interface import TokenInterface
from models.prompts.layout import Slot

COUPLING = 0.25
"""The law's constant. It fixes how long coordinates are: logits that spread by 2.5 nats over 64 coordinates come from u
and z of norm 5 to 6, which the next constants make small beside a slot's type."""
TYPE_NORM = 6.0
"""Long, so that layer norm scales all slots alike, whatever their items' length: sqrt(6^2 + 1.2^2) is hardly more."""
COORDINATE_NORM = 0.185
"""Length of a coordinate's axis in a token. Items of training then have norms about 1.2, users 1.0."""
WEIGHT_NORM = 0.05
"""Shorter: popularity and the weight of series count by themselves, not as the product of two lengths, so p and w are
several times as large as a coordinate of z or u."""


class Architecture(Config):
    """The embedded LLM. Its residual stream is laid out as position | user | item | token dimensions.

    The user part is u, the mean y of the history, which the LM finds itself, and the weight of series; the item part is
    z, y and popularity. The constructed initialisation keeps other things there at other positions, see `Circuit`.

    Attributes:
        vocab_size: tokens.
        hidden_size: d_tok: 32 for positions, 89 each for users and items, which leaves 174 for tokens. Ranking writes a
            sum of token codes, and codes in few dimensions overlap.
        layers: the constructed initialisation uses the first 6.
        head_size: of one attention head; must hold the coordinates of an item and 7 more, see `circuit.logits`.
        feed_forward_size: of a layer's hidden units. Narrow: nothing is constructed there, and the files have to fit
            12 MB.
        context_length: tokens; 20 history items and 30 candidates of 16 tokens fit 1152.
        position_size: dimensions of the position code; the constructed initialisation names its 12th frequency.
        coordinate_size: k, coordinates of a user, which items are matched with.
        similarity_size: m, coordinates of an item that candidates are matched with the history by; the constructed
            initialisation needs 14, for the places of titles.
    """

    vocab_size: int = 4096
    hidden_size: int = 384
    layers: int = Field(6, ge=6)
    head_size: int = 96
    feed_forward_size: int = 32
    context_length: int = 1152
    position_size: int = Field(32, ge=24)
    coordinate_size: int = 64
    similarity_size: int = Field(24, ge=14)

    @property
    def item_size(self) -> int:
        """All coordinates of an item: k + m + 1."""
        return self.coordinate_size + self.similarity_size + 1

    @property
    def position_dims(self) -> slice:
        """Where positions are coded."""
        return slice(0, self.position_size)

    @property
    def user_dims(self) -> slice:
        """Where user coordinates lie."""
        return slice(self.position_size, self.position_size + self.item_size)

    @property
    def item_dims(self) -> slice:
        """Where item coordinates lie."""
        return slice(self.user_dims.stop, self.user_dims.stop + self.item_size)

    @property
    def token_dims(self) -> slice:
        """Where token identities and slot types lie."""
        return slice(self.item_dims.stop, self.hidden_size)


def build_model(architecture: Architecture, tokenizer: Any) -> Any:
    """A stock OPT with transformers' own initialisation."""
    config = OPTConfig(
        vocab_size=architecture.vocab_size,
        hidden_size=architecture.hidden_size,
        word_embed_proj_dim=architecture.hidden_size,
        ffn_dim=architecture.feed_forward_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.hidden_size // architecture.head_size,
        max_position_embeddings=architecture.context_length,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    return OPTForCausalLM(config)


def build_interface(architecture: Architecture, seed: int) -> TokenInterface:
    """The convention for injected tokens: random orthogonal type vectors and coordinate axes."""
    generator = torch.Generator().manual_seed(seed)
    eye = torch.eye(architecture.hidden_size)
    k = architecture.coordinate_size

    def basis(dims: torch.Tensor) -> torch.Tensor:
        return orthogonal(len(dims), generator) @ dims

    users, items = eye[architecture.user_dims], eye[architecture.item_dims]
    return TokenInterface(
        slot_types=TYPE_NORM * basis(eye[architecture.token_dims])[: len(Slot)],
        user_basis=COORDINATE_NORM * basis(users[:k]),
        item_basis=COORDINATE_NORM * basis(items[:k]),
        similarity_basis=COORDINATE_NORM * basis(items[k:-1]),
        popularity_axis=WEIGHT_NORM * items[-1],
        series_axis=WEIGHT_NORM * users[-1],
        coupling=COUPLING,
    )


def orthogonal(size: int, generator: torch.Generator) -> torch.Tensor:
    """A random orthogonal matrix (size, size)."""
    return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
