"""The model before training: the constructed circuit in a stock OPT, with all of its attention able to learn."""

from __future__ import annotations

from typing import Any

import torch

from models.llm.token_interface import TokenInterface
from models.prompts.titles import encode_plain
from training.pretraining.architecture import Architecture, build_model
from training.pretraining.circuit.circuit import Circuit, SpecialTokens
from training.pretraining.circuit.gains import Gains

_WORDING = (
    " is a user representation. in the previous. Recommend one next. The recommendation is for this user to",
    " from the following title set, genre set, Name the favorite genre of this user. The favorite genre is,",
    " This user has next because",
)
"""The wording that all domains share. Written out rather than asked of `PromptTemplate`: the words in which domains
differ (watched, game, ...) are left out, because explanations have to repeat them and so need an identity."""


def initial_model(
    architecture: Architecture, gains: Gains | None, tokenizer: Any, interface: TokenInterface, seed: int
) -> Any:
    """The model before training; with transformers' own initialisation where there are no gains."""
    torch.manual_seed(seed)
    model = build_model(architecture, tokenizer)
    if gains is not None:
        circuit = Circuit(architecture, interface, special_tokens(tokenizer), gains, seed)
        circuit.write(model)
        initialise_idle_attention(model, seed)
    return model


def special_tokens(tokenizer: Any) -> SpecialTokens:
    """The tokens that the circuit has to know."""
    (open_quote,), (close_quote,) = encode_plain(tokenizer, [' "', '"'])
    wording = frozenset(token for ids in encode_plain(tokenizer, _WORDING) for token in ids)
    return SpecialTokens(open_quote, close_quote, int(tokenizer.bos_token_id), wording)


@torch.no_grad()
def initialise_idle_attention(model: Any, seed: int, std: float = 0.02) -> None:
    """Let attention dimensions that do nothing learn, without a change to what the model computes.

    Where queries and keys are zero, or values and outputs, neither gets a gradient: each one's is a multiple of the
    other. One side of each becomes random; the other is still zero, so nothing is said yet.

    Args:
        model: an OPT.
        seed: of the random rows.
        std: of their entries; OPT's own by default.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in model.model.decoder.layers:
        attention = layer.self_attn
        keys, outputs = attention.k_proj.weight, attention.out_proj.weight.T
        for first, second in ((attention.q_proj.weight, keys), (attention.v_proj.weight, outputs)):
            idle = ~first.any(dim=1) & ~second.any(dim=1)
            first[idle] = std * torch.randn(int(idle.sum()), first.shape[1], generator=generator)
