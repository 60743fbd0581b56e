"""How long an LLM takes to say how likely each of some titles follows a user's, by the engine that serves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.domain import DOMAINS
from models.engines.transformers import TransformersEngine, TransformersEngineConfig
from models.prompts.layout import Prompt
from models.prompts.title_list import TitleListConfig
from models.scoring.likelihood import ContinuationTree
from models.title_lists import TitleLists
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit

NOTHING = torch.zeros(0, 0)


class Readers:
    """Users and titles of a catalogue, as an LLM is asked about them.

    Args:
        dataset: an imported one.
        seed: draws users and candidates.
    """

    def __init__(self, dataset: Path, seed: int) -> None:
        loaded = Dataset.load(dataset)
        self._domain, self._split = DOMAINS[loaded.info.domain], SequenceSplit.from_dataset(loaded)
        self._seed = seed

    def questions(
        self, engine: TransformersEngine, shown: TitleListConfig, users: int, candidates: int
    ) -> list[tuple[Prompt, ContinuationTree]]:
        """Lists of users' titles, each with random titles that may follow."""
        rng = np.random.default_rng(self._seed)
        titles = self._split.catalogue.titles
        lists = TitleLists(titles, engine.tokenizer, shown, self._domain, engine.context_length)
        asked = []
        for user in rng.choice(len(self._split), users, replace=False):
            ids = lists.after(self._split.history(int(user), Holdout.TEST).tolist())
            drawn = 1 + rng.choice(len(self._split.catalogue), candidates, replace=False)
            asked.append((Prompt(ids, np.zeros(0, dtype=np.int64), NOTHING), lists.tree(drawn)))
        return asked


async def measure(
    config: TransformersEngineConfig, readers: Readers, lengths: Sequence[int], users: int, candidates: int
) -> list[dict[str, Any]]:
    """One user after the other, titles cut to each of `lengths` tokens; the first, uncounted, is asked twice."""
    engine = TransformersEngine(config)
    await engine.start()
    rows = []
    try:
        for length in lengths:
            shown = TitleListConfig(max_title_tokens=length, history_title_tokens=length, vocabulary="catalogue")
            asked = readers.questions(engine, shown, users, candidates)
            await engine.score(*asked[0])
            seconds = []
            for prompt, tree in asked:
                started = time.perf_counter()
                await engine.score(prompt, tree)
                seconds.append(time.perf_counter() - started)
            rows.append(
                {
                    "tokens a title": length,
                    "workers": config.workers,
                    "dtype": config.dtype,
                    "prompt tokens": round(float(np.mean([len(prompt.token_ids) for prompt, _ in asked]))),
                    "tokens of candidates": round(float(np.mean([len(tree.branches) for _, tree in asked]))),
                    "p50_s": round(float(np.median(seconds)), 2),
                    "p90_s": round(float(np.percentile(seconds, 90)), 2),
                }
            )
    finally:
        await engine.close()
    return rows
