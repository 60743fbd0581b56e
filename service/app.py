"""The composition root: builds every adapter, starts them in order and stops them in reverse.

Nothing else constructs adapters or reads the environment. `uvicorn --factory service.app:create_app` works too.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
import torch
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic import ValidationError
from starlette.middleware import Middleware

from models.bundle.manifest import load_manifest
from models.bundle.store import Bundle, load_bundle, resolve_bundle
from models.composer import Asked
from models.config import Config, explained
from models.engines.base import LLMEngine
from models.engines.process import EngineProcess, EngineProcessConfig
from models.engines.transformers import TransformersEngine, TransformersEngineConfig
from models.errors import AllmrecError, ConfigError, PromptTooLongError
from models.prompts.anchor import reading_of
from models.recommending.person import persons
from service import llm_process
from service.api import docs, openapi, operations, problems, router
from service.api.auth import Authenticate
from service.api.cors import middleware_options
from service.api.middleware import Capacity, Methods, Observe, ReadBody, Unforeseen
from service.deployments.deployment import Deployment
from service.deployments.registry import Deployments
from service.llm_gate import LLMGate
from service.logs import configure_logging
from service.metrics import Metrics
from service.preflight import check_device, check_urls
from service.runtime import Runtime, Services
from service.settings import Settings, load_settings
from service.stores.create import create_stores
from service.usecases.effects import Prover
from service.usecases.explain import ExplainConfig, Explainer
from service.usecases.recommend import RecommendConfig, Recommender
from service.users.histories import Histories
from service.users.representations import Representations

logger = structlog.get_logger(__name__)

PREPARATION_THREADS = 2
DESCRIPTION = (
    "Recommendations by an LLM that reads collaborative knowledge (A-LLMRec). Every error is a problem (RFC 9457)."
    " A path that is not described answers 404, another method of one that is 405, with those there are in `Allow`."
)

EngineFactory = Callable[[Settings, str], LLMEngine]
Options = TypeVar("Options", bound=Config)


def create_engine(settings: Settings, llm: str) -> LLMEngine:
    """The engine that the settings name, for LLM `llm`. Loads only that engine's libraries.

    Raises:
        ConfigError: an engine option is unknown or wrong.
    """
    engine = _engine_here(settings, llm)
    if not settings.engine_process:
        return engine
    prepare = partial(llm_process.prepare, settings.log_level, settings.log_format, settings.torch_threads)
    # vLLM's engine starts its own process again, and takes its time.
    config = EngineProcessConfig() if settings.engine == "vllm" else EngineProcessConfig(unwell_seconds=5.0)
    return EngineProcess(engine, prepare, llm_process.measure, config)


def _engine_here(settings: Settings, llm: str) -> LLMEngine:
    options = {**settings.engine_options, "llm": llm}
    if settings.dtype is not None:
        options["dtype"] = settings.dtype
    if settings.engine == "vllm":
        from models.engines.vllm import VLLMEngine, VLLMEngineConfig  # noqa: PLC0415

        return VLLMEngine(_checked_options(VLLMEngineConfig, settings, options))
    options = {"device": settings.device, **options}
    return TransformersEngine(_checked_options(TransformersEngineConfig, settings, options))


def _checked_options(schema: type[Options], settings: Settings, options: dict[str, Any]) -> Options:
    try:
        return schema.model_validate(options)
    except ValidationError as error:
        raise ConfigError(f"engine '{settings.engine}': {explained(error, schema, 'its options')}") from error


def create_app(
    settings: Settings | None = None,
    *,
    engine_factory: EngineFactory = create_engine,
    on_ready: Callable[[Services], None] = lambda _: None,
    on_failure: Callable[[BaseException], None] | None = None,
) -> FastAPI:
    """The application. It listens at once, and is ready when bundle and LLM are loaded.

    Args:
        settings: from the environment if not given.
        engine_factory: makes the LLM engine.
        on_ready: called once, when requests can be served.
        on_failure: called once, if that will never be; the process ends if not given.

    Raises:
        ConfigError: a URL in `settings` cannot be read.
    """
    settings = _checked(settings)
    configure_logging(settings.log_level, settings.log_format)
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    runtime = Runtime(settings, Metrics())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:

            async def start() -> None:
                try:
                    runtime.services = await _build(settings, runtime.metrics, engine_factory, stack)
                except Exception as error:
                    foreseen = isinstance(error, AllmrecError)
                    logger.error("start_failed", error=str(error), exc_info=None if foreseen else error)
                    (on_failure or _end_process)(error)
                else:
                    runtime.metrics.ready.set(1)
                    logger.info("ready", bundle_version=runtime.services.deployments.take().version)
                    on_ready(runtime.services)

            lag = asyncio.create_task(runtime.metrics.watch_event_loop(), name="event-loop-lag")
            starting = app.state.starting = asyncio.create_task(start(), name="start")
            yield
            await _end(starting, lag)
            runtime.metrics.ready.set(0)
            runtime.services = None

    app = FastAPI(
        title="allmrec",
        version=version("allmrec"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=_middleware(settings, runtime),
    )
    app.state.runtime = runtime
    _add_routes(app, with_key=settings.api_key is not None)
    return app


def _add_routes(app: FastAPI, with_key: bool) -> None:
    problems.install(app)
    router.install(app)
    app.include_router(operations.router, responses=problems.responses(*problems.ANYWHERE))
    app.include_router(docs.router)
    openapi.install(app, with_key)


def _middleware(settings: Settings, runtime: Runtime) -> list[Middleware]:
    """What surrounds the routes, outermost first: nothing is read of a request that has no key, none counts until
    it is there.
    """
    chain = [Middleware(Observe, runtime=runtime)]
    if settings.cors_origins:
        chain.append(Middleware(CORSMiddleware, **middleware_options(settings.cors_origins)))
    chain.append(Middleware(Unforeseen))
    if settings.api_key is not None:
        open_paths = ("/metrics",) if settings.metrics_without_key else ()
        chain.append(
            Middleware(
                Authenticate,
                key=settings.api_key,
                failures_per_minute=settings.max_wrong_keys,
                open_paths=open_paths,
            )
        )
    return [
        *chain,
        Middleware(Methods),
        Middleware(ReadBody, max_bytes=settings.max_body_bytes, seconds=settings.read_timeout_seconds),
        Middleware(Capacity, metrics=runtime.metrics, max_requests=settings.max_requests),
    ]


def _checked(settings: Settings | None) -> Settings:
    """Those, or else the environment's; a wrong one of these ends the process in one line."""
    if settings is not None:
        check_urls(settings)
        check_device(settings)
        return settings
    try:
        settings = _checked(load_settings())
        load_manifest(resolve_bundle(settings.bundle))
        return settings
    except AllmrecError as error:
        raise SystemExit(f"allmrec-serve: {error}") from None


def _end_process(_: BaseException) -> None:
    """A service that will never be ready is no service: whoever runs it is to see it end."""
    signal.raise_signal(signal.SIGTERM)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _build(
    settings: Settings, metrics: Metrics, engine_factory: EngineFactory, stack: AsyncExitStack
) -> Services:
    """Everything that answers requests; what must be closed goes onto `stack`."""
    version = resolve_bundle(settings.bundle)
    llm = settings.llm or load_manifest(version).llm.name
    engine = await asyncio.to_thread(engine_factory, settings, llm)
    stack.push_async_callback(engine.close)
    bundle = await _loaded(version, engine)
    bundle.check_llm(engine.fingerprint, llm, reading_of(engine.tokenizer))
    deployment = await asyncio.to_thread(Deployment.build, bundle, engine, settings.variant)
    executor = stack.enter_context(ThreadPoolExecutor(PREPARATION_THREADS, thread_name_prefix="prepare"))
    store, cache = await create_stores(settings, metrics, stack)
    histories = Histories(store, settings.user_cache_size, settings.live_history_items, settings.clock_skew_seconds)
    representations = Representations(cache, executor, metrics, settings.user_cache_size, settings.precision)
    stack.push_async_callback(representations.close)
    llm_gate = LLMGate(engine, executor, metrics, settings.max_inflight)
    _watch(metrics, engine, llm_gate)
    recommender = Recommender(
        histories,
        representations,
        llm_gate,
        executor,
        metrics,
        RecommendConfig(
            window=settings.window,
            retrieve=settings.retrieve,
            ranker=settings.ranker,
            max_candidates=settings.max_candidates,
            reserve_ms=settings.reserve_ms,
            floor_ms=settings.floor_ms,
        ),
    )
    explainer = Explainer(
        histories,
        representations,
        Prover(
            representations, llm_gate, executor, settings.explain_tries, settings.reserve_ms, settings.computes_in_half
        ),
        llm_gate,
        metrics,
        ExplainConfig(
            max_tokens=settings.explain_tokens,
            reserve_ms=settings.reserve_ms,
            window=settings.window,
            retrieve=settings.retrieve,
            ranker=settings.ranker,
        ),
    )
    await _warm_up(deployment, llm_gate, settings.window)
    metrics.serving(deployment.version, deployment.variant, len(bundle.model.index))
    logger.info("blend", ranker=settings.ranker, llm=bundle.manifest.blends.llm_in_words)
    return Services(Deployments(deployment), engine, store, cache, histories, recommender, explainer)


async def _loaded(path: Path, engine: LLMEngine) -> Bundle:
    """The bundle, with the engine started: at once where that is another process's work."""
    loading = asyncio.to_thread(load_bundle, path)
    if not isinstance(engine, EngineProcess):
        bundle = await loading
        await engine.start()
        return bundle
    try:
        async with asyncio.TaskGroup() as group:
            loaded = group.create_task(loading)
            group.create_task(engine.start())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return loaded.result()


def _watch(metrics: Metrics, engine: LLMEngine, llm_gate: LLMGate) -> None:
    """Let metrics see the state of the LLM."""
    metrics.watch_engine(lambda: engine.healthy)
    metrics.watch_queue(llm_gate.load)
    if isinstance(engine, TransformersEngine | EngineProcess):
        engine.on_batch = metrics.batch
    if isinstance(engine, EngineProcess):
        metrics.watch_process(engine.measured)


async def _warm_up(deployment: Deployment, llm_gate: LLMGate, window: int) -> None:
    """Walk the whole path once, so that the first request is as fast as the next.

    Raises:
        ConfigError: the window is too large for the LLM.
    """
    items = np.asarray(deployment.catalogue.by_popularity[:window], dtype=np.int64)

    def compose() -> list[Asked]:
        person = persons(deployment.model, [items])[0]
        deployment.model.index.search(person.vector.cpu().numpy()[None], len(items))
        deployment.lists.shortlist(person, items)
        return deployment.questions(person, items, deployment.lists.ways)

    try:
        questions = await asyncio.to_thread(compose)
    except PromptTooLongError as error:
        raise ConfigError(f"window {window} is too large (ALLMREC_WINDOW): {error}") from error
    await llm_gate.warm_up(questions)
