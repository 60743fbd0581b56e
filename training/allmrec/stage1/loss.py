"""Stage 1's losses (A-LLMRec section 4.1, equations 2 to 7)."""

from __future__ import annotations

import torch
from torch.nn import functional

from models.alignment.networks import Alignment
from training.allmrec.stage1.config import Stage1Config


class Stage1Loss:
    """The losses of one batch: B positives, followed by B negatives.

    Reconstruction is measured in standardised units, where both spaces have the same spread.

    Args:
        alignment: the networks.
        config: the weights of the losses.
    """

    def __init__(self, alignment: Alignment, config: Stage1Config) -> None:
        self.alignment, self.config = alignment, config

    def __call__(self, users_B_D: torch.Tensor, items_P_D: torch.Tensor, texts_P_T: torch.Tensor) -> torch.Tensor:
        """The weighted sum of all losses.

        Args:
            users_B_D: x_u before the positive.
            items_P_D: E of the items, P = 2B.
            texts_P_T: Q of the items.
        """
        alignment, config = self.alignment, self.config
        items_P_J, texts_P_J = alignment.encode_items(items_P_D), alignment.encode_texts(texts_P_T)
        items_P_D_, texts_P_T_ = alignment.item_decoder(items_P_J), alignment.text_decoder(texts_P_J)
        matching = summed_mse(items_P_J, texts_P_J)
        item_reconstruction = summed_mse(items_P_D_, alignment.item_scale(items_P_D))
        text_reconstruction = summed_mse(texts_P_T_, alignment.text_scale(texts_P_T).detach())
        recommendation = ranking_loss(users_B_D, alignment.item_scale.inverse(items_P_D_))
        text_recommendation = ranking_loss(users_B_D, alignment.decode_items(texts_P_J))
        return (
            matching
            + config.item_reconstruction * item_reconstruction
            + config.text_reconstruction * text_reconstruction
            + recommendation
            + config.text_recommendation * text_recommendation
        )


def summed_mse(found_P_D: torch.Tensor, wanted_P_D: torch.Tensor) -> torch.Tensor:
    """MSE of the positives plus MSE of the negatives."""
    return 2.0 * functional.mse_loss(found_P_D, wanted_P_D)


def ranking_loss(users_B_D: torch.Tensor, items_P_D: torch.Tensor) -> torch.Tensor:
    """L_rec: mean of -log sigma(x_u . positive) - log(1 - sigma(x_u . negative)); positives come first."""
    positives_B_D, negatives_B_D = items_P_D.chunk(2)
    positive_B, negative_B = (users_B_D * positives_B_D).sum(dim=-1), (users_B_D * negatives_B_D).sum(dim=-1)
    return (functional.softplus(-positive_B) + functional.softplus(negative_B)).mean()
