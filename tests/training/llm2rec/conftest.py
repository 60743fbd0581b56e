"""A tiny LLM as a folder, and what is learned from tiny catalogues."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.device import DEVICE
from tests.tiny import save_tiny_llm, tiny_split
from training.llm2rec.config import LLM2RecConfig
from training.llm2rec.corpus import Corpus, Domain

CUTS = {"max_title_tokens": 16, "max_text_tokens": 16}


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random OPT."""
    return save_tiny_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="session")
def domains() -> list[Domain]:
    """Two catalogues, whose titles are partly the same."""
    return [Domain("first", tiny_split()), Domain("second", tiny_split(users=20, items=34, seed=1))]


@pytest.fixture
def config(llm: str) -> LLM2RecConfig:
    """A few steps of each stage."""
    return LLM2RecConfig.model_validate(
        {
            "llm": llm,
            "device": DEVICE,
            **CUTS,
            "csft": {"history_items": 3, "batch_tokens": 128, "loop": {"max_steps": 2, "monitor": "log_likelihood"}},
            "mntp": {"batch_size": 8, "loop": {"max_steps": 2}},
            "contrastive": {"batch_size": 8, "loop": {"max_steps": 4, "checkpoint_minutes": 0}},
        }
    )


@pytest.fixture
def corpus(domains: list[Domain], config: LLM2RecConfig, tmp_path: Path) -> Corpus:
    """What the stages are given."""
    from training.llm2rec.stages import LLM2Rec

    return LLM2Rec(domains, config, tmp_path / "unused").corpus
