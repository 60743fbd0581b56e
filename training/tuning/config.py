"""How an LLM is tuned to rank titles."""

from __future__ import annotations

from pydantic import Field

from models.config import Config
from models.prompts.title_list import TitleListConfig
from training.llm2rec.config import LoRA
from training.runs.loop import LoopConfig

WHOLE_RATE, LOW_RANK_RATE = 2.5e-5, 2e-4


class TunedLLMConfig(Config):
    """An LLM tuned to rank titles.

    Attributes:
        llm: a hub name or a path of a causal LM.
        title_list: what the LLM is shown. It is to be what `blend.title_list` of the recipe says that will ask it; vLLM
            needs the vocabulary "whole" in both.
        negatives: drawn for each target, among items with training interactions that its user never met in training:
            titles that are never wanted would be learned by heart otherwise, and unseen items with them.
        likelihood: what the mean surprise at a token of the target counts beside that at the target among candidates.
        lora: low-rank updates; all weights are trained without.
        learning_rate: of AdamW, for the LLM's weights; 2.5e-5 of all, 2e-4 of low-rank updates, if not given.
        reading_rate: of AdamW, for how likelihoods are read: their scale, and the prior's share.
        batch_lists: lists of a step, and of a step of validation.
        gradient_checkpointing: keep activations at the borders of layers only.
        validation_users: at most this many users are validated on.
        device: where it runs.
        seed: of everything random.
        loop: when to stop, validate and save.
    """

    llm: str = ""
    title_list: TitleListConfig = TitleListConfig(max_title_tokens=64, vocabulary="catalogue")
    negatives: int = Field(9, gt=0)
    likelihood: float = Field(0.1, ge=0)
    lora: LoRA = None
    learning_rate: float | None = Field(None, gt=0)
    reading_rate: float = Field(1e-2, gt=0)
    batch_lists: int = Field(16, gt=0)
    gradient_checkpointing: bool = False
    validation_users: int = Field(600, gt=0)
    device: str = "cpu"
    seed: int = 0
    loop: LoopConfig = LoopConfig(
        epochs=2, validate_every=0.25, validate_first=True, warmup=0.05, decay_from=0.0, clip_norm=1.0, autocast=True
    )

    @property
    def rate(self) -> float:
        """The learning rate of the LLM's weights."""
        return self.learning_rate or (WHOLE_RATE if self.lora is None else LOW_RANK_RATE)
