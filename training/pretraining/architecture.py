"""The embedded OPT's size and the layout of its residual stream."""

from __future__ import annotations

from typing import Any

import torch
from transformers import OPTConfig, OPTForCausalLM

from models.config import Config
from models.llm.interface import TokenInterface
from models.prompt import Slot

COUPLING = 0.25
TYPE_NORM = 3.0
COORDINATE_NORM = 0.185


class Architecture(Config):
    """The embedded LLM. Its residual stream is laid out as position | user | item | token dimensions.

    Attributes:
        vocab_size: tokens.
        hidden_size: d_tok.
        layers: 4 are used by the constructed initialisation.
        head_size: of one attention head; must hold a coordinate vector and 8 more.
        context_length: tokens; 20 history items and 30 candidates of 16 tokens fit 1152.
        position_size: dimensions of the position code.
        coordinate_size: k, dimensions of the user subspace and of the item subspace.
    """

    vocab_size: int = 4096
    hidden_size: int = 256
    layers: int = 4
    head_size: int = 64
    context_length: int = 1152
    position_size: int = 32
    coordinate_size: int = 56

    @property
    def position_dims(self) -> slice:
        """Where positions are coded."""
        return slice(0, self.position_size)

    @property
    def user_dims(self) -> slice:
        """Where user coordinates lie."""
        return slice(self.position_size, self.position_size + self.coordinate_size)

    @property
    def item_dims(self) -> slice:
        """Where item coordinates lie."""
        return slice(self.user_dims.stop, self.user_dims.stop + self.coordinate_size)

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
        ffn_dim=4 * architecture.hidden_size,
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
    size, k = architecture.hidden_size, architecture.coordinate_size
    token_size = size - architecture.item_dims.stop
    slot_types = torch.zeros(len(Slot), size)
    slot_types[:, architecture.token_dims] = TYPE_NORM * orthogonal(token_size, generator)[: len(Slot)]
    user_basis, item_basis = torch.zeros(k, size), torch.zeros(k, size)
    user_basis[:, architecture.user_dims] = COORDINATE_NORM * orthogonal(k, generator)
    item_basis[:, architecture.item_dims] = COORDINATE_NORM * orthogonal(k, generator)
    return TokenInterface(slot_types, user_basis, item_basis, COUPLING)


def orthogonal(size: int, generator: torch.Generator) -> torch.Tensor:
    """A random orthogonal matrix (size, size)."""
    return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
