"""A tiny LLM as a folder."""

from __future__ import annotations

import pytest

from tests.tiny import save_tiny_llm


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random OPT."""
    return save_tiny_llm(tmp_path_factory.mktemp("llm"))
