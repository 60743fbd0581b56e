"""Where what was measured is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as commands
from benchmarks import results


@pytest.mark.parametrize(
    ("engine", "device", "gpu", "place"),
    [
        ("transformers", "cpu", True, "cpu"),
        ("transformers", "cuda:1", True, "cuda"),
        ("vllm", "cpu", True, "cuda"),
        ("vllm", "cpu", False, "cpu"),
    ],
)
def test_vllm_finds_its_gpu_itself(
    engine: str, device: str, gpu: bool, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transformers engine is where it is told to be."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert commands.place_of(engine, device) == place


@pytest.mark.parametrize("name", ["service", "overload-vllm"])
def test_what_a_gpu_gave_leaves_the_documents_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures have a file of their own, beside those of a CPU."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    document = tmp_path / "document.md"
    before = f"<!-- {name} -->\nolder\n<!-- /{name} -->\n"
    document.write_text(before)
    settings = {"engine": "vllm", "device": "cuda"}
    commands.keep(name, settings, [{"a": 1}], document)
    assert document.read_text() == before
    commands.keep(name, {**settings, "device": "cpu"}, [{"a": 2}], document)
    assert "| 2 |" in document.read_text()
    kept = {path.name for path in tmp_path.glob("*.json")}
    assert kept == {f"{name}.json", f"{name}-cuda.json"}


def test_what_was_asked_otherwise_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another bundle or engine writes over no table of the documents; what has no table there is kept, too."""
    assert commands.named("claims", commands.of_bundle(commands.DEMO), commands.of_engine("transformers")) == "claims"
    name = commands.named("claims", commands.of_bundle(Path("bundles/shop")), commands.of_engine("vllm"))
    assert name == "claims-shop-vllm"
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    document = tmp_path / "document.md"
    before = "<!-- claims -->\nolder\n<!-- /claims -->\n"
    document.write_text(before)
    results.save(name, {}, [{"a": 1}], document=document)
    assert document.read_text() == before
    assert (tmp_path / "claims-shop-vllm.json").exists()
