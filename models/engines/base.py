"""The port through which everything online asks the LLM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import numpy as np
import torch

from models.errors import ClientError
from models.prompts.layout import Prompt
from models.scoring.choices import Branching, ChoiceTrie


class InvalidPromptError(ClientError):
    """A prompt that no engine can run: empty, over the context, or with soft tokens of another size."""


class LLMEngine(Protocol):
    """A frozen LLM that scores choices, encodes prompts and writes text.

    Implementations give the same numbers (1e-3 in fp32), or refuse.

    Attributes:
        tokenizer: the LLM's fast tokenizer.
        token_size: d_tok.
        context_length: in tokens.
        fingerprint: the LLM's identity, see `models.llm.checkpoint.fingerprint`. Known after `start`.
        depth: how many requests keep it busy: those it works on and those it takes next. More only wait.
    """

    tokenizer: Any
    token_size: int
    context_length: int
    fingerprint: str
    depth: int

    @property
    def healthy(self) -> bool:
        """Whether requests can be served now."""

    async def start(self) -> None:
        """Load the LLM and warm it up: the first request is as fast as the next."""

    async def close(self) -> None:
        """Stop serving and free the LLM. Waiting requests fail with `EngineError`."""

    async def score(self, prompt: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:
        """The (C,) logits of every branch's children, for `log_probs` of `trie`. Cancelling the call frees its work.

        Args:
            prompt: what precedes the choices.
            trie: the choices (`ChoiceTrie`), or strings whose likelihood is asked for (`ContinuationTree`).
            due: when the answer is needed, in seconds of `time.perf_counter`. It is not begun after that, and kept out
                of batches that would take longer. None: whenever it comes.

        Raises:
            InvalidPromptError: see there.
            OverloadedError: too many requests are waiting, or it could not be begun by `due`.
            EngineError: the engine failed.
        """

    async def encode(self, prompt: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:
        """The last hidden states (P, H) float32 at P places of `prompt`, those that the LLM's head takes.

        Args:
            prompt: what is read.
            places: (P,) positions of it.
            due: as of `score`.

        Raises:
            ConfigError: the engine cannot say.
            InvalidPromptError, OverloadedError, EngineError: as `score`.
        """

    def generate(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> AsyncIterator[str]:
        """Greedy continuation as text pieces, ended by the LLM, by `max_tokens`, or after one of the `stop` strings.

        Raises:
            InvalidPromptError, OverloadedError, EngineError: as `score`.
        """


def check_prompt(prompt: Prompt, trie: Branching | None, token_size: int, context_length: int) -> None:
    """Refuse what no engine can run.

    Raises:
        InvalidPromptError: the prompt is empty, too long with its choices, or its soft tokens do not fit the LLM.
    """
    length = len(prompt.token_ids)
    if length == 0:
        raise InvalidPromptError("the prompt is empty")
    deepest = max((len(branch.path) for branch in trie.branches), default=0) if trie is not None else 0
    needed = length + deepest + 1
    if needed > context_length:
        raise InvalidPromptError(f"prompt and answer need {needed} tokens, the LLM's context has {context_length}")
    if len(prompt.soft_positions) and prompt.soft_tokens.shape[-1] != token_size:
        raise InvalidPromptError(
            f"soft tokens have {prompt.soft_tokens.shape[-1]} dimensions, the LLM's embeddings {token_size}"
        )


def warm_up_question(token_size: int) -> tuple[Prompt, ChoiceTrie]:
    """A small question with all that real ones have: a slot, a branching root and a branch below it."""
    prompt = Prompt(np.zeros(64, dtype=np.int64), np.asarray([1]), torch.zeros(1, token_size))
    return prompt, ChoiceTrie([[1, 2], [1, 3], [4]], end_token=5)
