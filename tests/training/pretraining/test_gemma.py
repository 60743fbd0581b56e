"""The folder of a real LM: made of its packages, once. The packages themselves are never fetched by a test."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from models.errors import ConfigError
from training.pretraining import gemma


def test_without_its_packages_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whose terms apply; nothing is left behind."""
    monkeypatch.setitem(sys.modules, gemma.PACKAGE, None)
    with pytest.raises(ConfigError, match=r"allmrec\[real-lm\].*terms"):
        gemma.build_gemma(tmp_path / "llm")
    assert not list(tmp_path.iterdir())


def test_it_is_made_once_and_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop while it is converted leaves nothing; what is there is kept."""
    package, made = ModuleType(gemma.PACKAGE), []
    package.MODEL_NAME = "weights.gguf"
    package.assemble = lambda path: path
    for name, module in {gemma.PACKAGE: package, "gguf": ModuleType("gguf"), "accelerate": ModuleType("a")}.items():
        monkeypatch.setitem(sys.modules, name, module)

    def convert(weights: Path, directory: Path) -> None:
        made.append(weights.name)
        directory.mkdir(parents=True)
        if len(made) == 1:
            raise KeyboardInterrupt
        (directory / "config.json").write_text("{}")

    monkeypatch.setattr(gemma, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        gemma.build_gemma(tmp_path / "llm")
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        assert (gemma.build_gemma(tmp_path / "llm") / "config.json").is_file()
    assert made == ["weights.gguf"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["llm"]
