"""Ranking candidates: the published way, our transformers engine and our vLLM engine, in one run.

The variants take turns, round by round, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.load import Run, closed_loop
from benchmarks.prefill import matmul_ceiling, prompt_flops
from benchmarks.published import match, write_titles
from benchmarks.questions import Asked
from models.composer import Question
from models.engines.base import LLMEngine
from models.engines.transformers import TransformersEngine, TransformersEngineConfig
from models.engines.vllm import VLLMEngine, VLLMEngineConfig
from models.llm.loading import LanguageModel, load_llm

PUBLISHED, TRANSFORMERS, VLLM = "published", "transformers", "vllm"
UNTIMED_ROUNDS = 8
GPU_SHARE = 0.4
"""Of a GPU's memory that vLLM has: the others' LLM lies there too."""


async def measure(
    config: TransformersEngineConfig,
    ask: Callable[[int], list[Asked]],
    concurrencies: Sequence[int],
    rounds: int,
    untimed_rounds: int,
    with_vllm: bool,
) -> list[dict[str, Any]]:
    """One row for each variant and concurrency.

    Args:
        config: LLM, device and dtype, of all variants.
        ask: the questions of a round, by its number. No prompt comes twice: a prefix cache would know it.
        concurrencies: clients at a time.
        rounds: counted rounds at each concurrency, after one to warm up.
        untimed_rounds: rounds before, which are asked what the published way writes.
        with_vllm: whether vLLM is there.
    """
    llm, dtype = config.llm, config.dtype
    model = load_llm(llm, config.device, getattr(torch, dtype))
    engines: dict[str, LLMEngine] = {TRANSFORMERS: TransformersEngine(config, model)}
    if with_vllm:
        engines[VLLM] = VLLMEngine(VLLMEngineConfig(llm=llm, dtype=dtype, gpu_memory_utilization=GPU_SHARE))
    rows = []
    try:
        for engine in engines.values():
            await engine.start()
        ceiling = matmul_ceiling(dtype, torch.device(config.device).type)
        untimed = [each for round_ in range(untimed_rounds) for each in ask(round_)]
        flops = float(np.mean([prompt_flops(llm, each.question) for each in untimed]))
        agreement = await _agreement(model, engines, untimed)
        for level, concurrency in enumerate(concurrencies):
            runs = {name: Run() for name in (PUBLISHED, *engines)}
            for round_ in range(rounds + 1):
                asked = ask(untimed_rounds + level * (rounds + 1) + round_)
                for name, run in runs.items():
                    counted = run if round_ else Run()  # the first round warms up
                    if name == PUBLISHED:
                        _published(counted, model, asked, concurrency)
                    else:
                        await _engine(counted, engines[name], asked, concurrency)
            base = np.asarray(runs[PUBLISHED].rates)
            for name, run in runs.items():
                speed_up = float(np.median(np.asarray(run.rates) / base))
                summary = run.summary()
                share = summary["per_second"] * flops / ceiling
                row = {"variant": name, "dtype": dtype, "concurrency": concurrency, **summary}
                row |= {"x published": round(speed_up, 2), "of matmul ceiling": round(share, 3)}
                rows.append({**row, **agreement[name]})
    finally:
        for engine in engines.values():
            await engine.close()
    return rows


def _published(run: Run, model: LanguageModel, asked: Sequence[Asked], concurrency: int) -> None:
    """The clients' questions in one left-padded batch, its best case."""
    latencies: list[float] = []
    started = time.perf_counter()
    for first in range(0, len(asked), concurrency):
        batch = asked[first : first + concurrency]
        batch_started = time.perf_counter()
        texts = write_titles(model, [each.question.prompt for each in batch])
        for text, each in zip(texts, batch, strict=True):
            match(text, each.titles)
        latencies += [time.perf_counter() - batch_started] * len(batch)
    run.add(time.perf_counter() - started, latencies)


async def _engine(run: Run, engine: LLMEngine, asked: Sequence[Asked], concurrency: int) -> None:
    await closed_loop(run, concurrency, [each.question for each in asked], lambda question: rank(engine, question))


async def rank(engine: LLMEngine, question: Question) -> np.ndarray:
    """(K,) log-probabilities of the choices."""
    logits = await engine.score(question.prompt, question.trie)
    return question.log_probs(logits)


async def _agreement(
    model: LanguageModel, engines: dict[str, LLMEngine], asked: Sequence[Asked]
) -> dict[str, dict[str, float | None]]:
    """How often the written text is a candidate at all, and how often an engine's best is the one that was written."""
    written = [match(write_titles(model, [each.question.prompt])[0], each.titles) for each in asked]
    named = [(row, first) for row, first in enumerate(written) if first is not None]
    result: dict[str, dict[str, float | None]] = {
        PUBLISHED: {"names a candidate": round(len(named) / len(asked), 3), "agrees with published": None}
    }
    for name, engine in engines.items():
        best = [int((await rank(engine, each.question)).argmax()) for each in asked]
        same = [asked[row].titles[best[row]] == asked[row].titles[first] for row, first in named]
        result[name] = {
            "names a candidate": 1.0,
            "agrees with published": round(float(np.mean(same)), 3) if same else None,
        }
    return result
