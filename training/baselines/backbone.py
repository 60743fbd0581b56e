"""The collaborative-filtering backbone by itself: NCF, NextItNet, GRU4Rec, SASRec, by the recipe's `backbone.kind`."""

from __future__ import annotations

import torch

from models.rankers.base import Ranker
from models.rankers.collaborative import CollaborativeRanker
from training.baselines.bench import Bench
from training.baselines.port import Fitted, Shop, system


@system("backbone", "CF backbone", takes="interactions")
def backbone(bench: Bench) -> Fitted:
    """x_u . E_i. Items of another catalogue have vectors as before training: it can only guess there."""
    trained = bench.backbone

    def ranker(shop: Shop) -> Ranker:
        vectors = None
        if shop.foreign:
            generator = torch.Generator().manual_seed(bench.recipe.seed)
            vectors = torch.randn(len(shop.catalogue) + 1, trained.embedding_size, generator=generator)
            vectors = vectors.to(trained.device)
        numbers_of = None if shop.foreign else bench.split.numbers_of
        return CollaborativeRanker("backbone", type(trained).__name__, trained, vectors, vectors, numbers_of)

    return ranker
