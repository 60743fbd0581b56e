"""How genres are named with a bundle: weights fitted on validation users, all ways of guessing measured on others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle.blend import GenreBlends
from models.bundle.store import Bundle, load_bundle
from models.composer import PromptComposer
from models.engines.transformers import in_process
from models.llm.loading import load_llm
from training.allmrec.genre_blend import GenreBlendConfig, fit_genre_blends
from training.allmrec.genres import (
    BLENDED,
    BLENDED_WITH_LLM,
    UNWEIGHED,
    GenreQuiz,
    genre_agreement,
    genre_foresight,
    genre_guesses,
)
from training.data.dataset import Dataset
from training.data.splits import SequenceSplit
from training.evaluation.report import interval


def measure(bundle: Path, dataset: Path, users: int, seed: int) -> list[dict[str, Any]]:
    """One row a way of guessing.

    Args:
        bundle: one that was not fitted again on all interactions.
        dataset: what it was fitted on.
        users: at most so many are fitted on, and as many others measured.
        seed: draws them.
    """
    loaded, split = load_bundle(bundle), SequenceSplit.from_dataset(Dataset.load(dataset))
    if loaded.manifest.refitted:
        raise SystemExit(f"{bundle}: was fitted on the test items, too; export it with --set refit=false")
    blends, quiz, guesses = asyncio.run(_guess(loaded, split, users, seed))
    right, foreseen = genre_agreement(quiz, guesses), genre_foresight(quiz, split.catalogue, guesses)
    weights = {} if blends is None else {BLENDED: blends.blend, BLENDED_WITH_LLM: blends.llm}
    return [
        {
            "guess": name,
            "favourite": interval(right[name]),
            "genre of the next item": interval(foreseen[name]),
            "weights": ", ".join(f"{each.id} {each.weight:.2f}" for each in weights[name].signals)
            if name in weights
            else None,
        }
        for name in guesses
    ]


async def _guess(
    bundle: Bundle, split: SequenceSplit, users: int, seed: int
) -> tuple[GenreBlends | None, GenreQuiz, dict[str, np.ndarray]]:
    llm = load_llm(bundle.manifest.llm.name)
    composer = PromptComposer(bundle.model, bundle.manifest.prompt, llm.tokenizer, llm.context_length)
    quiz = GenreQuiz.of(split, users, seed, UNWEIGHED)
    async with in_process(llm) as engine:
        blends = await fit_genre_blends(split, composer, engine, GenreBlendConfig(users=users, seed=seed))
        return blends, quiz, await genre_guesses(quiz, bundle.model, composer, engine, None, blends)
