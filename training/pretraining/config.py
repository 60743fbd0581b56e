"""The settings of the stage that makes the embedded LLM."""

from __future__ import annotations

from pydantic import Field, model_validator

from models.config import Config
from training.pretraining.architecture import Architecture
from training.pretraining.circuit.gains import Gains
from training.pretraining.mixture import Mixture
from training.runs.loop import LoopConfig


class PretrainConfig(Config):
    """The stage `pretrain-lm`.

    Attributes:
        architecture: sizes.
        gains: strengths of the constructed initialisation.
        constructed: begin with the constructed initialisation; with transformers' own otherwise, which does not learn
            to rank in the time of a run.
        mixture: what is trained on.
        titles: stock of grammar titles.
        prompts_per_epoch: an epoch's prompts; every epoch draws new ones.
        batch_tokens: most tokens in a batch, padding included: about ten prompts.
        learning_rate: of AdamW. Four times more undoes the constructed circuit in a minute.
        feed_forward_rate: how much faster the feed-forward layers learn, which nothing is constructed in.
        betas: of AdamW. The second is .98, so that a run of a few thousand steps forgets its first gradients.
        weight_decay: of AdamW.
        vocabulary_weight: see `Objective`.
        order_weight: see `Objective`.
        text_weight: see `Objective`.
        validation_prompts: prompts to measure the share of Bayes on.
        loop: when to stop, validate and save.
        seed: of everything random but the interface.
        interface_seed: of the convention for injected tokens. Bundles depend on it.
    """

    architecture: Architecture = Architecture()
    gains: Gains = Gains()
    constructed: bool = True
    mixture: Mixture = Mixture()
    titles: int = Field(20_000, ge=10)
    prompts_per_epoch: int = Field(512, gt=0)
    batch_tokens: int = Field(4096, gt=0)
    learning_rate: float = Field(5e-5, gt=0)
    feed_forward_rate: float = Field(6.0, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.01, ge=0)
    vocabulary_weight: float = Field(0.05, ge=0)
    order_weight: float = Field(0.3, ge=0)
    text_weight: float = Field(0.05, ge=0)
    validation_prompts: int = Field(300, gt=0)
    loop: LoopConfig = LoopConfig(
        max_steps=6_000, validate_every=10, monitor="closeness", decay_from=0.3, warmup=0.01, clip_norm=1.0
    )
    seed: int = 0
    interface_seed: int = 0

    @model_validator(mode="after")
    def _can_be_validated(self) -> PretrainConfig:
        if max(self.mixture.explanations, self.mixture.answers) == 1:
            raise ValueError(
                "mixture.explanations and mixture.answers must leave prompts whose ranking can be measured"
            )
        return self
