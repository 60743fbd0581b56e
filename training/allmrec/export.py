"""From trained stages to a published bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.alignment.projection import TokenProjector
from models.alignment.text_encoder import TextEncoder
from models.alignment.words import WordEncoder
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.bundle.manifest import Origin
from models.bundle.signal_tables import HALF_LIVES, SignalTables
from models.bundle.store import write_bundle
from models.histories import UserHistories
from models.rankers.of_model import ENCODER, INJECTED, SECOND, STAGE1_ITEM, STAGE1_TEXT, TOKENS
from training.allmrec.stage1.aligned import Aligned
from training.data.splits import SequenceSplit

HISTORY_ITEMS = 50


def assemble(
    split: SequenceSplit,
    aligned: Aligned,
    signals: SignalTables,
    token_size: int,
    device: str = "cpu",
    words: WordEncoder | None = None,
) -> CatalogueModel:
    """What a bundle will hold, with projections still to be trained.

    Histories are whole: what was held out for evaluation is history to those who are served.

    Args:
        split: the data.
        aligned: what stage 1 left.
        signals: of the same items.
        token_size: d_tok of the LLM.
        device: where stage 2 will run.
        words: that the backbone reads.
    """
    users = range(len(split))
    placement = aligned.placement
    joint_item, joint_text = placement.token_item, placement.token_text
    return CatalogueModel(
        catalogue=split.catalogue,
        histories=UserHistories(split.user_ids, [split.full_history(user)[-HISTORY_ITEMS:] for user in users]),
        earlier=_earlier(split),
        backbone=aligned.backbone.to(device),
        cf_vectors=placement.cf_vectors.to(device),
        joint_item=joint_item.to(device),
        joint_text=joint_text.to(device),
        joint_genre=split.catalogue.genre_centroids(joint_item).to(device),
        projector=TokenProjector(placement.cf_vectors.shape[1], joint_item.shape[1], token_size).to(device),
        index=ItemIndex.build(placement.cf_vectors.cpu().numpy()),
        alignment={name: tensor.cpu() for name, tensor in aligned.alignment.state_dict().items()},
        signals=signals,
        words=words,
        decoded_item=placement.decoded_item.to(device),
        decoded_text=placement.decoded_text.to(device),
    )


def _earlier(split: SequenceSplit) -> UserHistories:
    """What users met before the history that serving starts from: nobody is recommended what they know already."""
    earlier = {}
    for user, user_id in enumerate(split.user_ids):
        history = split.full_history(user)
        if len(history) > HISTORY_ITEMS:
            earlier[user_id] = np.setdiff1d(history[:-HISTORY_ITEMS], history[-HISTORY_ITEMS:])
    return UserHistories.from_mapping(earlier)


def export(home: Path, model: CatalogueModel, origin: Origin, text_encoder: TextEncoder) -> Path:
    """Publish `model` as a new version in bundle home `home`, and return its path.

    Args:
        home: where.
        model: with all that was trained; what the blend with the LLM does not weigh is left out.
        origin: what the manifest says of it.
        text_encoder: fine-tuned by stage 1.
    """
    weighed = {signal.id for signal in origin.blends.llm.signals}
    if ENCODER not in weighed:
        model = replace(model, user_head=None)
    if INJECTED not in weighed:
        model = replace(model, title_projector=None)
    local = weighed | {signal.id for signal in origin.blends.blend.signals}
    if SECOND not in local:
        model = replace(model, second=None)
    if TOKENS not in local:
        model = replace(model, law=None)
    if STAGE1_ITEM not in local:
        model = replace(model, decoded_item=None)
    if STAGE1_TEXT not in local:
        model = replace(model, decoded_text=None)
    if not local & {*HALF_LIVES}:
        model = replace(model, signals=replace(model.signals, aged=None))
    return write_bundle(home, model, origin, lambda directory: _save_text_encoder(text_encoder, directory))


def _save_text_encoder(text_encoder: TextEncoder, directory: Path) -> None:
    """Save without the path that the encoder was once loaded from, which its library notes in its configs."""
    text_encoder.save(directory)
    for path in directory.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
