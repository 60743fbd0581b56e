"""Engines shared by the tests of this folder: starting vLLM takes half a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.engines.base import LLMEngine
from models.engines.process import EngineProcess
from models.engines.transformers import TransformersEngine, TransformersEngineConfig
from tests.device import DEVICE
from tests.models.engines.hosting import Hosted, Reference, save_small_opt


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_opt(tmp_path_factory.mktemp("opt"))


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="session", params=["transformers", "process", "vllm"])
def hosted(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[Hosted]:
    """Each engine in turn, running; `process` is the transformers engine in a process of its own."""
    engine: LLMEngine
    if request.param == "vllm":
        pytest.importorskip("vllm", reason="vLLM is not installed: `make test` installs it")
        from models.engines.vllm import VLLMEngine, VLLMEngineConfig

        # A GPU may be in use by others, and this LLM is small.
        options = {"dtype": "float32", "restart_seconds": 0.1, "gpu_memory_utilization": 0.1}
        engine = VLLMEngine(VLLMEngineConfig(llm=str(checkpoint), **options))
    else:
        engine = TransformersEngine(TransformersEngineConfig(llm=str(checkpoint), device=DEVICE))
        engine = EngineProcess(engine) if request.param == "process" else engine
    with asyncio.Runner() as runner:
        hosted = Hosted(engine, runner)
        hosted.run(engine.start())
        yield hosted
        hosted.run(engine.close())
