"""MLP-LLM (A-LLMRec section 5.1.3): both alignment stages are replaced by MLPs from the frozen CF vectors to the LLM.

Axes: N items, D CF size d.
"""

from __future__ import annotations

from dataclasses import replace

from models.alignment.projection import TokenProjector
from models.bundle.catalogue_model import CatalogueModel
from models.composer import PromptComposer
from models.errors import DataError
from models.histories import UserHistories
from models.rankers.base import Ranker
from models.rankers.llm import LLMRanker
from training.allmrec.placing import blank_model
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.stage import train_stage2
from training.baselines.bench import Bench
from training.baselines.port import Fitted, Shop, system


@system("mlp_llm", "MLP-LLM", takes="CF backbone, frozen LLM", asks_llm=True)
def mlp_llm(bench: Bench) -> Fitted:
    """Stage 2 on CF vectors: the same prompts, losses and budget. Texts reach the LLM as titles alone."""
    model, llm = trained(bench), bench.llm

    def ranker(shop: Shop) -> Ranker:
        if shop.foreign:
            raise DataError("MLP-LLM knows items by their CF vectors alone, and another catalogue's have none")
        composer = PromptComposer(model, shop.prompt, llm.tokenizer, llm.context_length)
        return LLMRanker("mlp_llm", "MLP-LLM", shop.required_engine, composer)

    return ranker


def trained(bench: Bench) -> CatalogueModel:
    """The backbone's vectors as the LLM is told of them, with trained projections."""
    backbone = bench.backbone
    vectors_N_D = backbone.item_vectors.detach().clone()
    blank = blank_model(bench.split.catalogue, bench.llm.token_size)
    device = bench.recipe.stage2.device
    histories = [bench.split.full_history(user) for user in range(len(bench.split))]
    model = replace(
        blank,
        histories=UserHistories(bench.split.user_ids, histories),
        backbone=backbone.to(device),
        cf_vectors=vectors_N_D.to(device),
        joint_item=vectors_N_D.to(device),
        joint_text=vectors_N_D.to(device),
        joint_genre=bench.split.catalogue.genre_centroids(vectors_N_D).to(device),
        projector=TokenProjector(vectors_N_D.shape[1], vectors_N_D.shape[1], bench.llm.token_size).to(device),
    )
    texts = ItemTexts(bench.text_vectors().to(device), model.cf_vectors)
    inputs = Stage2Inputs(bench.split, model, texts, bench.llm, bench.prompt)
    config = without_texts(bench.recipe.stage2)
    fingerprints = {"backbone": bench.output("backbone"), **bench.llm.identity}
    return bench.stage("mlp_llm", config, fingerprints, lambda run: train_stage2(inputs, config, run))


def without_texts(config: Stage2Config) -> Stage2Config:
    """Stage 2 whose warm start takes nothing from texts: of these the CF vectors know nothing."""
    warm_start = config.warm_start.model_copy(update={"similarity": False, "series": False})
    return config.model_copy(update={"warm_start": warm_start})
