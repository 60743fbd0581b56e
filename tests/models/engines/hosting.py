"""Engines to test: a small random OPT on disk, each engine running in an event loop of its own, and a reference."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from transformers import AutoModelForCausalLM, OPTConfig, OPTForCausalLM

from models.engines.base import LLMEngine
from models.prompts.layout import Prompt
from models.scoring.choices import ChoiceTrie
from tests.tiny import tiny_llm

Result = TypeVar("Result")

TOKEN_SIZE = 64
CONTEXT = 256
FIRST_TOKEN, VOCABULARY = 3, 320
END = 5


def save_small_opt(directory: Path) -> Path:
    """A random OPT whose heads (of 32) vLLM's CPU attention takes, with weights large enough to have opinions."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=TOKEN_SIZE,
        word_embed_proj_dim=TOKEN_SIZE,
        num_hidden_layers=3,
        num_attention_heads=2,
        ffn_dim=128,
        max_position_embeddings=CONTEXT,
        init_std=0.2,
        dropout=0.0,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
    )
    OPTForCausalLM(config).save_pretrained(directory)
    tiny_llm().tokenizer.save_pretrained(directory)
    return directory


def engine_processes() -> list[psutil.Process]:
    """This process's children that host an engine. Others leave processes of their own, and what has ended."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if lives(child) and "models.engines.host" in child.cmdline():
                found.append(child)
    return found


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended. One that has, and that its parent has not looked at yet, is a zombie."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class Hosted:
    """An engine and the loop it lives in, for tests that are not coroutines."""

    def __init__(self, engine: LLMEngine, runner: asyncio.Runner) -> None:
        self.engine = engine
        self._runner = runner

    def run(self, scenario: Awaitable[Result]) -> Result:
        """Run `scenario` to its end in the engine's loop."""

        async def main() -> Result:
            return await scenario

        return self._runner.run(main())

    def log_probs(self, prompt: Prompt, choices: Sequence[Sequence[int]]) -> np.ndarray:
        """(K,) log-probabilities of `choices` by the engine."""
        return self.run(log_probs(self.engine, prompt, choices))


async def log_probs(engine: LLMEngine, prompt: Prompt, choices: Sequence[Sequence[int]]) -> np.ndarray:
    """(K,) log-probabilities of `choices`, asked of `engine`."""
    trie = ChoiceTrie(choices, END)
    return trie.log_probs(await engine.score(prompt, trie))


def make_prompt(length: int, slots: int = 3, seed: int = 0) -> Prompt:
    """A prompt of random tokens with random soft tokens in it."""
    rng = np.random.default_rng(seed)
    positions = np.sort(rng.choice(length, slots, replace=False))
    soft_tokens = torch.from_numpy(rng.normal(size=(slots, TOKEN_SIZE)).astype(np.float32))
    return Prompt(rng.integers(FIRST_TOKEN, VOCABULARY, length), positions, soft_tokens)


class Reference:
    """Choice scoring by brute force: constrained decoding over the full trie, one plain forward pass a token."""

    def __init__(self, checkpoint: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager").eval()

    @torch.inference_mode()
    def embed(self, prompt: Prompt, path: Sequence[int] = ()) -> torch.Tensor:
        """Inputs (1, L, D) of the prompt followed by `path`."""
        embeddings = self.model.get_input_embeddings()
        embeds = embeddings(torch.tensor([*prompt.token_ids.tolist(), *path])).clone()
        for position, token in zip(prompt.soft_positions, prompt.soft_tokens, strict=True):
            embeds[position] = token
        return embeds[None]

    @torch.inference_mode()
    def log_probs(self, prompt: Prompt, choices: Sequence[Sequence[int]], end: int = END) -> np.ndarray:
        """(K,) log-probabilities; equal choices share theirs equally."""
        sequences = [(*choice, end) for choice in choices]
        nodes: dict[tuple[int, ...], torch.Tensor] = {}
        result = []
        for sequence in sequences:
            total = -np.log(sequences.count(sequence))
            for depth, token in enumerate(sequence):
                path = sequence[:depth]
                if path not in nodes:
                    nodes[path] = self.model(inputs_embeds=self.embed(prompt, path)).logits[0, -1].double()
                allowed = sorted({other[depth] for other in sequences if other[:depth] == path})
                restricted = torch.log_softmax(nodes[path][allowed], dim=0)
                total += float(restricted[allowed.index(token)])
            result.append(total)
        return np.asarray(result)

    @torch.inference_mode()
    def token_log_probs(self, prompt: Prompt, string: Sequence[int]) -> np.ndarray:
        """(X,) log-probabilities of the tokens of `string` over the whole vocabulary, one forward pass a token."""
        logits = [
            self.model(inputs_embeds=self.embed(prompt, string[:end])).logits[0, -1] for end in range(len(string))
        ]
        table = torch.stack(logits).double().log_softmax(dim=1)
        return table[range(len(string)), list(string)].numpy()

    @torch.inference_mode()
    def state(self, prompt: Prompt) -> np.ndarray:
        """(H,) the last hidden state behind the prompt's last token."""
        output = self.model(inputs_embeds=self.embed(prompt), output_hidden_states=True)
        return output.hidden_states[-1][0, -1].numpy()

    @torch.inference_mode()
    def continuation(self, prompt: Prompt, tokens: int) -> list[int]:
        """The greedy continuation, decoded without a cache."""
        path: list[int] = []
        for _ in range(tokens):
            path.append(int(self.model(inputs_embeds=self.embed(prompt, path)).logits[0, -1].argmax()))
        return path
