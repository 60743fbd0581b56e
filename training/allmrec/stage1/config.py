"""The stage `stage1`."""

from __future__ import annotations

from pydantic import Field

from models.alignment.text_encoder import EMBEDDED
from models.config import Config
from training.runs.loop import LoopConfig


class Stage1Config(Config):
    """The stage `stage1`.

    Attributes:
        text_encoder: "embedded", a hub name or a path of a sentence-transformers model.
        max_text_tokens: longer item texts are cut.
        text_categories: item texts name the item's categories, beside title and description as in the paper.
        freeze: leave the text encoder as it is (ablation "Freeze SBERT").
        joint_size: d'.
        matching: weight of L_matching; 1 in the paper, 0 in its Table 8.
        item_reconstruction: alpha.
        text_reconstruction: beta; 0.5 (Movies, Games) or 0.2 (Beauty, Toys) in the paper.
        recommendation: weight of L_rec; 1 in the paper, 0 in its Table 8.
        text_recommendation: weight of L_rec on `f_I_dec(f_T_enc(Q))` as well. The paper has 0; without it nothing
            teaches decoded texts to be ranked, and items that the backbone never saw are hardly ever retrieved.
        positions: at most this many of every training sequence are learned from, fewer where users are so many that
            these would exceed `MOST_POSITIONS`. The paper has 1, the last, which is little where few users have long
            histories.
        batch_size: positions a step while the encoder is fine-tuned.
        learning_rate: of the text encoder.
        head_learning_rate: of the encoders into and the decoders out of the joint space.
        head_batch_size: positions a step while the text encoder rests.
        heads: how long the heads are trained on the texts as first encoded.
        loop: how long the text encoder is fine-tuned; its `autocast` also holds where texts are encoded.
        refit: how long the heads are trained on the texts as finally encoded.
        validation_users: at most this many users are validated on.
        device: where it runs.
        seed: of everything random.
    """

    text_encoder: str = EMBEDDED
    max_text_tokens: int = Field(64, gt=2)
    text_categories: bool = True
    freeze: bool = False
    joint_size: int = Field(128, gt=0)
    matching: float = Field(1.0, ge=0)
    item_reconstruction: float = Field(0.5, ge=0)
    text_reconstruction: float = Field(0.5, ge=0)
    recommendation: float = Field(1.0, ge=0)
    text_recommendation: float = Field(1.0, ge=0)
    positions: int = Field(20, gt=0)
    batch_size: int = Field(32, gt=0)
    learning_rate: float = Field(1e-4, gt=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    head_batch_size: int = Field(256, gt=0)
    heads: LoopConfig = LoopConfig(max_steps=2000, decay_from=0.0)
    loop: LoopConfig = LoopConfig(epochs=10, minutes=3, decay_from=0.5, clip_norm=1.0, autocast=True)
    refit: LoopConfig = LoopConfig(max_steps=1000, decay_from=0.0)
    validation_users: int = Field(4000, gt=0)
    device: str = "cpu"
    seed: int = 0
