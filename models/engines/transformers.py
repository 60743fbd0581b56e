"""The embedded engine: transformers in process, one packed forward for each batch of waiting requests.

On a CPU every core that this process may use has a worker thread of its own that scores on that core alone: torch's
threads would spend half of such short operations on waiting for each other. Requests that wait while all workers are
busy share their next batches; generation takes one token a turn, so that scoring is never stuck behind a long text.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import structlog
import torch
from pydantic import Field

from models.config import Config
from models.engines.base import LLMEngine, check_prompt, warm_up_question
from models.engines.text_stream import TextStream
from models.errors import EngineError, OverloadedError
from models.llm.families import context_length_of, token_size_of
from models.llm.loading import EMBEDDED, LanguageModel, load_config, load_llm, load_tokenizer
from models.prompts.layout import Prompt
from models.scoring.choices import Branching
from models.scoring.encode import encode_prompts
from models.scoring.score import score_prompts
from models.threads import available_cores

USUAL_TOKENS = 512
"""A prompt rather has fewer."""
PACE_WEIGHT = 0.1
OFFLINE_BATCH_TOKENS = 8192
"""Nobody waits for a single answer: larger batches are faster."""

logger = structlog.get_logger(__name__)
Result = TypeVar("Result")
Kind = Literal["choices", "titles", "states"]


class TransformersEngineConfig(Config):
    """Settings of the embedded engine.

    Attributes:
        llm: "embedded", a hub name or a path.
        device: where torch runs it.
        dtype: "float32" or "bfloat16".
        workers: threads that score; one for each core that this process may use if not given, one on a GPU. They
            divide those cores.
        niceness: by how much workers on a CPU give way to other threads, so that requests are received and answered
            while they compute.
        max_batch_tokens: prompt tokens, padding included, that one forward pass may hold.
        max_waiting: requests that may wait; more are refused.
    """

    llm: str = EMBEDDED
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    workers: int | None = Field(None, ge=1)
    niceness: int = Field(10, ge=0, le=19)
    max_batch_tokens: int = 2048
    max_waiting: int = 256


@dataclass(eq=False)
class _Request:
    """A question: a trie to score, or places whose hidden states are wanted."""

    prompt: Prompt
    wanted: Branching | np.ndarray
    result: asyncio.Future[Any]
    due: float = math.inf

    @property
    def kind(self) -> Kind:
        """What it is; only requests of one kind share a forward pass."""
        if isinstance(self.wanted, np.ndarray):
            return "states"
        return "titles" if self.wanted.normalised else "choices"

    @property
    def tokens(self) -> int:
        """What it adds to a forward pass. A few branching paths do not count, whole titles do."""
        trie = None if isinstance(self.wanted, np.ndarray) else self.wanted
        return len(self.prompt.token_ids) + (len(trie.branches) if trie is not None and trie.normalised else 0)


class TransformersEngine:
    """`LLMEngine` on a transformers model in this process. `on_batch` is told how many requests each batch has.

    Args:
        config: of the engine.
        llm: loaded already, so that training asks the LLM that it trains for; loaded by `start` if not given.
    """

    def __init__(self, config: TransformersEngineConfig, llm: LanguageModel | None = None) -> None:
        self.config = config
        self.tokenizer = load_tokenizer(config.llm) if llm is None else llm.tokenizer
        llm_config = load_config(config.llm) if llm is None else llm.model.config
        self.token_size = token_size_of(llm_config)
        self.context_length = context_length_of(llm_config)
        self.fingerprint = "" if llm is None else llm.fingerprint
        self._llm = llm
        cores = available_cores()
        self._idle = config.workers or (cores if config.device == "cpu" else 1)
        in_a_batch = 1 if config.device == "cpu" else max(1, config.max_batch_tokens // USUAL_TOKENS)
        self.depth = 2 * self._idle * in_a_batch
        self._token_seconds: dict[Kind, float] = {}
        self._workers = ThreadPoolExecutor(
            self._idle,
            "llm",
            initializer=_start_worker,
            initargs=(max(1, cores // self._idle), config.niceness if config.device == "cpu" else 0),
        )
        self._asked: set[_Request] = set()
        self._waiting: deque[_Request] = deque()
        self._changed = asyncio.Event()
        self._batches: asyncio.Task[None] | None = None
        self.on_batch: Callable[[int], None] = lambda _: None

    @property
    def healthy(self) -> bool:
        """Whether the model is loaded and its loop alive."""
        return self._batches is not None and not self._batches.done()

    async def start(self) -> None:
        """Load the model, warm up every worker and begin to serve."""
        config = self.config
        if self._llm is None:
            self._llm = await self._run(lambda: load_llm(config.llm, config.device, getattr(torch, config.dtype)))
            self.fingerprint = self._llm.fingerprint
        self._batches = asyncio.create_task(self._serve(), name="llm-batches")
        question = warm_up_question(self.token_size)
        await asyncio.gather(*(self.score(*question) for _ in range(self._idle)))

    async def close(self) -> None:
        """Stop the loop and fail what still waits."""
        if self._batches is not None:
            self._batches.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._batches
        for request in self._asked:
            if not request.result.done():
                request.result.set_exception(EngineError("the LLM engine was closed"))
        self._workers.shutdown(wait=True, cancel_futures=True)

    async def score(self, prompt: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:
        """See `LLMEngine.score`."""
        self._require_running()
        check_prompt(prompt, trie, self.token_size, self.context_length)
        if not trie.branches:
            return []
        scores: list[np.ndarray] = await self._asked_for(prompt, trie, due)
        return scores

    async def encode(self, prompt: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:
        """See `LLMEngine.encode`."""
        self._require_running()
        check_prompt(prompt, None, self.token_size, self.context_length)
        states_P_H: np.ndarray = await self._asked_for(prompt, places, due)
        return states_P_H

    async def _asked_for(self, prompt: Prompt, wanted: Branching | np.ndarray, due: float | None) -> Any:
        if len(self._waiting) >= self.config.max_waiting:
            raise OverloadedError(f"{len(self._waiting)} requests already wait for the LLM: try again later")
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request = _Request(prompt, wanted, result, math.inf if due is None else due)
        self._waiting.append(request)
        self._asked.add(request)
        self._changed.set()
        try:
            return await request.result
        finally:
            self._asked.discard(request)

    async def generate(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> AsyncIterator[str]:
        """See `LLMEngine.generate`."""
        self._require_running()
        check_prompt(prompt, None, self.token_size, self.context_length)
        decoding = _Decoding(self._model, prompt)
        room = min(max_tokens, self.context_length - len(prompt.token_ids))
        text = TextStream(self.tokenizer, stop)
        for _ in range(room):
            if piece := text.push(await self._run(decoding.step)):
                yield piece
            if text.ended:
                break

    @property
    def _model(self) -> LanguageModel:
        if self._llm is None:
            raise EngineError("the LLM engine is not running")
        return self._llm

    def _require_running(self) -> None:
        if not self.healthy:
            raise EngineError("the LLM engine is not running")

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def _serve(self) -> None:
        """Give every idle worker its share of what waits."""
        async with asyncio.TaskGroup() as answering:
            while True:
                await self._changed.wait()
                self._changed.clear()
                while self._idle and (batch := self._next_batch()):
                    self._idle -= 1
                    answering.create_task(self._answer(batch))

    async def _answer(self, batch: list[_Request]) -> None:
        self.on_batch(len(batch))
        started = time.perf_counter()
        try:
            results = await self._run(lambda: _computed(self._model, batch))
        except Exception as error:
            logger.exception("llm_batch_failed", requests=len(batch))
            failure = EngineError(f"the LLM failed on a batch of {len(batch)}: {error}")
            for request in batch:
                if not request.result.done():
                    request.result.set_exception(failure)
        else:
            seconds = (time.perf_counter() - started) / (len(batch) * max(request.tokens for request in batch))
            kind = batch[0].kind
            known = self._token_seconds.get(kind, seconds)
            self._token_seconds[kind] = known + (seconds - known) * PACE_WEIGHT
            for request, result in zip(batch, results, strict=True):
                if not request.result.done():
                    request.result.set_result(result)
        finally:
            self._idle += 1
            self._changed.set()

    def _next_batch(self) -> list[_Request]:
        """The longest run of waiting requests of one kind that is within budget, done by the tightest deadline in it,
        and leaves idle workers some. First come, first served; who left is skipped, whose time is over is told.
        """
        now = time.perf_counter()
        share = math.ceil(len(self._waiting) / self._idle)
        batch: list[_Request] = []
        longest, due = 0, math.inf
        while self._waiting:
            request = self._waiting[0]
            if request.result.done():
                self._waiting.popleft()
                continue
            if request.due <= now:
                self._waiting.popleft().result.set_exception(OverloadedError("the LLM had no time until it was due"))
                continue
            if len(batch) == share:
                break
            longest, due = max(longest, request.tokens), min(due, request.due)
            tokens, kind = longest * (len(batch) + 1), request.kind
            late = now + tokens * self._token_seconds.get(kind, 0.0) > due
            # Whole titles keep a core busy, company only pads them.
            alone = kind == "titles" and self.config.device == "cpu"
            other = bool(batch) and kind != batch[0].kind
            if batch and (alone or other or tokens > self.config.max_batch_tokens or late):
                break
            batch.append(self._waiting.popleft())
        return batch


@asynccontextmanager
async def in_process(llm: LanguageModel, max_batch_tokens: int = OFFLINE_BATCH_TOKENS) -> AsyncIterator[LLMEngine]:
    """An engine on an LLM that is loaded already, for as long as the block lasts: what training and evaluation ask.

    Args:
        llm: frozen.
        max_batch_tokens: prompt tokens that one forward pass may hold.
    """
    # Nothing else is to be kept alive beside it, so its workers do not give way.
    config = TransformersEngineConfig(
        llm=llm.name, device=llm.model.device.type, niceness=0, max_batch_tokens=max_batch_tokens
    )
    engine = TransformersEngine(config, llm)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


class _Decoding:
    """Greedy decoding of one prompt, one token a step, with its KV cache."""

    def __init__(self, llm: LanguageModel, prompt: Prompt) -> None:
        self._llm = llm
        self._cache: Any = None
        self._embeds = self._prompt_embeds(prompt)

    @torch.inference_mode()
    def step(self) -> int:
        model = self._llm.model
        output = model(inputs_embeds=self._embeds, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = output.past_key_values
        token = output.logits[0, -1].argmax()
        self._embeds = model.get_input_embeddings()(token[None, None])
        return int(token)

    @torch.inference_mode()
    def _prompt_embeds(self, prompt: Prompt) -> torch.Tensor:
        embeddings = self._llm.model.get_input_embeddings()
        embeds = embeddings(torch.from_numpy(prompt.token_ids).to(embeddings.weight.device))
        prompt.inject(embeds)
        return embeds[None]


def _computed(llm: LanguageModel, batch: Sequence[_Request]) -> Sequence[Any]:
    """What each request of a batch, all of one kind, gets."""
    prompts = [request.prompt for request in batch]
    places = [request.wanted for request in batch if isinstance(request.wanted, np.ndarray)]
    if places:
        return encode_prompts(llm, prompts, places)
    tries = [request.wanted for request in batch if not isinstance(request.wanted, np.ndarray)]
    return score_prompts(llm, prompts, tries)


def _start_worker(threads: int, niceness: int) -> None:
    """Let a thread compute on so many cores, and give way to those that receive and answer requests."""
    torch.set_num_threads(threads)
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
