"""The production engine: vLLM's async engine in this process, one request for each branching node.

The branching nodes of a request share its prompt as prefix, which vLLM's prefix cache computes once even when they
arrive together: a node takes its blocks from the cache as soon as the node before it is scheduled. What is left is
one prefill and a few short suffixes. vLLM runs the model in processes of its own; when they die or hang, the engine
turns unhealthy and starts them again with growing pauses.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import structlog
import torch
from pydantic import Field

from models.config import Config
from models.engines.base import check_prompt, warm_up_question
from models.engines.silence import Silence
from models.engines.text_stream import TextStream
from models.errors import ConfigError, EngineError, OverloadedError
from models.llm.checkpoint import fingerprint_checkpoint
from models.llm.families import UnsupportedLLMError, check_family, context_length_of, token_size_of
from models.llm.loading import EMBEDDED, load_config, load_tokenizer, resolve
from models.llm.token_interface import INTERFACE_FILE
from models.prompts.layout import Prompt
from models.scoring.choices import Branch, Branching

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

logger = structlog.get_logger(__name__)

USUAL_TOKENS = 512
"""A prompt rather has fewer."""
MAX_LOGPROB_TOKENS = 128  # vLLM's limit of `logprob_token_ids`
_DEATH_POLL_SECONDS = 0.1


class VLLMEngineConfig(Config):
    """Settings of the vLLM engine. vLLM itself chooses the device: the GPU if its build has one, else the CPU.

    Attributes:
        llm: "embedded", a hub name or a path.
        dtype: "auto" is the checkpoint's own, or half precision for float32 checkpoints.
        tensor_parallel_size: GPUs over which the LLM is split.
        gpu_memory_utilization: share of each GPU that weights and KV cache may take.
        cpu_kv_cache_gib: KV cache where there is no GPU.
        cpu_threads: cores of the worker where there is no GPU, such as "0-3"; "auto" leaves one for this process.
        max_model_len: context in tokens; the LLM's own if not given.
        max_batch_tokens: tokens that one forward pass may hold.
        max_batch_requests: branching nodes and generations that one forward pass may hold.
        quantization: such as "fp8" or "awq"; the checkpoint's own if not given.
        enforce_eager: without CUDA graphs: starts sooner, slower on small LLMs. Always so without a GPU.
        load_format: "dummy" draws random weights, for benchmarks.
        max_waiting: requests that may be under way; more are refused.
        restart_seconds: pause before a dead engine is started again; doubles while it keeps dying.
        max_restart_seconds: the longest pause. An engine that lives longer than that starts over at the shortest.
        hang_seconds: an engine that said nothing for so long though it was asked is asked something small; it is killed
            and started again if it does not answer that either in as much time. A restart is given this much longer
            than the first start took.
        end_seconds: how long an engine may take to end until it is killed.
    """

    llm: str = EMBEDDED
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tensor_parallel_size: int = Field(1, ge=1)
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    cpu_kv_cache_gib: int = Field(1, ge=1)
    cpu_threads: str = "auto"
    max_model_len: int | None = None
    max_batch_tokens: int = Field(8192, ge=1)
    max_batch_requests: int = Field(256, ge=1)
    quantization: str | None = None
    enforce_eager: bool = False
    load_format: Literal["auto", "safetensors", "dummy"] = "auto"
    max_waiting: int = Field(256, ge=1)
    restart_seconds: float = Field(1.0, gt=0)
    max_restart_seconds: float = Field(60.0, gt=0)
    hang_seconds: float = Field(60.0, gt=0)
    end_seconds: float = Field(8.0, gt=0)


class VLLMEngine:
    """`LLMEngine` on vLLM."""

    def __init__(self, config: VLLMEngineConfig) -> None:
        self.config = config
        self.tokenizer = load_tokenizer(config.llm)
        llm_config = load_config(config.llm)
        check_family(config.llm, llm_config)
        self.token_size = token_size_of(llm_config)
        longest = context_length_of(llm_config)
        self.context_length = min(longest, config.max_model_len or longest)
        self.fingerprint = ""
        self.depth = 2 * max(1, min(config.max_batch_requests, config.max_batch_tokens // USUAL_TOKENS))
        self._llm: AsyncLLM | None = None
        self._dtype = torch.float32
        self._supervisor: asyncio.Task[None] | None = None
        self._request_ids = itertools.count()
        self._under_way = 0
        self._start_seconds = 0.0
        self._silence = Silence(config.hang_seconds)

    @property
    def healthy(self) -> bool:
        """Whether vLLM's processes are up. Turns false as soon as one of them dies."""
        return self._llm is not None and not self._llm.errored

    async def start(self) -> None:
        """Start vLLM's processes, warm them up and watch over them.

        Raises:
            ConfigError: the LLM's weights cannot be read, vLLM has no implementation of its own of its family, or there
                is no compiler for its kernels.
            EngineError: vLLM does not start.
        """
        if self.config.load_format == "dummy":
            self.fingerprint = "dummy"
        else:
            self.fingerprint = await asyncio.to_thread(fingerprint_checkpoint, resolve(self.config.llm))
        started = time.monotonic()
        await self._launch()
        self._start_seconds = time.monotonic() - started
        self._supervisor = asyncio.create_task(self._supervise(), name="vllm-supervisor")

    async def close(self) -> None:
        """Fail what is under way and stop vLLM's processes, those that are being started included."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        await self._shut_down_or_kill()

    async def score(self, prompt: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:
        """See `LLMEngine.score`. The numbers are log-probabilities over the whole vocabulary.

        Raises:
            ConfigError: they are asked for over another one.
        """
        llm = self._running_llm()
        if trie.vocabulary is not None:
            raise ConfigError(
                "vLLM normalises over the LLM's whole vocabulary only: fit the blend with"
                " blend.title_list.vocabulary='whole', or serve with ALLMREC_ENGINE=transformers"
            )
        check_prompt(prompt, trie, self.token_size, self.context_length)
        if due is not None and time.perf_counter() >= due:
            raise OverloadedError("the request was due before the LLM got it")
        with self._admitted():
            return await self._score(llm, prompt, trie)

    async def encode(self, prompt: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:  # noqa: ARG002
        """See `LLMEngine.encode`.

        Raises:
            ConfigError: always: an engine of vLLM that gives hidden states writes nothing, so that a second one, with a
                second copy of the weights, would be needed.
        """
        raise ConfigError(
            "vLLM gives no hidden states beside probabilities, and the bundle's blend weighs the LLM as user encoder:"
            " serve with ALLMREC_ENGINE=transformers, or fit the blend without 'user_encoder' in blend.ways"
        )

    async def generate(self, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> AsyncIterator[str]:
        """See `LLMEngine.generate`."""
        from vllm import SamplingParams  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        llm = self._running_llm()
        check_prompt(prompt, None, self.token_size, self.context_length)
        params = SamplingParams(
            temperature=0.0,
            max_tokens=min(max_tokens, self.context_length - len(prompt.token_ids)),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        text = TextStream(self.tokenizer, stop)
        with self._admitted():
            async with aclosing(self._outputs(llm, self._input(prompt, ()), params)) as outputs:
                async for output in outputs:
                    for token_id in output.outputs[0].token_ids:
                        if not text.ended and (piece := text.push(token_id)):
                            yield piece
                    if text.ended:
                        break

    async def _score(self, llm: AsyncLLM, prompt: Prompt, trie: Branching) -> list[np.ndarray]:
        nodes = [asyncio.ensure_future(self._score_branch(llm, prompt, branch)) for branch in trie.branches]
        try:
            return list(await asyncio.gather(*nodes))
        finally:
            for node in nodes:
                node.cancel()

    async def _score_branch(self, llm: AsyncLLM, prompt: Prompt, branch: Branch) -> np.ndarray:
        from vllm import SamplingParams  # noqa: PLC0415
        from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

        node = self._input(prompt, branch.path)
        children = branch.children.tolist()
        scores: list[float] = []
        for start in range(0, len(children), MAX_LOGPROB_TOKENS):
            wanted = children[start : start + MAX_LOGPROB_TOKENS]
            params = SamplingParams(
                temperature=0.0,
                max_tokens=1,
                logprob_token_ids=wanted,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                skip_clone=True,
            )
            async with aclosing(self._outputs(llm, node, params)) as outputs:
                async for output in outputs:
                    logprobs = output.outputs[0].logprobs
                    if not logprobs:
                        raise EngineError("vLLM gave up a request: it will be tried anew by the next call")
                    scores += [logprobs[0][token].logprob for token in wanted]
        return np.asarray(scores, dtype=np.float32)

    def _input(self, prompt: Prompt, path: Sequence[int]) -> Any:
        """vLLM's input: token ids, and rows that stand in at the slots. Rows of plain tokens are not looked at."""
        from vllm.inputs.engine import embeds_input, tokens_input  # noqa: PLC0415

        token_ids = [*prompt.token_ids.tolist(), *path]
        if not len(prompt.soft_positions):
            return tokens_input(token_ids)
        # Zeroed and filled by numpy: torch would wake all its threads for it, and wait for them while cores are busy.
        bits = torch.int32 if self._dtype.itemsize == 4 else torch.int16
        soft_S_H = prompt.soft_tokens.detach().to("cpu", self._dtype).contiguous()
        rows_L_H = np.zeros((len(token_ids), self.token_size), dtype=f"int{8 * self._dtype.itemsize}")
        rows_L_H[prompt.soft_positions] = soft_S_H.view(bits).numpy()
        is_token = np.ones(len(token_ids), dtype=bool)
        is_token[prompt.soft_positions] = False
        return embeds_input(
            torch.from_numpy(rows_L_H).view(self._dtype), prompt_token_ids=token_ids, is_token_ids=is_token.tolist()
        )

    async def _outputs(
        self, llm: AsyncLLM, engine_input: Any, params: SamplingParams
    ) -> AsyncGenerator[RequestOutput, None]:
        """One vLLM request. Closing the iterator, or cancelling its consumer, aborts it."""
        try:
            self._silence.asked()
            request = llm.generate(engine_input, params, request_id=str(next(self._request_ids)))
            async with aclosing(request) as outputs:
                async for output in outputs:
                    self._silence.broken()
                    yield output
        except Exception as error:
            raise EngineError(f"vLLM failed on a request: {error or type(error).__name__}") from error

    def _running_llm(self) -> AsyncLLM:
        if self._llm is None or self._llm.errored:
            raise EngineError("the LLM engine is not running")
        return self._llm

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._under_way >= self.config.max_waiting:
            raise OverloadedError(f"{self._under_way} requests are under way at the LLM: try again later")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _supervise(self) -> None:
        """Restart vLLM whenever it dies, or hangs."""
        pause = self.config.restart_seconds
        while True:
            started = time.monotonic()
            while self.healthy and not (self._silence.too_long and await self._hangs()):
                await asyncio.sleep(_DEATH_POLL_SECONDS)
            if self.healthy:
                logger.error("llm_engine_hangs", silent_s=2 * self.config.hang_seconds)
                _kill_processes()
            logger.error("llm_engine_died", after_s=round(time.monotonic() - started, 1), restart_in_s=pause)
            if time.monotonic() - started > self.config.max_restart_seconds:
                pause = self.config.restart_seconds
            await self._shut_down_or_kill()
            await asyncio.sleep(pause)
            try:
                with _killing_after(self._start_seconds + self.config.hang_seconds):
                    await self._launch()
            except Exception:
                logger.exception("llm_engine_restart_failed")
            else:
                logger.info("llm_engine_restarted")
            pause = min(2 * pause, self.config.max_restart_seconds)

    async def _hangs(self) -> bool:
        """Whether vLLM does not even answer a small question that is waited for; others may have been in a hurry."""
        try:
            async with asyncio.timeout(self.config.hang_seconds):
                await self._score(self._running_llm(), *warm_up_question(self.token_size))
        except TimeoutError:
            return True
        except EngineError:
            return False
        return False

    async def _shut_down_or_kill(self) -> None:
        try:
            with _killing_after(self.config.end_seconds):
                await self._shut_down()
        except Exception:
            logger.exception("llm_engine_shutdown_failed")

    async def _launch(self) -> None:
        """Start and warm up vLLM's processes; requests are let in afterwards."""
        given_up = threading.Event()
        loading = asyncio.create_task(asyncio.to_thread(_load, self.config, given_up))
        try:
            llm = await asyncio.shield(loading)
        except asyncio.CancelledError:
            given_up.set()
            await _end_loading(loading, self.config.end_seconds)
            raise
        except ConfigError:
            raise
        except Exception as error:
            raise EngineError(f"vLLM does not start with '{self.config.llm}': {error}") from error
        self._dtype = llm.model_config.dtype
        try:
            await self._score(llm, *warm_up_question(self.token_size))
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                _kill_processes()
            await _end_or_kill(llm, self.config.end_seconds)
            raise
        self._silence.broken()
        self._llm = llm

    async def _shut_down(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            if llm.output_handler is not None:
                llm.output_handler.cancel()
            llm.output_processor.propagate_error(EngineError("the LLM engine was stopped"))
            await asyncio.to_thread(llm.shutdown)
            llm.shutdown = lambda: None  # its destructor calls it again, at an end where modules are gone


@contextmanager
def _killing_after(seconds: float) -> Iterator[None]:
    """Kill vLLM's processes when the block takes longer, or is cancelled: what waits for them fails."""
    timer = asyncio.get_running_loop().call_later(seconds, _kill_processes)
    try:
        yield
    except asyncio.CancelledError:
        _kill_processes()
        raise
    finally:
        timer.cancel()


async def _end_or_kill(llm: AsyncLLM, seconds: float) -> None:
    """End one that was not let in yet. That its end fails, as that of a killed one may, is no news to who waits."""
    try:
        with _killing_after(seconds):
            await asyncio.to_thread(llm.shutdown)
    except Exception:
        logger.exception("llm_engine_shutdown_failed")


async def _end_loading(loading: asyncio.Task[AsyncLLM], seconds: float) -> None:
    """Have a start that nobody waits for end soon: what it has started is killed, and what it starts yet.

    A step in this process, such as the import of vLLM, cannot be broken off: it is waited for, and no other follows.
    """
    while not loading.done():
        _kill_processes()
        await asyncio.wait([loading], timeout=_DEATH_POLL_SECONDS)
    if loading.exception() is None:
        _kill_processes()
        await _end_or_kill(loading.result(), seconds)


def _kill_processes() -> None:
    """End vLLM's processes: those of the workers end with the one that started them."""
    for child in multiprocessing.active_children():
        if "EngineCore" in child.name:
            child.kill()


def _load(config: VLLMEngineConfig, given_up: threading.Event) -> AsyncLLM:
    # vLLM takes these settings from the environment only; what the operator set there stays.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(config.cpu_kv_cache_gib))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", config.cpu_threads)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # On a GPU it would fork, from a process of many threads in which CUDA may be at work: the child then finds no GPU.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    _go_on(given_up)
    from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: PLC0415
    from vllm.platforms import current_platform  # noqa: PLC0415

    _go_on(given_up)
    from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

    _go_on(given_up)
    on_cpu = current_platform.is_cpu()
    if on_cpu and shutil.which(compiler := os.environ.get("CXX", "g++")) is None:
        raise ConfigError(
            f"vLLM compiles kernels on the CPU when it starts, and there is no compiler {compiler}: install g++"
        )
    with _without_interface(Path(resolve(config.llm))) as model:
        arguments = AsyncEngineArgs(
            model=model,
            served_model_name=config.llm,
            dtype=config.dtype,
            tensor_parallel_size=config.tensor_parallel_size,
            gpu_memory_utilization=config.gpu_memory_utilization,
            max_model_len=config.max_model_len,
            max_num_batched_tokens=config.max_batch_tokens,
            max_num_seqs=config.max_batch_requests,
            quantization=config.quantization,
            load_format=config.load_format,
            enforce_eager=config.enforce_eager or on_cpu,
            block_size=32 if on_cpu else None,
            enable_prompt_embeds=True,
            enable_prefix_caching=True,
        )
        _go_on(given_up)
        if arguments.create_model_config().using_transformers_backend():
            raise UnsupportedLLMError(
                f"vLLM has no implementation of its own of LLM '{config.llm}', and answers otherwise by transformers'"
                " within it: serve it by the transformers engine"
            )
        _go_on(given_up)
        return AsyncLLM.from_engine_args(arguments)


def _go_on(given_up: threading.Event) -> None:
    """Begin another step of a start, unless nobody waits for it."""
    if given_up.is_set():
        raise EngineError("the start was given up")


@contextmanager
def _without_interface(directory: Path) -> Iterator[str]:
    """vLLM takes every safetensors file of a folder for weights: show it one without the token interface."""
    if not (directory / INTERFACE_FILE).is_file():
        yield str(directory)
        return
    with TemporaryDirectory(prefix="allmrec-llm-") as shown:
        for file in directory.iterdir():
            if file.name != INTERFACE_FILE:
                (Path(shown) / file.name).symlink_to(file.resolve())
        yield shown
