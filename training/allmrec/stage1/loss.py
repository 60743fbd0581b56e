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

    def __call__(self, users_B_D: torch.Tensor, items_2B_D: torch.Tensor, texts_2B_Q: torch.Tensor) -> torch.Tensor:
        """The weighted sum of all losses.

        Args:
            users_B_D: x_u before the positive.
            items_2B_D: E of the items: B positives, then B negatives.
            texts_2B_Q: Q of the items.
        """
        alignment, config = self.alignment, self.config
        items_2B_J, texts_2B_J = alignment.encode_items(items_2B_D), alignment.encode_texts(texts_2B_Q)
        decoded_2B_D, decoded_2B_Q = alignment.item_decoder(items_2B_J), alignment.text_decoder(texts_2B_J)
        matching = summed_mse(items_2B_J, texts_2B_J)
        item_reconstruction = summed_mse(decoded_2B_D, alignment.item_scale(items_2B_D))
        text_reconstruction = summed_mse(decoded_2B_Q, alignment.text_scale(texts_2B_Q).detach())
        recommendation = ranking_loss(users_B_D, alignment.item_scale.inverse(decoded_2B_D))
        text_recommendation = ranking_loss(users_B_D, alignment.decode_items(texts_2B_J))
        return (
            config.matching * matching
            + config.item_reconstruction * item_reconstruction
            + config.text_reconstruction * text_reconstruction
            + config.recommendation * recommendation
            + config.text_recommendation * text_recommendation
        )


def summed_mse(found_2B_D: torch.Tensor, wanted_2B_D: torch.Tensor) -> torch.Tensor:
    """MSE of the positives plus MSE of the negatives."""
    return 2.0 * functional.mse_loss(found_2B_D, wanted_2B_D)


def ranking_loss(users_B_D: torch.Tensor, items_2B_D: torch.Tensor) -> torch.Tensor:
    """L_rec: mean of -log sigma(x_u . positive) - log(1 - sigma(x_u . negative)); positives come first."""
    positives_B_D, negatives_B_D = items_2B_D.chunk(2)
    positive_B, negative_B = (users_B_D * positives_B_D).sum(dim=-1), (users_B_D * negatives_B_D).sum(dim=-1)
    return (functional.softplus(-positive_B) + functional.softplus(negative_B)).mean()
