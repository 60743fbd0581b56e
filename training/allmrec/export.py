"""From trained stages to a published bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.alignment.projection import TokenProjector
from models.alignment.text_encoder import TextEncoder
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.bundle.manifest import BackboneRecord, LLMRecord
from models.bundle.store import write_bundle
from models.histories import UserHistories
from models.llm.loading import LanguageModel
from models.prompts.template import PromptConfig
from training.allmrec.stage1 import Aligned
from training.data.splits import SequenceSplit

HISTORY_ITEMS = 50


def assemble(split: SequenceSplit, aligned: Aligned, token_size: int, device: str = "cpu") -> CatalogueModel:
    """What a bundle will hold, with projections still to be trained.

    Histories are whole: what was held out for evaluation is history to those who are served. An item's joint embedding
    is e_i with q_i beside it, where the paper has e_i alone (section 4.2.4): e_i says whom the item is for, but has
    lost most of what it is like.

    Args:
        split: the data.
        aligned: what stage 1 left.
        token_size: d_tok of the LLM.
        device: where stage 2 will run.
    """
    users = range(len(split))
    joint_item = torch.cat([aligned.joint_item, aligned.joint_text], dim=1)
    joint_text = torch.cat([aligned.joint_text, aligned.joint_text], dim=1)
    return CatalogueModel(
        catalogue=split.catalogue,
        histories=UserHistories(split.user_ids, [split.full_history(user)[-HISTORY_ITEMS:] for user in users]),
        earlier=_earlier(split),
        backbone=aligned.backbone.to(device),
        cf_vectors=aligned.cf_vectors.to(device),
        joint_item=joint_item.to(device),
        joint_text=joint_text.to(device),
        joint_genre=split.catalogue.genre_centroids(joint_item).to(device),
        projector=TokenProjector(aligned.cf_vectors.shape[1], joint_item.shape[1], token_size).to(device),
        index=ItemIndex.build(aligned.cf_vectors.cpu().numpy()),
        alignment={name: tensor.cpu() for name, tensor in aligned.alignment.state_dict().items()},
    )


def _earlier(split: SequenceSplit) -> UserHistories:
    """What users met before the history that serving starts from: nobody is recommended what they know already."""
    earlier = {}
    for user, user_id in enumerate(split.user_ids):
        history = split.full_history(user)
        if len(history) > HISTORY_ITEMS:
            earlier[user_id] = np.setdiff1d(history[:-HISTORY_ITEMS], history[-HISTORY_ITEMS:])
    return UserHistories.from_mapping(earlier)


def export(
    home: Path,
    contents: CatalogueModel,
    *,
    name: str,
    prompt: PromptConfig,
    llm: LanguageModel,
    text_encoder: TextEncoder,
    metrics: Mapping[str, Any],
) -> Path:
    """Publish `contents` as a new version in bundle home `home`, and return its path.

    Args:
        home: where.
        contents: with a trained projector.
        name: of the catalogue.
        prompt: the prompts that stage 2 was trained with.
        llm: the LLM that stage 2 was trained with.
        text_encoder: fine-tuned by stage 1.
        metrics: of the evaluation.
    """
    backbone = contents.backbone
    return write_bundle(
        home,
        contents,
        name=name,
        prompt=prompt,
        backbone=BackboneRecord(kind=backbone.kind, config=backbone.config.model_dump(mode="json")),
        llm=LLMRecord(name=llm.name, fingerprint=llm.fingerprint),
        text_encoder=text_encoder.name,
        save_text_encoder=lambda directory: _save_text_encoder(text_encoder, directory),
        metrics=dict(metrics),
    )


def _save_text_encoder(text_encoder: TextEncoder, directory: Path) -> None:
    """Save without the path that the encoder was once loaded from, which its library notes in its configs."""
    text_encoder.save(directory)
    for path in directory.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
