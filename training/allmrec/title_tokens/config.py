"""The stage `title_tokens`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.config import Config
from training.allmrec.stage2.examples import ExampleConfig
from training.runs.loop import LoopConfig


class Start(Config):
    """How a list without injected tokens is read, as fitted to validation items.

    Attributes:
        prior_share: what share of log P(title) is taken from a title's log-probability.
        scale: of what is left.
        temperature: of the CF logits.
    """

    prior_share: float
    scale: float
    temperature: float = Field(gt=0)


class Chosen(Start):
    """What another fit has chosen on validation items, so that none are needed.

    Attributes:
        steps: of training; none keeps the plain list.
    """

    steps: int = Field(ge=0)


class TitleTokensConfig(Config):
    """The stage `title_tokens`.

    Attributes:
        examples: which positions are predicted, among which candidates, and which items are injected by their text.
            What the list shows, and how much of a title, says `blend.title_list`.
        distillation: share of the loss that asks for the backbone's distribution over the candidates instead of the
            target.
        learning_rate: of AdamW.
        training_dtype: as of stage 2.
        gradient_checkpointing: likewise.
        validation_users: at most this many users are validated on.
        chosen: what is taken over from another fit instead of being fitted to validation items.
        seed: of everything random.
        loop: when to stop, validate and save; the start is validated in any case.
    """

    examples: ExampleConfig = ExampleConfig(candidates=8, held_back=0.1, batch_tokens=3072)
    distillation: float = Field(0.5, ge=0, le=1)
    learning_rate: float = Field(3e-4, gt=0)
    training_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool = False
    validation_users: int = Field(300, gt=0)
    chosen: Chosen | None = None
    seed: int = 0
    loop: LoopConfig = LoopConfig(epochs=2, validate_every=0.25, warmup=0.05, decay_from=0.0, clip_norm=1.0)
