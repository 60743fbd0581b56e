"""The blend without an LLM, fitted and evaluated with a seed: minutes, where a whole fit takes an hour of one core."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from models.alignment.projection import TokenProjector
from models.backbones import Backbone
from models.backbones.hybrid import HybridConfig
from models.bundle.blend import Blends
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.histories import UserHistories
from models.rankers.base import Ranker
from models.rankers.blend import BlendRanker, by_id
from models.rankers.collaborative import CollaborativeRanker
from models.rankers.of_model import signals_of
from models.recommending.serving import Serving
from models.recommending.shortlist import ListRanker
from models.threads import one_thread
from training.allmrec.blend.config import BlendConfig
from training.allmrec.blend.fit import BlendFit
from training.allmrec.blend.scored import score_signals
from training.allmrec.retrieval import RetrievalConfig, choose_retrieval
from training.allmrec.signals import SignalsConfig, build_signals
from training.backbones.config import BackboneTrainingConfig
from training.backbones.texts import item_text_vectors
from training.backbones.train import train_backbone
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.corrected import CorrectedRanker
from training.evaluation.evaluate import EvaluationConfig, Field, Occasion, evaluate
from training.evaluation.held_out import HeldOut
from training.evaluation.report import write_report
from training.evaluation.retrieval import FinderRetriever, IndexRetriever
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun


@dataclass(frozen=True)
class Settings:
    """What is the same for all seeds.

    Attributes:
        preset: of the backbone that the blend has.
        second: preset of another one that the blend has; empty for none.
        opponent: preset of an id-only backbone, with which all are compared.
        loop: of each.
        users: who are ranked for on test items, evenly spread.
    """

    preset: str
    second: str
    opponent: str
    loop: LoopConfig
    users: int


def fit_and_evaluate(dataset: Path, settings: Settings, directory: Path, seed: int) -> Path:
    """Fit backbones and blend, evaluate all on test items, and return the evaluation's folder.

    Args:
        dataset: an imported one.
        settings: of all seeds.
        directory: of this seed; what was trained there before is not trained again.
        seed: of everything random.
    """
    split = SequenceSplit.from_dataset(Dataset.load(dataset))
    backbones = {}
    for name in filter(None, (settings.opponent, settings.preset, settings.second)):
        own_seed = seed + (name == settings.second)
        config = BackboneTrainingConfig(presets=(name,), loop=settings.loop, seed=own_seed)
        run = StageRun(directory / name, config, own_seed, {"dataset": str(dataset)})
        backbones[name] = train_backbone(split, config, run)
    reading = HybridConfig(num_items=len(split.catalogue), word_directions=SignalsConfig().word_directions)
    texts = item_text_vectors(split.catalogue, reading, directory.parent / "texts").numpy()
    model = bare_model(split, backbones[settings.preset], texts, backbones.get(settings.second))
    blends = _fit(split, model, seed)
    config = EvaluationConfig(users=settings.users, seed=seed)
    inputs = {"dataset": str(dataset), "blends": blends.model_dump_json()}
    run = StageRun(directory / "evaluation", config, seed, inputs)
    if not run.is_done:
        run.start()
        occasion = Occasion(
            HeldOut.of(split, Holdout.TEST, seed), HeldOut.of(split, Holdout.VALIDATION, seed, settings.users)
        )
        report = evaluate(occasion, _field(model, backbones[settings.opponent], blends), config, run)
        name = Dataset.load(dataset).info.name
        write_report(report.model_copy(update={"dataset": name, "llm": "none"}), run.directory)
        run.finish({"retrieval": blends.retrieval.model_dump(mode="json"), "blend": blends.blend.model_dump()})
    return run.directory


def bare_model(
    split: SequenceSplit, backbone: Backbone, texts: object, second: Backbone | None = None
) -> CatalogueModel:
    """What a blend without an LLM is computed from; all that only an LLM reads is empty."""
    vectors = backbone.item_vectors.detach()
    nothing = torch.zeros(len(vectors), 0)
    return CatalogueModel(
        catalogue=split.catalogue,
        histories=UserHistories.nobody(),
        backbone=backbone,
        cf_vectors=vectors,
        joint_item=nothing,
        joint_text=nothing,
        joint_genre=nothing[:0],
        projector=TokenProjector(vectors.shape[1], 1, 1),
        index=ItemIndex.build(vectors.numpy()),
        alignment={},
        signals=build_signals(split, texts, SignalsConfig()),
        second=second,
    )


def _fit(split: SequenceSplit, model: CatalogueModel, seed: int) -> Blends:
    config = BlendConfig(seed=seed)
    with one_thread():
        scored = asyncio.run(score_signals(split, signals_of(model), config.users, config.draws, config.seed))
        blend = BlendFit(scored, config).fit()
        blends = Blends(blend=blend, llm=blend, llm_lift=None)
        retrieval = choose_retrieval(split, model, blends, RetrievalConfig())
    return blends.model_copy(update={"retrieval": retrieval})


@asynccontextmanager
async def _field(model: CatalogueModel, opponent: Backbone, blends: Blends) -> AsyncIterator[Field]:
    signals = signals_of(model)
    blend = BlendRanker("blend", "Blend without the LLM", blends.blend, by_id(signals), model.catalogue.interactions)
    lists = ListRanker(model, blends)
    own = ItemIndex.build(opponent.item_vectors.detach().numpy())
    rankers: Sequence[Ranker] = [
        CollaborativeRanker(opponent.kind, type(opponent).__name__, opponent),
        CollaborativeRanker(model.backbone.kind, type(model.backbone).__name__, model.backbone),
        *signals[1:],
        blend,
    ]
    yield Field(
        rankers=rankers,
        reference=opponent.kind,
        default="blend",
        retrievers=[
            IndexRetriever(opponent.kind, type(opponent).__name__, opponent, own),
            IndexRetriever("index", "Bundle index", model.backbone, model.index),
            FinderRetriever("served", "As served", model, lists),
        ],
        serving=Serving(model, blend, finder=lists),
        corrected=[CorrectedRanker(blend, model.catalogue.interactions)],
    )
