"""The warm start of stage 2: put a catalogue's users and items where the LLM already reads them.

An LLM with a `TokenInterface` expects users at coordinates u and items at coordinates z such that the logit of a
candidate is `coupling * <u, z>`. The CF backbone's logit is `<x_u, E_i>`, so two linear maps bring one into the
other exactly, as long as the interface has as many coordinates as CF space. F_U and F_I are then regressed onto the
tokens at these coordinates, which takes seconds; stage 2 proper only has to refine them. An LLM without an interface
gets projections whose tokens have the length of its own token embeddings.

Axes: U users, N items, D CF size, k coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import nn

from models.config import Config
from models.llm.interface import TokenInterface
from models.projection import Projection, TokenProjector

TEMPERATURES = np.geomspace(0.05, 20.0, 600)


class WarmStartConfig(Config):
    """The regression of F_U and F_I onto the interface's tokens.

    Attributes:
        steps: optimizer steps.
        batch_size: vectors of each kind per step.
        learning_rate: at the start; it falls to zero along a cosine.
        ridge: of the closed-form first fit of the last layers.
    """

    steps: int = Field(800, ge=0)
    batch_size: int = Field(512, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    ridge: float = Field(1e-3, gt=0)


@dataclass(frozen=True)
class Coordinates:
    """Linear maps from CF space into an interface's coordinates.

    `coupling * <users(x), items(E)>` equals `<x, E> / temperature` up to a constant for each user.

    Attributes:
        centre: (D,) mean item.
        user_map: (D, k).
        item_map: (D, k).
    """

    centre: torch.Tensor
    user_map: torch.Tensor
    item_map: torch.Tensor

    def users(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., D) user representations to (..., k)."""
        return vectors @ self.user_map

    def items(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., D) items in CF space to (..., k)."""
        return (vectors - self.centre) @ self.item_map


def fit_coordinates(
    users_U_D: torch.Tensor,
    items_N_D: torch.Tensor,
    interface: TokenInterface,
    temperature: float,
    seed: int = 0,
) -> Coordinates:
    """The balanced coordinates: users and items spread alike, and what is cut off matters least to the logits.

    This is a balanced truncation: of all linear maps that keep `<x, E>`, the one after which users and items have
    the same diagonal second moments; then only the k largest directions are kept, and turned by a random rotation so
    that no coordinate is special. Items are centred, users are not: the mean user carries the items' popularity.

    Args:
        users_U_D: a sample of x_u.
        items_N_D: a sample of items in CF space, such as all warm ones.
        interface: has k coordinates.
        temperature: divides the CF logits.
        seed: of the rotation.
    """
    size = items_N_D.shape[1]
    centre = items_N_D.mean(dim=0)
    user_moment = _moment(users_U_D.double())
    item_moment = _moment((items_N_D - centre).double())
    values, vectors = torch.linalg.eigh(item_moment)
    values = values.clamp_min(values.max() * 1e-10)
    root = vectors * values.sqrt()
    inverse_root = vectors / values.sqrt()
    strengths, directions = torch.linalg.eigh(root.T @ user_moment @ root)
    kept = strengths.argsort(descending=True)[: min(size, len(interface.item_basis))]
    # `strengths` are squared; the fourth root balances users and items.
    scales = strengths[kept].clamp_min(strengths.max() * 1e-10) ** 0.25
    item_map = inverse_root @ directions[:, kept] * scales
    user_map = root @ directions[:, kept] / scales
    turn = _rotation(len(interface.item_basis), seed)[: len(kept)].to(user_map.device)
    scale = (interface.coupling * temperature) ** -0.5
    return Coordinates(
        centre, (scale * user_map @ turn).to(users_U_D.dtype), (scale * item_map @ turn).to(users_U_D.dtype)
    )


def fit_temperature(scores_E_C: np.ndarray) -> float:
    """The temperature at which softmax over the candidates best predicts the positives, in column 0.

    Args:
        scores_E_C: logits, -inf at padding.
    """

    def loss(temperature: float) -> float:
        logits = scores_E_C / temperature
        shifted = logits - logits.max(axis=1, keepdims=True)
        return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[:, 0]).mean())

    return float(min(TEMPERATURES, key=loss))


def warm_start(
    projector: TokenProjector,
    interface: TokenInterface,
    coordinates: Coordinates,
    users_U_D: torch.Tensor,
    items: Sequence[tuple[torch.Tensor, torch.Tensor]],
    config: WarmStartConfig,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> dict[str, float]:
    """Fit F_U and F_I to the interface's tokens, and take over its slot types.

    Args:
        projector: trained in place.
        interface: the LLM's convention.
        coordinates: of this catalogue in the interface.
        users_U_D: a sample of x_u.
        items: tables of joint embeddings (N, d') with the CF vectors (N, D) that they stand for: e_i with E_i, and
            q_i with the vector decoded from it.
        config: how long and how fast.
        seed: of the batches.
        report: called with the share done.

    Returns:
        `user_error` and `item_error`: mean squared error as a share of the variance of the tokens.
    """
    joint_N_J = torch.cat([joint for joint, _ in items])
    cf_N_D = torch.cat([vectors for _, vectors in items])
    user_tokens_U_D = interface.user_tokens(coordinates.users(users_U_D))
    item_tokens_N_D = interface.item_tokens(coordinates.items(cf_N_D))
    with torch.no_grad():
        projector.slot_types.copy_(interface.slot_types)
        projector.user.standardise(users_U_D)
        projector.item.standardise(joint_N_J)
        _fit_last_layer(projector.user, users_U_D, user_tokens_U_D, config.ridge)
        _fit_last_layer(projector.item, joint_N_J, item_tokens_N_D, config.ridge)
    parameters = [*projector.user.parameters(), *projector.item.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, config.steps))
    generator = torch.Generator().manual_seed(seed)

    def sample(size: int) -> torch.Tensor:
        return torch.randint(size, (config.batch_size,), generator=generator).to(users_U_D.device)

    for step in range(config.steps):
        rows_B, items_B = sample(len(users_U_D)), sample(len(joint_N_J))
        loss = nn.functional.mse_loss(projector.user(users_U_D[rows_B]), user_tokens_U_D[rows_B])
        loss = loss + nn.functional.mse_loss(projector.item(joint_N_J[items_B]), item_tokens_N_D[items_B])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if report is not None:
            report((step + 1) / config.steps)
    with torch.no_grad():
        return {
            "user_error": _error(projector.user(users_U_D), user_tokens_U_D),
            "item_error": _error(projector.item(joint_N_J), item_tokens_N_D),
        }


@torch.no_grad()
def plain_start(
    projector: TokenProjector,
    token_embeddings: torch.Tensor,
    users_U_D: torch.Tensor,
    joint_N_J: torch.Tensor,
) -> None:
    """Without an interface: standardise the inputs, and give the tokens the length of the LLM's own embeddings."""
    length = token_embeddings.float().norm(dim=1).median()
    for projection, vectors in ((projector.user, users_U_D), (projector.item, joint_N_J)):
        projection.standardise(vectors)
        projection.output.weight.mul_(length / projection(vectors).norm(dim=1).median())


def interface_logits(
    projector: TokenProjector,
    interface: TokenInterface,
    users_E_D: torch.Tensor,
    joint_E_C_J: torch.Tensor,
) -> torch.Tensor:
    """(E, C) logits that an LLM reading the projected tokens perfectly would give: how faithful the projections are."""
    users_E_k = projector.user(users_E_D) @ torch.linalg.pinv(interface.user_basis)
    items_E_C_k = projector.item(joint_E_C_J) @ torch.linalg.pinv(interface.item_basis)
    return interface.coupling * torch.einsum("ek,eck->ec", users_E_k, items_E_C_k)


def _moment(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.T @ vectors / len(vectors)


def _rotation(size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]


def _fit_last_layer(projection: Projection, inputs: torch.Tensor, targets: torch.Tensor, ridge: float) -> None:
    """Ridge regression of the last linear layer on what the layers before it give."""
    features = projection.features(inputs)
    features = torch.cat([features, features.new_ones(len(features), 1)], dim=1).double()
    gram = features.T @ features / len(features)
    gram.diagonal().add_(ridge)
    weights = torch.linalg.solve(gram, features.T @ targets.double() / len(features))
    projection.output.weight.copy_(weights[:-1].T)
    projection.output.bias.copy_(weights[-1])


def _error(predicted: torch.Tensor, wanted: torch.Tensor) -> float:
    spread = (wanted - wanted.mean(dim=0)).square().sum()
    return float((predicted - wanted).square().sum() / spread)
