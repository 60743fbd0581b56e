"""`make families`: vLLM against plain forward passes, for those of the families that it runs on a CPU.

vLLM takes half a minute to start, so this is no part of `make test`, which does it for OPT alone.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from models.engines.base import LLMEngine
from models.engines.transformers import TransformersEngine, TransformersEngineConfig
from models.engines.vllm import VLLMEngine, VLLMEngineConfig
from models.llm.families import UnsupportedLLMError
from models.llm.forward import embed_tokens
from models.prompts.layout import Prompt
from tests.models.engines.hosting import CONTEXT, END, FIRST_TOKEN, TOKEN_SIZE, VOCABULARY, Reference, log_probs
from tests.models.scoring.families import EXACT, tiny
from tests.tiny import tiny_llm

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": TOKEN_SIZE,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
}
HEADS = {"head_dim": 32}
"""vLLM's attention on a CPU takes heads of 32."""
WINDOW = {"sliding_window": 32}
CASES: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": TOKEN_SIZE, "init_std": 0.2},
    "llama": HEADS,
    "mistral": HEADS | WINDOW,
    "qwen2": {"use_sliding_window": False},
    "qwen3": HEADS | {"use_sliding_window": False},
    "gemma": HEADS,
    "gemma2": HEADS | WINDOW,
    "gemma3_text": HEADS | WINDOW,
    "granite": {},
    "cohere": {"num_key_value_heads": 2},
    "gpt2": {},
    "gpt_neox": {},
    "phi3": {},
    "olmo2": {},
}
REFUSED_BY_VLLM = {"gpt_neox"}
"""vLLM runs them by transformers' code, and is far from it."""
CHOICES = [[10, 11, 12], [10, 11, 13], [10, 14], [10], [20, 11, 12], [30], [30, 11], [30]]
EXACTLY = 1e-3


def save(case: str, directory: Path) -> None:
    """A tiny checkpoint of `case`."""
    model = tiny(case, EXACT[case] | SIZES | CASES[case])
    model.save_pretrained(directory)
    tiny_llm().tokenizer.save_pretrained(directory)


def question(model: Any, length: int, slots: int) -> Prompt:
    """Random tokens, and injected ones as long as those that the LLM has."""
    rng = np.random.default_rng(length)
    positions = np.sort(rng.choice(length, slots, replace=False))
    soft_S_H = embed_tokens(model, torch.from_numpy(rng.integers(FIRST_TOKEN, VOCABULARY, slots))).flip(1)
    return Prompt(rng.integers(FIRST_TOKEN, VOCABULARY, length), positions, soft_S_H)


async def compare(engine: LLMEngine, reference: Reference) -> float:
    """The largest difference in log-probability."""
    await engine.start()
    try:
        worst = 0.0
        for length, slots in ((9, 2), (97, 5), (200, 20), (150, 0)):
            prompt = question(reference.model, length, slots)
            found = await log_probs(engine, prompt, CHOICES)
            worst = max(worst, float(np.abs(found - reference.log_probs(prompt, CHOICES, END)).max()))
        return worst
    finally:
        await engine.close()


def main(cases: list[str]) -> int:
    """Print a row for each case; the exit status is how many of them differ."""
    failures = 0
    for case in cases or CASES:
        with TemporaryDirectory() as directory:
            save(case, Path(directory))
            reference = Reference(Path(directory))
            engines = (
                TransformersEngine(TransformersEngineConfig(llm=directory, workers=1)),
                VLLMEngine(VLLMEngineConfig(llm=directory, dtype="float32")),
            )
            for engine in engines:
                try:
                    error = asyncio.run(compare(engine, reference))
                    said, right = f"{error:.1e}", error < EXACTLY
                except UnsupportedLLMError as refusal:
                    said, right = f"refused: {refusal}", case in REFUSED_BY_VLLM and isinstance(engine, VLLMEngine)
                failures += not right
                sys.stdout.write(f"{case:<12} {type(engine).__name__:<18} {said}\n")
                sys.stdout.flush()
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
