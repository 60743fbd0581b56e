"""The warm start of stage 2: put a catalogue's users and items where the LLM already reads them.

An LLM with a `TokenInterface` expects users at coordinates u and w and items at z, y and p such that the logit of a
candidate is `coupling * (<u, z> + <mean y of the history, y> + p + w * s)`. The CF backbone's logit is `<x_u, E_i>`, so
linear maps bring one into the other exactly, as long as the interface has as many coordinates as CF space: what the
mean user likes becomes p, and what others like more or less becomes u and z. The texts' main directions become y, at
the length that predicts the validation items best, together with w, which is the same for all users. F_U and F_I are
then regressed onto the tokens at these coordinates, which takes seconds; stage 2 proper only has to refine them. An LLM
without an interface gets projections whose tokens have the length of its own token embeddings.

Axes: U users, N items, D CF size, Q text size, H token size, k and m coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import nn

from models.alignment.projection import Projection, TokenProjector
from models.config import Config
from models.llm.law import history_means
from models.llm.token_interface import TokenInterface

TEMPERATURES = np.geomspace(0.05, 20.0, 600)
SIMILARITY_WEIGHTS = np.concatenate([[0.0], np.geomspace(0.1, 30.0, 51)])
SERIES_WEIGHTS = np.linspace(-2.0, 4.0, 61)
"""In logits; what the embedded LLM's worlds teach."""
SERIES_WEIGHT_SPREAD = 2.0
"""Standard deviation of the prior around none, which decides where series are too rare to tell."""


class WarmStartConfig(Config):
    """The regression of F_U and F_I onto the interface's tokens.

    Attributes:
        similarity: let the tokens say what is like what, beside what users like.
        series: let the user tokens say how much it counts that a title begins as one of the history does.
        steps: optimizer steps.
        batch_size: vectors of each kind per step.
        learning_rate: at the start; it falls to zero along a cosine.
        ridge: of the closed-form first fit of the last layers.
    """

    similarity: bool = True
    series: bool = True
    steps: int = Field(800, ge=0)
    batch_size: int = Field(512, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    ridge: float = Field(1e-3, gt=0)


@dataclass(frozen=True)
class Coordinates:
    """Linear maps from CF space into an interface's coordinates.

    `coupling * (<users(x), items(E)> + popularity(E))` equals `<x, E> / temperature` up to a constant for each user.

    Attributes:
        mean_user: (D,).
        mean_item: (D,).
        user_map: (D, k).
        item_map: (D, k).
        popularity_map: (D,).
    """

    mean_user: torch.Tensor
    mean_item: torch.Tensor
    user_map: torch.Tensor
    item_map: torch.Tensor
    popularity_map: torch.Tensor

    def users(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., D) user representations to u (..., k)."""
        return (vectors - self.mean_user) @ self.user_map

    def items(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., D) items in CF space to z (..., k)."""
        return (vectors - self.mean_item) @ self.item_map

    def popularity(self, vectors: torch.Tensor) -> torch.Tensor:
        """(..., D) items in CF space to p (...)."""
        return (vectors - self.mean_item) @ self.popularity_map


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
    that no coordinate is special. Both are centred: what the mean user likes is the items' popularity.

    Args:
        users_U_D: a sample of x_u.
        items_N_D: a sample of items in CF space, such as all warm ones.
        interface: has k coordinates.
        temperature: divides the CF logits.
        seed: of the rotation.
    """
    size = items_N_D.shape[1]
    mean_user, mean_item = users_U_D.mean(dim=0), items_N_D.mean(dim=0)
    user_moment = _moment((users_U_D - mean_user).double())
    item_moment = _moment((items_N_D - mean_item).double())
    values, vectors = torch.linalg.eigh(item_moment)
    values = values.clamp_min(values.max() * 1e-10)
    root = vectors * values.sqrt()
    inverse_root = vectors / values.sqrt()
    strengths, directions = torch.linalg.eigh(root.T @ user_moment @ root)
    strengths = strengths.clamp_min(max(float(strengths.max()) * 1e-10, 1e-30))
    kept = strengths.argsort(descending=True)[: min(size, len(interface.item_basis))]
    # `strengths` are squared; the fourth root balances users and items.
    scales = strengths[kept] ** 0.25
    item_map = inverse_root @ directions[:, kept] * scales
    user_map = root @ directions[:, kept] / scales
    turn = _rotation(len(interface.item_basis), seed)[: len(kept)].to(user_map.device)
    unit = 1.0 / (interface.coupling * temperature)
    return Coordinates(
        mean_user,
        mean_item,
        (unit**0.5 * user_map @ turn).to(users_U_D.dtype),
        (unit**0.5 * item_map @ turn).to(users_U_D.dtype),
        unit * mean_user,
    )


@dataclass(frozen=True)
class Similarities:
    """A linear map from text embeddings into an interface's similarity coordinates.

    Attributes:
        centre: (Q,) mean text.
        text_map: (Q, m).
    """

    centre: torch.Tensor
    text_map: torch.Tensor

    def items(self, texts: torch.Tensor) -> torch.Tensor:
        """(..., Q) text embeddings to y (..., m)."""
        return nn.functional.normalize(texts - self.centre, dim=-1) @ self.text_map

    def scaled(self, weight: float) -> Similarities:
        """The same with `<y, y'>` times `weight`."""
        return Similarities(self.centre, weight**0.5 * self.text_map)


def fit_similarities(texts_N_Q: torch.Tensor, interface: TokenInterface) -> Similarities:
    """The directions in which the texts differ most, such that `coupling * <y, y'>` is nearly their cosine.

    Args:
        texts_N_Q: embeddings of the items' texts.
        interface: has m similarity coordinates.
    """
    centre = texts_N_Q.mean(dim=0)
    directions = nn.functional.normalize(texts_N_Q - centre, dim=1)
    _, vectors = torch.linalg.eigh(_moment(directions.double()))
    kept = vectors.flip(1)[:, : len(interface.similarity_basis)].to(texts_N_Q.dtype)
    padded = nn.functional.pad(kept, (0, len(interface.similarity_basis) - kept.shape[1]))
    return Similarities(centre, interface.coupling**-0.5 * padded)


def history_similarity(
    similarities: Similarities,
    interface: TokenInterface,
    texts_N_Q: torch.Tensor,
    histories: Sequence[np.ndarray],
    items_E_C: np.ndarray,
) -> np.ndarray:
    """(E, C) logits that the similarity of candidates `items_E_C` with E histories gives; 0 without a history."""
    items = torch.from_numpy(items_E_C).to(texts_N_Q.device)
    table_N_m = similarities.items(texts_N_Q)
    means_E_m = history_means(table_N_m, histories)
    return (interface.coupling * torch.einsum("em,ecm->ec", means_E_m, table_N_m[items])).cpu().numpy()


def fit_history_weights(
    cf_scores: Sequence[np.ndarray], similarities_E_C: np.ndarray, series_E_C: np.ndarray, config: WarmStartConfig
) -> tuple[float, float]:
    """The weights of similarity and series beside CF logits at which softmax best predicts the positives, in column 0.

    Args:
        cf_scores: logits (E, C) by each kind of item token, -inf at padding; the weights are to suit them all.
        similarities_E_C: of the candidates with the histories.
        series_E_C: which candidates are of a series that the history holds.
        config: which of the two may count.
    """

    def loss(similarity: float, series: float) -> float:
        extra_E_C = similarity * similarities_E_C + series * series_E_C
        prior = (series / SERIES_WEIGHT_SPREAD) ** 2 / (2 * max(1, len(series_E_C)))
        return sum(_surprise(scores_E_C + extra_E_C) + prior for scores_E_C in cf_scores)

    similarity = series = 0.0
    for _ in range(3):
        if config.similarity:
            similarity = float(min(SIMILARITY_WEIGHTS, key=lambda weight: loss(weight, series)))
        if config.series:
            series = float(min(SERIES_WEIGHTS, key=lambda weight: loss(similarity, weight)))
    return similarity, series


def _surprise(logits_E_C: np.ndarray) -> float:
    """Mean over the rows of minus the log-probability of column 0; 0 when there is nobody."""
    if not len(logits_E_C):
        return 0.0
    shifted = logits_E_C - logits_E_C.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[:, 0]).mean())


def fit_temperature(scores_E_C: np.ndarray) -> float:
    """The temperature at which softmax over the candidates best predicts the positives, in column 0; 1 for nobody.

    Args:
        scores_E_C: logits, -inf at padding.
    """
    if not len(scores_E_C):
        return 1.0
    return float(min(TEMPERATURES, key=lambda temperature: _surprise(scores_E_C / temperature)))


@dataclass(frozen=True)
class WarmStart:
    """Where the projections are to begin.

    Attributes:
        interface: the LLM's convention.
        coordinates: of this catalogue in the interface.
        similarities: of this catalogue in the interface.
        series_weight: what a series that the history holds adds to a logit.
    """

    interface: TokenInterface
    coordinates: Coordinates
    similarities: Similarities
    series_weight: float

    def user_tokens(self, users_U_D: torch.Tensor) -> torch.Tensor:
        """(U, d_tok) tokens of users x_u (U, D), without their slot type."""
        weights_U = users_U_D.new_full((len(users_U_D),), self.series_weight / self.interface.coupling)
        return self.interface.user_tokens(self.coordinates.users(users_U_D), weights_U)

    def item_tokens(self, cf_N_D: torch.Tensor, texts_N_Q: torch.Tensor) -> torch.Tensor:
        """(N, d_tok) tokens of items by CF vectors (N, D) and text embeddings (N, Q), without their slot type."""
        return self.interface.item_tokens(
            self.coordinates.items(cf_N_D), self.similarities.items(texts_N_Q), self.coordinates.popularity(cf_N_D)
        )


def warm_start(
    projector: TokenProjector,
    target: WarmStart,
    users_U_D: torch.Tensor,
    items: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    config: WarmStartConfig,
    seed: int = 0,
) -> dict[str, float]:
    """Fit F_U and F_I to the interface's tokens, and take over its slot types.

    Args:
        projector: trained in place.
        target: where they begin.
        users_U_D: a sample of x_u.
        items: tables of joint embeddings (N, d') with the CF vectors (N, D) and the text embeddings (N, Q) that they
            stand for: e_i with E_i, and q_i with the vector decoded from it.
        config: how long and how fast.
        seed: of the batches.

    Returns:
        `user_error` and `item_error`: mean squared error as a share of the variance of the tokens.
    """
    joint_N_2J, cf_N_D, texts_N_Q = (torch.cat(tables) for tables in zip(*items, strict=True))
    user_tokens_U_H = target.user_tokens(users_U_D)
    item_tokens_N_H = target.item_tokens(cf_N_D, texts_N_Q)
    with torch.no_grad():
        projector.slot_types.copy_(target.interface.slot_types)
        projector.user.standardise(users_U_D)
        projector.item.standardise(joint_N_2J)
        _fit_last_layer(projector.user, users_U_D, user_tokens_U_H, config.ridge)
        _fit_last_layer(projector.item, joint_N_2J, item_tokens_N_H, config.ridge)
    parameters = [*projector.user.parameters(), *projector.item.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, config.steps))
    generator = torch.Generator().manual_seed(seed)

    def sample(size: int) -> torch.Tensor:
        return torch.randint(size, (config.batch_size,), generator=generator).to(users_U_D.device)

    for _ in range(config.steps):
        rows_B, items_B = sample(len(users_U_D)), sample(len(joint_N_2J))
        loss = nn.functional.mse_loss(projector.user(users_U_D[rows_B]), user_tokens_U_H[rows_B])
        loss = loss + nn.functional.mse_loss(projector.item(joint_N_2J[items_B]), item_tokens_N_H[items_B])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return {
            "user_error": _error(projector.user(users_U_D), user_tokens_U_H),
            "item_error": _error(projector.item(joint_N_2J), item_tokens_N_H),
        }


@torch.no_grad()
def plain_start(
    projector: TokenProjector,
    token_embeddings: torch.Tensor,
    users_U_D: torch.Tensor,
    joint_N_2J: torch.Tensor,
) -> None:
    """Without an interface: standardise the inputs, and give the tokens the length of the LLM's own embeddings."""
    length = token_embeddings.float().norm(dim=1).median()
    for projection, vectors in ((projector.user, users_U_D), (projector.item, joint_N_2J)):
        projection.standardise(vectors)
        projection.output.weight.mul_(length / projection(vectors).norm(dim=1).median())


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
