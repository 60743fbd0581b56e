"""A-LLMRec with the items' texts permuted among them: what it then loses, it owes to what the texts say.

Nothing is trained again, and what is known of items by their interactions stays theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from models.alignment.placement import place
from models.backbones import Backbone
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.catalogue import PADDING_ITEM, Catalogue
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs

T = TypeVar("T")
Texts = Callable[[Backbone], torch.Tensor]
"""Makes q (N+1, d_T) as a backbone that reads texts has them."""


def text_order(items: int, seed: int) -> np.ndarray:
    """(N+1,) whose text each item gets; padding keeps its own."""
    order = np.arange(items + 1)
    order[1:] = 1 + np.random.default_rng(seed).permutation(items)
    return order


def permuted_catalogue(catalogue: Catalogue, order: np.ndarray) -> Catalogue:
    """Titles, descriptions and categories of other items; ids and interactions stay."""
    rows = order[1:].tolist()

    def taken(column: Sequence[T]) -> list[T]:
        return [column[row] for row in rows]

    return Catalogue(
        item_ids=catalogue.item_ids[1:],
        titles=taken(catalogue.titles),
        descriptions=taken(catalogue.descriptions),
        categories=taken(catalogue.categories),
        interactions=catalogue.interactions[1:],
    )


def permuted_backbone(backbone: Backbone, order: np.ndarray, texts: Texts) -> Backbone:
    """`backbone` as if items had the texts of others; itself if it reads none.

    Args:
        backbone: a trained one.
        order: whose text each item gets.
        texts: makes q (N+1, d_T).
    """
    if not backbone.reads_texts:
        return backbone
    q_N_T = texts(backbone)
    return backbone.with_texts(q_N_T, q_N_T[torch.from_numpy(order)])


def permuted_aligned(aligned: Aligned, trained: np.ndarray, order: np.ndarray, texts: Texts | None = None) -> Aligned:
    """Stage 1's tables and the backbone, with the texts of other items.

    Args:
        aligned: what stage 1 left.
        trained: (N+1,) items that the backbone was trained on.
        order: whose text each item gets.
        texts: makes q (N+1, d_T) of a backbone that reads texts; without it such a backbone keeps them.
    """
    rows, backbone = torch.from_numpy(order), aligned.backbone
    known = backbone.places(torch.from_numpy(trained))
    item_vectors = aligned.placement.cf_vectors
    if backbone.reads_texts and texts is not None:
        backbone = permuted_backbone(backbone, order, texts)
        item_vectors = backbone.item_vectors.detach().cpu()
    text_vectors = aligned.text_vectors[rows]
    placement = place(aligned.alignment, text_vectors, item_vectors, known)
    tables = {name: table.clone() for name, table in vars(placement).items()}
    for table in tables.values():
        table[PADDING_ITEM] = 0
    return replace(aligned, backbone=backbone, text_vectors=text_vectors, placement=replace(placement, **tables))


def permuted_model(
    model: CatalogueModel, aligned: Aligned, order: np.ndarray, texts: Texts | None = None
) -> CatalogueModel:
    """The trained `model` with the backbone and the tables of `aligned`, whose texts are in `order`.

    Args:
        model: the trained one.
        aligned: what `permuted_aligned` made.
        order: whose text each item gets.
        texts: makes q (N+1, d_T) of a second backbone that reads texts; without it such a backbone keeps them.
    """
    second = model.second
    if second is not None and texts is not None:
        second = permuted_backbone(second, order, texts)
    return replace(
        model.placed(aligned.placement),
        catalogue=permuted_catalogue(model.catalogue, order),
        backbone=aligned.backbone,
        second=second,
        law=None if model.law is None else model.law.with_titles_of(order),
        index=ItemIndex.build(aligned.placement.cf_vectors.cpu().numpy()),
        signals=model.signals.with_texts_of(order),
        title_log_probs=model.title_log_probs[order] if len(model.title_log_probs) else model.title_log_probs,
    )


def permuted_inputs(inputs: Stage2Inputs, aligned: Aligned, model: CatalogueModel) -> Stage2Inputs:
    """What stage 2 started from, with the texts of `aligned`."""
    device = model.cf_vectors.device
    texts = ItemTexts(aligned.text_vectors.to(device), aligned.placement.decoded_text.to(device))
    return replace(inputs, split=replace(inputs.split, catalogue=model.catalogue), model=model, texts=texts)
