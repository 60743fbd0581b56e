"""How the blend is fitted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.config import Config
from models.prompts.title_list import TitleListConfig
from training.allmrec.genre_blend import GenreBlendConfig


class BlendConfig(Config):
    """How the blend is fitted.

    Attributes:
        ways: how the LLM is asked, ids of `models.rankers.of_model.WAYS`. All are fitted; those without certain lift
            are left out, but never all.
        title_list: what the LLM is shown where it is asked how likely titles follow.
        users: at most this many validation users.
        draws: of negatives for each user, for signals without an LLM.
        llm_users: at most this many validation users are asked the LLM about.
        penalty: of squared weights, in nats.
        cold_weights: how much more users with a cold positive may count; the largest is taken that costs all users
            at most `cold_cost`.
        cold_cost: share of all users' NDCG@10 that may be given up for cold items.
        trust: what share of the users of the blend without the LLM may count in the weights of the one with it, beside
            those who are asked about; the largest is taken whose likelihood is the best, but for a standard error.
            Where nothing is certainly likelier than that blend, it is kept as it is, and the LLM has next to no weight.
        doubt: penalties of the LLM's weights, the largest first, by the same rule: what it says is to be worth being
            listened to.
        seed: of negatives and folds.
        genres: how genres are weighed.
    """

    ways: tuple[Literal["allmrec", "title_likelihood", "title_injected", "user_encoder"], ...] = Field(
        ("allmrec", "title_likelihood"), min_length=1
    )
    title_list: TitleListConfig = TitleListConfig()
    users: int = Field(3000, gt=0)
    draws: int = Field(2, gt=0)
    llm_users: int = Field(1000, gt=0)
    penalty: float = Field(3.0, ge=0)
    cold_weights: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 3.0)
    cold_cost: float = Field(0.005, ge=0)
    trust: tuple[float, ...] = Field((0.0, 0.1, 0.3, 1.0), min_length=1)
    doubt: tuple[float, ...] = Field((3.0, 30.0, 300.0, 3000.0), min_length=1)
    seed: int = 0
    genres: GenreBlendConfig = GenreBlendConfig()
