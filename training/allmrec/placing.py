"""Models of catalogues that nothing was trained on.

Axes: N items, Q text size d_T, D CF size d.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from models.alignment.placement import place
from models.alignment.projection import TokenProjector
from models.alignment.text_encoder import catalogue_texts
from models.backbones import create_backbone
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.bundle.signal_tables import SignalTables
from models.catalogue import PADDING_ITEM, Catalogue
from models.histories import UserHistories
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage1.config import Stage1Config


@torch.no_grad()
def placed_elsewhere(
    model: CatalogueModel, aligned: Aligned, catalogue: Catalogue, config: Stage1Config
) -> CatalogueModel:
    """The trained `model` for the items of another catalogue, all known by their texts alone: q_i, and f_I_dec(q_i) to
    the backbone (A-LLMRec section 5.2, cross-domain).

    Args:
        model: with trained projections.
        aligned: what stage 1 left.
        catalogue: the other one.
        config: of stage 1: what its text encoder reads.
    """
    encoder = aligned.text_encoder
    text_vectors_N_Q = encoder.encode(encoder.tokenize(catalogue_texts(catalogue, config.text_categories))).cpu()
    unknown_N_D = torch.zeros(len(text_vectors_N_Q), model.cf_vectors.shape[1])
    nothing_N = torch.zeros(len(text_vectors_N_Q), dtype=torch.bool)
    placement = place(aligned.alignment, text_vectors_N_Q, unknown_N_D, nothing_N)
    for table in vars(placement).values():
        table[PADDING_ITEM] = 0.0
    placed = model.placed(placement)
    return replace(
        placed,
        catalogue=catalogue,
        histories=UserHistories.nobody(),
        earlier=UserHistories.nobody(),
        joint_genre=catalogue.genre_centroids(placed.joint_item),
        index=ItemIndex.build(placement.cf_vectors.numpy()),
        signals=no_signals(len(catalogue)),
    )


def blank_model(catalogue: Catalogue, token_size: int) -> CatalogueModel:
    """A model that knows titles and nothing else: for prompts into which nothing is injected."""
    rows = len(catalogue) + 1
    joint = torch.zeros(rows, 2)
    return CatalogueModel(
        catalogue=catalogue,
        histories=UserHistories.nobody(),
        backbone=create_backbone("sasrec", {"num_items": 1, "embedding_size": 1}).eval().requires_grad_(False),
        cf_vectors=torch.zeros(rows, 1),
        joint_item=joint,
        joint_text=joint,
        joint_genre=catalogue.genre_centroids(joint),
        projector=TokenProjector(1, 2, token_size),
        index=ItemIndex.build(np.zeros((rows, 1), dtype=np.float32)),
        alignment={},
        signals=no_signals(len(catalogue)),
    )


def no_signals(items: int) -> SignalTables:
    """Tables that say nothing of any item."""
    rows = items + 1
    none, counts = np.zeros((rows, 1), dtype=np.float16), np.zeros(rows, dtype=np.float32)
    return SignalTables(
        text_vectors=none,
        words=np.zeros((rows, 1), dtype=np.int32),
        word_weights=none,
        neighbours=np.arange(rows, dtype=np.int32)[:, None],
        neighbour_weights=none,
        popularity=counts,
        neighbour_popularity=counts,
        followed_starts=np.zeros(rows + 1, dtype=np.int64),
        followed_items=np.zeros(0, dtype=np.int32),
        followed_counts=counts[:0],
        exposure=counts + 1,
    )
