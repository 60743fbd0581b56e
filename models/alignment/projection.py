"""F_U and F_I: user and item embeddings into the LLM's token space (A-LLMRec section 4.2.4).

Axes: B prompts, T history items, C candidates, S soft tokens of all prompts, D CF size d, J joint size d' (2J: e_i and
q_i side by side), H the
LLM's token size d_tok.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from models.prompts.layout import PromptLayout, Slot


class Projection(nn.Module):
    """A two-layer MLP on standardised inputs: linear, LayerNorm, GELU, linear.

    Args:
        input_size: size of the frozen vectors.
        token_size: d_tok, the LLM's token embedding size.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, input_size: int, token_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(input_size))
        self.register_buffer("std", torch.ones(input_size))
        inner = nn.Linear(input_size, token_size)
        self.hidden = nn.Sequential(inner, nn.LayerNorm(token_size), nn.GELU())
        self.output = nn.Linear(token_size, token_size)
        for layer in (inner, self.output):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def standardise(self, vectors: torch.Tensor) -> None:
        """Take mean and spread from a sample (n, input_size) of the vectors to come."""
        self.mean.copy_(vectors.mean(dim=0))
        self.std.copy_(vectors.std(dim=0).clamp_min(1e-6))

    def features(self, vectors: torch.Tensor) -> torch.Tensor:
        """The hidden layer: (..., input_size) to (..., d_tok)."""
        return self.hidden((vectors - self.mean) / self.std)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., input_size) to (..., d_tok)."""
        return self.output(self.features(vectors))


class TokenProjector(nn.Module):
    """All that stage 2 trains: F_U, F_I, and one type vector per slot kind.

    Args:
        user_size: d, size of the CF user representation x_u.
        joint_size: 2d', size of the joint embeddings e_i and q_i side by side.
        token_size: d_tok.
        slot_types: (3, d_tok) type vectors by `Slot`; zeros if not given.
    """

    def __init__(
        self, user_size: int, joint_size: int, token_size: int, slot_types: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.user = Projection(user_size, token_size)
        self.item = Projection(joint_size, token_size)
        types = torch.zeros(len(Slot), token_size) if slot_types is None else slot_types.clone().float()
        self.slot_types = nn.Parameter(types)

    @property
    def token_size(self) -> int:
        """d_tok."""
        return self.slot_types.shape[1]

    def forward(
        self,
        layouts: Sequence[PromptLayout],
        users_B_D: torch.Tensor,
        histories: Sequence[torch.Tensor],
        candidates: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """The soft tokens of B layouts, concatenated in slot order.

        Args:
            layouts: B prompts with empty slots.
            users_B_D: (B, d) user representations.
            histories: per prompt the joint embeddings (T, 2d') of its T history items as given to the template.
            candidates: per prompt the joint embeddings (C, 2d') of the candidates.

        Returns:
            (S, d_tok), S the slots of all prompts.
        """
        kinds = torch.cat([torch.from_numpy(layout.slot_kinds) for layout in layouts]).to(users_B_D.device)
        rows, joints = [], []
        for row, (layout, history_T_2J, candidates_C_2J) in enumerate(zip(layouts, histories, candidates, strict=True)):
            ordinals = torch.from_numpy(layout.slot_ordinals)
            slots = torch.from_numpy(layout.slot_kinds)
            rows += [row] * int((slots == Slot.USER).sum())
            joints.append(history_T_2J[ordinals[slots == Slot.HISTORY]])
            joints.append(candidates_C_2J[ordinals[slots == Slot.CANDIDATE]])
        tokens_S_H = self.slot_types[kinds]
        is_user = kinds == Slot.USER
        if rows:
            tokens_S_H = tokens_S_H.index_put((is_user.nonzero()[:, 0],), self.user(users_B_D[rows]), accumulate=True)
        if bool((~is_user).any()):
            items = self.item(torch.cat(joints))
            tokens_S_H = tokens_S_H.index_put(((~is_user).nonzero()[:, 0],), items, accumulate=True)
        return tokens_S_H


class TitleProjector(TokenProjector):
    """F_U and F_I for lists of titles: what they make is added to the embeddings of the tokens whose places it takes.

    Args:
        user_size: as of `TokenProjector`.
        joint_size: likewise.
        token_size: likewise.

    Attributes:
        prior_share: what share of `log P(title)` is taken from a title's log-probability.
        scale: of what is left, in the choice among candidates that training is for; a blend has its own.
        plain_share: the share that a list without injected tokens is read by best.
    """

    plain_share: torch.Tensor

    def __init__(self, user_size: int, joint_size: int, token_size: int) -> None:
        super().__init__(user_size, joint_size, token_size)
        self.prior_share = nn.Parameter(torch.ones(()))
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("plain_share", torch.ones(()))

    @torch.no_grad()
    def start_plain(self, embeddings: Mapping[Slot, torch.Tensor], share: float, scale: float) -> None:
        """Inject just what stands in the slots anyway.

        Args:
            embeddings: (d_tok,) of the token in each kind of slot.
            share: that a list without injected tokens is read by best.
            scale: likewise.
        """
        for value in (self.prior_share, self.plain_share):
            value.fill_(share)
        self.scale.fill_(scale)
        for projection in (self.user, self.item):
            nn.init.zeros_(projection.output.weight)
            nn.init.zeros_(projection.output.bias)
        for kind, embedding in embeddings.items():
            self.slot_types[kind] = embedding.float()
