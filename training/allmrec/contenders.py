"""A-LLMRec as a contender: its rankers, those of its parts, and its retrievers, for an evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from models.bundle.blend import Blends
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.engines.base import LLMEngine
from models.engines.remembering import remembering
from models.engines.transformers import in_process
from models.prompts.layout import Injection
from models.rankers.base import Ranker
from models.rankers.blend import BlendRanker, by_id
from models.rankers.collaborative import CollaborativeRanker
from models.rankers.llm import LLMRanker
from models.rankers.of_model import CHOICES, ENCODER, INJECTED, TITLES, constants_of, llm_signals, signals_of
from models.rankers.title_likelihood import (
    InjectedTitleRanker,
    PlainTitleRanker,
    TitleLikelihoodRanker,
    title_priors,
)
from models.rankers.user_encoder import UserEncoderRanker
from models.recommending.serving import Serving
from models.recommending.shortlist import ListRanker
from models.threads import one_thread
from training.allmrec.blend.choice import fit_blends
from training.allmrec.blend.config import BlendConfig
from training.allmrec.genre_blend import fit_genre_blends
from training.allmrec.genres import UNWEIGHED, GenreQuiz, genre_agreement, genre_foresight, genre_guesses
from training.allmrec.permuted import Texts, permuted_aligned, permuted_inputs, permuted_model, text_order
from training.allmrec.retrieval import RetrievalConfig, choose_retrieval
from training.allmrec.stage1.aligned import Aligned
from training.allmrec.stage2.approach import approach_of
from training.allmrec.stage2.inputs import Stage2Inputs
from training.evaluation.corrected import CorrectedRanker
from training.evaluation.evaluate import Field, GenreShares
from training.evaluation.retrieval import FinderRetriever, IndexRetriever, Retriever


class Contenders:
    """What there is to compare once stage 2 is done.

    Args:
        inputs: what stage 2 started from.
        aligned: what stage 1 left.
        model: with trained projections.
        ways: in which the LLM is asked, ids of `models.rankers.of_model.WAYS`.
        blends: once they are fitted.
        answers: a file that keeps what the LLM said, so that nothing is asked twice; None: nothing is kept.
        texts: makes the text vectors (N+1, d_T) of a backbone that reads texts.
    """

    def __init__(
        self,
        inputs: Stage2Inputs,
        aligned: Aligned,
        model: CatalogueModel,
        ways: Sequence[str] = (CHOICES,),
        blends: Blends | None = None,
        answers: Path | None = None,
        texts: Texts | None = None,
    ) -> None:
        self._inputs, self._aligned, self._model, self._blends = inputs, aligned, model, blends
        self._ways, self._answers, self._texts = ways, answers, texts
        self._composer = inputs.composer(model)
        self._approach = approach_of(inputs.llm)
        self._finder = None if blends is None else ListRanker(model, blends)

    @asynccontextmanager
    async def _engine(self) -> AsyncIterator[LLMEngine]:
        """The LLM, with what it said before."""
        llm = self._inputs.llm
        async with in_process(llm) as engine, remembering(engine, self._answers, llm.precision) as remembers:
            yield remembers

    @asynccontextmanager
    async def among(self, others: Sequence[Ranker]) -> AsyncIterator[Field]:
        """All rankers, `others` first, for as long as the LLM's engine runs."""
        async with self._engine() as engine:
            own = self._own(engine)
            blends = [ranker for ranker in own if ranker.id == "blend"]
            yield Field(
                rankers=[*others, *own],
                reference=self._model.backbone.kind,
                retrievers=self._retrievers(),
                default="llm" if self._blends is not None else self._ways[0],
                serving=Serving(self._model, self._fallback(), finder=self._finder),
                corrected=[CorrectedRanker(blend, self._model.catalogue.interactions) for blend in blends],
                permuted=lambda: self.permuted()._own(engine),
            )

    def fit_blends(self, config: BlendConfig, retrieval: RetrievalConfig) -> Blends:
        """Both blends, on validation users, and where they are given their candidates from."""

        async def fit() -> Blends:
            async with self._engine() as engine:
                llm = llm_signals(engine, self._composer, self._ways)
                blends = await fit_blends(self._inputs.split, signals_of(self._model), llm, config)
                genres = await fit_genre_blends(self._inputs.split, self._composer, engine, config.genres)
                return blends.model_copy(update={"genres": genres})

        with one_thread():
            blends = asyncio.run(fit())
            chosen = choose_retrieval(self._inputs.split, self._model, blends, retrieval)
        return blends.model_copy(update={"retrieval": chosen})

    def title_priors(self) -> np.ndarray:
        """(N+1,) float32 log P(title) of all items by the LLM."""

        async def ask() -> np.ndarray:
            async with self._engine() as engine:
                return await title_priors(engine, self._composer)

        with one_thread():
            return asyncio.run(ask())

    def permuted(self, seed: int = 0) -> Contenders:
        """The same with the texts permuted among the items, nothing trained again."""
        order = text_order(len(self._model.catalogue), seed)
        aligned = permuted_aligned(self._aligned, self._model.catalogue.trained, order, self._texts)
        model = permuted_model(self._model, aligned, order, self._texts)
        inputs = permuted_inputs(self._inputs, aligned, model)
        return Contenders(inputs, aligned, model, self._ways, self._blends, self._answers)

    async def genres(self, users: int, seed: int) -> GenreShares:
        """How often each way of guessing names a user's favourite genre, and one of the next item."""
        quiz = GenreQuiz.of(self._inputs.split, users, seed, UNWEIGHED)
        blends = None if self._blends is None else self._blends.genres
        async with self._engine() as engine:
            reader = self._approach.genre_reader(self._model)
            guesses = await genre_guesses(quiz, self._model, self._composer, engine, reader, blends)
        foresight = genre_foresight(quiz, self._model.catalogue, guesses, seed)
        return GenreShares(genres=genre_agreement(quiz, guesses, seed), next_genres=foresight)

    def _own(self, engine: LLMEngine) -> list[Ranker]:
        """All of them."""
        signals = self._signals()
        told = {ranker.id for ranker in signals}
        readers = [ranker for ranker in self._approach.readers(self._composer) if ranker.id not in told]
        llm = self._llm_variants(engine, told | {ranker.id for ranker in readers})
        constants = constants_of(self._model)
        return [
            self._collaborative(),
            *signals,
            *constants,
            *readers,
            *llm,
            *self._blended([*constants, *llm]),
        ]

    def _fallback(self) -> Ranker:
        """How serving orders what it retrieved before an LLM is asked: by the blend without it, once there is one."""
        model = self._model
        if self._blends is not None:
            signals = by_id(self._signals())
            return BlendRanker("blend", "Blend", self._blends.blend, signals, model.catalogue.interactions)
        numbers_of = model.histories.numbers_of
        read = model.cf_vectors
        return CollaborativeRanker("index", "Bundle index", model.backbone, read, read, numbers_of)

    def _collaborative(self) -> Ranker:
        """The backbone with the vectors that it was trained with: what one would have without stage 1.

        Items that it met only as negatives keep its own vectors there.
        """
        backbone, numbers_of = self._model.backbone, self._model.histories.numbers_of
        return CollaborativeRanker(backbone.kind, type(backbone).__name__, backbone, numbers_of=numbers_of)

    def _signals(self) -> Sequence[Ranker]:
        """Signals without an LLM."""
        return signals_of(self._model)

    def _blended(self, beside: Sequence[Ranker]) -> list[Ranker]:
        """The two blends, if they are fitted, of the signals and what is `beside` them."""
        if self._blends is None:
            return []
        rankers, interactions = by_id([*self._signals(), *beside]), self._model.catalogue.interactions
        return [
            BlendRanker("blend", "Blend without the LLM", self._blends.blend, rankers, interactions),
            BlendRanker("llm", "Blend with the LLM", self._blends.llm, rankers, interactions),
        ]

    def _llm_variants(self, engine: LLMEngine, readers: set[str]) -> list[Ranker]:
        """The method with its ablations (Table 9), and what else is asked: those of the ways that are fitted."""

        def reads(name: str) -> str | None:
            return name if name in readers else None

        parts = engine, self._composer
        others: list[Ranker] = [TitleLikelihoodRanker(*parts)] if TITLES in self._ways else []
        others += [PlainTitleRanker(*parts), InjectedTitleRanker(*parts)] if INJECTED in self._ways else []
        others += [UserEncoderRanker(*parts)] if ENCODER in self._ways else []
        if CHOICES not in self._ways:
            return others
        return [
            *others,
            LLMRanker("llm_only", "LLM-Only", *parts, injection=Injection.NONE),
            LLMRanker("allmrec_no_user", "A-LLMRec, no user token", *parts, injection=Injection.ITEMS),
            LLMRanker("allmrec", "A-LLMRec", *parts, reads=reads("tokens")),
            LLMRanker("allmrec_text", "A-LLMRec (text encoder)", *parts, text_only=True, reads=reads("tokens_text")),
        ]

    def _retrievers(self) -> list[Retriever]:
        model, backbone = self._model, self._model.backbone
        numbers_of = model.histories.numbers_of
        own = ItemIndex.build(backbone.item_vectors.detach().cpu().numpy())
        served = [] if self._finder is None else [FinderRetriever("served", "As served", model, self._finder)]
        return [
            IndexRetriever(backbone.kind, type(backbone).__name__, backbone, own, numbers_of=numbers_of),
            IndexRetriever("index", "Bundle index", backbone, model.index, model.cf_vectors, numbers_of),
            *served,
        ]
