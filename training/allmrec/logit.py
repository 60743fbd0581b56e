"""Conditional logit: softmax over candidates, linear in features, fitted by Newton's method with an L2 prior.

Axes: E users, C candidates of which the first is the positive, F features.
"""

from __future__ import annotations

import numpy as np

ITERATIONS = 30
TOLERANCE = 1e-8

FOLDS = 4
FEWEST_USERS = 20
"""Validation users, below which nothing is fitted: five to a fold."""


def fit_logit(
    features_E_C_F: np.ndarray,
    real_E_C: np.ndarray,
    user_weights_E: np.ndarray,
    penalty: float | np.ndarray,
    prior_F: np.ndarray | None = None,
) -> np.ndarray:
    """(F,) the weights at which the positives are likeliest.

    Args:
        features_E_C_F: of the candidates.
        real_E_C: which of them are there.
        user_weights_E: how much each user counts.
        penalty: of the squared distance from the prior, in nats; or (F, F) the precision of a normal prior.
        prior_F: where the weights are pulled to; zero if not given.
    """
    prior_F = np.zeros(features_E_C_F.shape[2]) if prior_F is None else prior_F
    precision_F_F = penalty * np.eye(len(prior_F)) if isinstance(penalty, float | int) else penalty

    def loss_at(weights_F: np.ndarray) -> float:
        off_F = weights_F - prior_F
        away = float(off_F @ precision_F_F @ off_F) / 2
        return _loss(features_E_C_F, real_E_C, user_weights_E, weights_F) + away

    weights_F = prior_F.copy()
    loss = loss_at(weights_F)
    for _ in range(ITERATIONS):
        gradient_F, curvature_F_F = _derivatives(features_E_C_F, real_E_C, user_weights_E, weights_F)
        gradient_F = gradient_F + precision_F_F @ (weights_F - prior_F)
        curvature_F_F = curvature_F_F + precision_F_F
        step_F, size = np.linalg.solve(curvature_F_F, gradient_F), 1.0
        while True:
            tried_F = weights_F - size * step_F
            new = loss_at(tried_F)
            if new <= loss or size < 1e-4:
                break
            size /= 2
        weights_F, gain, loss = tried_F, loss - new, new
        if gain < TOLERANCE * abs(loss):
            break
    return weights_F


def log_likelihoods(logits_E_C: np.ndarray) -> np.ndarray:
    """(E,) log-probability of the positive under softmax; -inf marks what is not there."""
    top_E_1 = logits_E_C.max(axis=1, keepdims=True)
    return logits_E_C[:, 0] - top_E_1[:, 0] - np.log(np.exp(logits_E_C - top_E_1).sum(axis=1))


def curvature(
    features_E_C_F: np.ndarray, real_E_C: np.ndarray, user_weights_E: np.ndarray, weights_F: np.ndarray
) -> np.ndarray:
    """(F, F) that of the loss at some weights: how much the users say of them. Arguments as of `fit_logit`."""
    return _derivatives(features_E_C_F, real_E_C, user_weights_E, weights_F)[1]


def _loss(features_E_C_F: np.ndarray, real_E_C: np.ndarray, user_weights_E: np.ndarray, weights_F: np.ndarray) -> float:
    logits_E_C = np.where(real_E_C, features_E_C_F @ weights_F, -np.inf)
    return -float(user_weights_E @ log_likelihoods(logits_E_C))


def _derivatives(
    features_E_C_F: np.ndarray, real_E_C: np.ndarray, user_weights_E: np.ndarray, weights_F: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient (F,) and curvature (F, F) of the loss."""
    logits_E_C = np.where(real_E_C, features_E_C_F @ weights_F, -np.inf)
    probs_E_C = np.exp(logits_E_C - logits_E_C.max(axis=1, keepdims=True))
    probs_E_C /= probs_E_C.sum(axis=1, keepdims=True)
    means_E_F = np.einsum("ec,ecf->ef", probs_E_C, features_E_C_F)
    gradient_F = user_weights_E @ (means_E_F - features_E_C_F[:, 0])
    size = features_E_C_F.shape[2]
    weighted = (features_E_C_F * (probs_E_C * user_weights_E[:, None])[..., None]).reshape(-1, size)
    curvature_F_F = weighted.T @ features_E_C_F.reshape(-1, size)
    return gradient_F, curvature_F_F - (means_E_F * user_weights_E[:, None]).T @ means_E_F
