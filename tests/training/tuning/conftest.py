"""A tiny LLM as a folder."""

from __future__ import annotations

import pytest

from tests.tiny import tiny_llm


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random OPT."""
    path = tmp_path_factory.mktemp("llm")
    loaded = tiny_llm()
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return str(path)
