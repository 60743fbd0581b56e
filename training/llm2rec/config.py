"""How an encoder is made by LLM2Rec."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from models.config import Config
from training.runs.loop import LoopConfig


class Stage(StrEnum):
    """A part of the training; IEM is the last two."""

    CSFT = "csft"
    MNTP = "mntp"
    CONTRASTIVE = "contrastive"


VARIANTS: dict[str, tuple[Stage, ...]] = {
    "llm2rec": (Stage.CSFT, Stage.MNTP, Stage.CONTRASTIVE),
    "csft": (Stage.CSFT,),
    "iem": (Stage.MNTP, Stage.CONTRASTIVE),
    "raw": (),
}
"""What an encoder is trained by, in order: the method, its two halves alone, and the LLM as it is."""


class ItemTexts(StrEnum):
    """What IEM reads of an item: its title, as in the paper, or all that a text encoder reads here."""

    TITLE = "title"
    ITEM = "item"


class LoRAConfig(Config):
    """Low-rank updates of every linear layer (Hu et al., ICLR 2022).

    Attributes:
        rank: of an update.
        alpha: an update is scaled by alpha / rank.
        dropout: of what an update reads.
    """

    rank: int = Field(16, gt=0)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)


LoRA = Annotated[LoRAConfig | None, BeforeValidator(lambda given: None if given == "none" else given)]
"""Without, all weights are trained: "none", as TOML has no word for it."""


class TuningConfig(Config):
    """What every stage has.

    Attributes:
        lora: of the updates; with "none" all weights are trained.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        loop: when to stop and save.
    """

    lora: LoRA = LoRAConfig()
    learning_rate: float = Field(2e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    loop: LoopConfig


class CSFTConfig(TuningConfig):
    """Collaborative supervised fine-tuning.

    Attributes:
        history_items: titles before a target, at most.
        packed: all titles of a window but the first are targets at once, each with those before it as its history;
            else every target has a sentence of its own with its full history, as in the paper: the same loss of the
            tokens of a title with the same history, and of the new line after it, for as many times the work as a
            window has targets.
        batch_tokens: of a batch, padding included.
        validation_users: on whose validation items the log-likelihood of a title's tokens is measured.
    """

    history_items: int = Field(10, gt=0)
    packed: bool = True
    batch_tokens: int = Field(4096, gt=0)
    validation_users: int = Field(200, gt=0)
    learning_rate: float = Field(3e-4, gt=0)
    loop: LoopConfig = LoopConfig(
        epochs=3, monitor="log_likelihood", warmup=0.03, decay_from=0.0, clip_norm=1.0, autocast=True
    )


class MNTPConfig(TuningConfig):
    """Masked next-token prediction.

    Attributes:
        blanked: share of a text's tokens.
        batch_size: texts a step.
    """

    blanked: float = Field(0.2, gt=0, lt=1)
    batch_size: int = Field(64, gt=0)
    loop: LoopConfig = LoopConfig(max_steps=1000, warmup=0.03, decay_from=0.0, clip_norm=1.0, autocast=True)


class ContrastiveConfig(TuningConfig):
    """Item-level contrastive learning.

    Attributes:
        dropout: of attention, by which the two views of a text differ.
        temperature: cosines are divided by it.
        batch_size: texts a step; each has the others as negatives.
    """

    dropout: float = Field(0.2, ge=0, lt=1)
    temperature: float = Field(0.1, gt=0)
    batch_size: int = Field(256, gt=1)
    loop: LoopConfig = LoopConfig(max_steps=1000, warmup=0.03, decay_from=0.0, clip_norm=1.0, autocast=True)


class LLM2RecConfig(Config):
    """LLM2Rec. Learning rates, temperature and dropout are the paper's; what a step of CSFT has, and how many, is not.

    Attributes:
        llm: "embedded", a hub name or a path of a causal LM.
        texts: what IEM reads.
        max_title_tokens: longer titles are cut, for CSFT.
        max_text_tokens: longer texts are cut, for IEM and in the encoder, the start token included.
        csft: the first stage.
        mntp: the second.
        contrastive: the third.
        device: where it runs.
        seed: of everything random.
    """

    llm: str = "embedded"
    texts: ItemTexts = ItemTexts.TITLE
    max_title_tokens: int = Field(32, gt=0)
    max_text_tokens: int = Field(64, gt=1)
    csft: CSFTConfig = CSFTConfig()
    mntp: MNTPConfig = MNTPConfig()
    contrastive: ContrastiveConfig = ContrastiveConfig()
    device: str = "cpu"
    seed: int = 0

    def of(self, stage: Stage) -> TuningConfig:
        """The config of a stage."""
        chosen: TuningConfig = getattr(self, stage.value)
        return chosen
