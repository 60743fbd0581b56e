"""The stage `stage2`."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from models.config import Config
from models.llm.loading import EMBEDDED
from models.prompts.layout import Injection
from training.allmrec.genres import GenreConfig
from training.allmrec.stage2.examples import ExampleConfig
from training.allmrec.stage2.warm_start import (
    WarmStartConfig,
)
from training.runs.loop import LoopConfig


class Loss(StrEnum):
    """What stage 2 is trained for."""

    CHOICE = "choice"
    """-log P(target) under decoding constrained to the candidates: exactly what serving computes."""
    TITLE = "title"
    """Cross-entropy of the target title's tokens over the whole vocabulary, as in the paper."""


class Chosen(Config):
    """What another fit has chosen on validation items, so that none are needed.

    Attributes:
        temperature: of the CF logits.
        similarity_weight: of likeness to the history, in the tokens.
        series_weight: of series that the history holds.
        steps: of training; none keeps the warm start.
        rehearsal_steps: of training by the law before that.
    """

    temperature: float = Field(gt=0)
    similarity_weight: float = 0.0
    series_weight: float = 0.0
    steps: int = Field(ge=0)
    rehearsal_steps: int = Field(0, ge=0)


class Stage2Config(Config):
    """The stage `stage2`.

    Attributes:
        llm: "embedded", a hub name or a path.
        device: where the LLM and the projections run.
        dtype: of the LLM's weights.
        load_in_8bit: the LLM's matrices as LLM.int8(), on a GPU with bitsandbytes.
        training_dtype: of the LLM's forward and backward pass in training; "auto" is bfloat16 where hardware has it.
            float32 weights are cast as they are used; weights of another `dtype` are used as they are. Validation
            keeps to `dtype`.
        gradient_checkpointing: keep the LLM's activations at the borders of its layers only and compute the others
            anew for the backward pass: less memory, a third more time.
        examples: what the prompts contain.
        injection: which tokens are injected: all, or those of an ablation of the paper's Table 9.
        random_joint: joint embeddings are random numbers, likewise.
        loss: on what.
        distillation: share of the choice loss that asks for a teacher's distribution over the candidates instead of
            the target: what the tokens of the warm start say, or, for an LLM without an interface, the CF backbone.
        learning_rate: of AdamW.
        betas: of AdamW.
        validation_users: at most this many users are validated on.
        warm_start: how the projections are fitted to the LLM's interface, where it has one.
        rehearsal: how long they are then trained by the interface's law, before the LLM is asked; not at all if not
            given.
        rehearsal_learning_rate: of AdamW there.
        genres: how the genres' embeddings are fitted, likewise.
        chosen: what is taken over from another fit instead of being fitted to validation items.
        loop: when to stop, validate and save.
        seed: of everything random.
    """

    llm: str = EMBEDDED
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    load_in_8bit: bool = False
    training_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool = False
    examples: ExampleConfig = ExampleConfig()
    injection: Injection = Injection.ALL
    random_joint: bool = False
    loss: Loss = Loss.CHOICE
    distillation: float = Field(0.0, ge=0, le=1)
    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    validation_users: int = Field(256, gt=0)
    warm_start: WarmStartConfig = WarmStartConfig()
    rehearsal: LoopConfig | None = None
    rehearsal_learning_rate: float = Field(3e-4, gt=0)
    genres: GenreConfig = GenreConfig()
    chosen: Chosen | None = None
    loop: LoopConfig = LoopConfig(epochs=5, validate_first=True, clip_norm=1.0, warmup=0.02, decay_from=0.0)
    seed: int = 0
