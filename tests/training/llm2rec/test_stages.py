"""The whole of it: what is trained, gone on from and left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from models.alignment.text_encoder import TextEncoder
from models.llm.loading import EMBEDDED
from training.cli.main import app
from training.data.demo.generate import DemoConfig, generate
from training.llm2rec import encoder as encoders
from training.llm2rec.config import VARIANTS, LLM2RecConfig
from training.llm2rec.corpus import Domain
from training.llm2rec.encoder import EncoderError, read_record, text_vectors
from training.llm2rec.stages import WEIGHTS_FILE, LLM2Rec

TITLES = ["Title 3", "Title 12, and a longer one", "Title 30"]


def contrastive_weights(run: LLM2Rec) -> dict[str, torch.Tensor]:
    """Of the last stage of llm2rec."""
    return load_file(run.directory / "stages" / "csft-mntp-contrastive" / WEIGHTS_FILE)


def test_every_variant_loads_as_it_was_trained(domains: list[Domain], config: LLM2RecConfig, tmp_path: Path) -> None:
    """By sentence-transformers and by `TextEncoder`; IEM's see both ways, the others one; each is another encoder."""
    run = LLM2Rec(domains, config, tmp_path)
    found = {}
    for variant, chain in VARIANTS.items():
        path = run.encoder(variant)
        tokens = run.tokenizer(TITLES, truncation=True, max_length=16)["input_ids"]
        expected = text_vectors(run.model(chain), tokens)
        loaded = SentenceTransformer(str(path), device="cpu")
        torch.testing.assert_close(torch.from_numpy(loaded.encode(TITLES)), expected, atol=1e-5, rtol=1e-4)
        assert getattr(loaded[0].auto_model.config, "is_causal", True) is ("mntp" not in chain)
        text_encoder = TextEncoder(str(path), 16)
        torch.testing.assert_close(text_encoder.encode(text_encoder.tokenize(TITLES)), expected, atol=1e-5, rtol=1e-4)
        record = read_record(str(path))
        assert record is not None
        assert (record.llm, record.stages, list(record.domains)) == (config.llm, list(chain), ["first", "second"])
        found[variant] = expected
    names = list(found)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert (found[name] - found[other]).abs().max() > 1e-4


def test_stage_1_may_save_it_on(domains: list[Domain], config: LLM2RecConfig, tmp_path: Path) -> None:
    """Saved by `TextEncoder` into a bundle and loaded from there, it still sees both ways."""
    first = TextEncoder(str(LLM2Rec(domains, config, tmp_path / "run").encoder("iem")), 16)
    first.save(tmp_path / "copy")
    second = TextEncoder("whatever the bundle says", 16, weights=tmp_path / "copy")
    assert torch.equal(first.encode(first.tokenize(TITLES)), second.encode(second.tokenize(TITLES)))
    model = second.model[0].auto_model
    with torch.no_grad():
        states = [model(input_ids=torch.tensor([[2, 9, 10, last]])).last_hidden_state[0, 0] for last in (11, 12)]
    assert not torch.equal(*states)


def test_each_stage_learns(domains: list[Domain], config: LLM2RecConfig, tmp_path: Path) -> None:
    """All weights, at a rate that shows in a few steps: a held-out title's tokens become likelier, the losses fall."""
    steps = {"lora": None, "learning_rate": 5e-3, "loop": {"max_steps": 40}}
    content = config.model_dump()
    for stage in ("csft", "mntp", "contrastive"):
        content[stage] |= steps
    content["contrastive"] |= {"learning_rate": 1e-3, "batch_size": 17}
    content["csft"]["loop"] = {"max_steps": 40, "monitor": "log_likelihood", "validate_first": True}
    run = LLM2Rec(domains, LLM2RecConfig.model_validate(content), tmp_path)
    run.encoder()
    for chain in ("csft", "csft-mntp", "csft-mntp-contrastive"):
        curve = json.loads((tmp_path / "stages" / chain / "curve.json").read_text())
        losses = [record["loss"] for record in curve if "loss" in record]
        assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3]), chain
        likelihoods = [record["log_likelihood"] for record in curve if "log_likelihood" in record]
        assert likelihoods == [] or max(likelihoods) > likelihoods[0] + 1.0


def test_an_interrupted_run_ends_as_one_that_was_not(
    domains: list[Domain], config: LLM2RecConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off in the third step of the last stage, with dropout in it; the stages before are not run again."""
    whole = LLM2Rec(domains, config, tmp_path / "whole")
    whole.encoder()
    from training.llm2rec import contrastive

    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return info_nce(*arguments)

    info_nce = contrastive.info_nce
    with monkeypatch.context() as patched:
        patched.setattr(contrastive, "info_nce", failing)
        with pytest.raises(KeyboardInterrupt):
            LLM2Rec(domains, config, tmp_path / "broken").encoder()
    before = (tmp_path / "broken" / "stages" / "csft" / WEIGHTS_FILE).stat().st_mtime_ns
    torch.manual_seed(999)
    again = LLM2Rec(domains, config, tmp_path / "broken")
    again.encoder()
    assert (tmp_path / "broken" / "stages" / "csft" / WEIGHTS_FILE).stat().st_mtime_ns == before
    first, second = contrastive_weights(whole), contrastive_weights(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_changed_stage_changes_those_after_it_alone(
    domains: list[Domain], config: LLM2RecConfig, tmp_path: Path
) -> None:
    """CSFT is kept where MNTP is trained anew; what rests on MNTP is too."""
    LLM2Rec(domains, config, tmp_path).encoder()
    stamps = {path.name: (path / WEIGHTS_FILE).stat().st_mtime_ns for path in (tmp_path / "stages").iterdir()}
    changed = config.model_copy(update={"mntp": config.mntp.model_copy(update={"blanked": 0.4})})
    LLM2Rec(domains, changed, tmp_path).encoder()
    after = {path.name: (path / WEIGHTS_FILE).stat().st_mtime_ns for path in (tmp_path / "stages").iterdir()}
    assert {name for name in stamps if after[name] != stamps[name]} == {"csft-mntp", "csft-mntp-contrastive"}


def test_an_encoder_that_is_not_the_model_is_refused(
    domains: list[Domain], config: LLM2RecConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is loaded and compared."""
    monkeypatch.setattr(encoders, "text_vectors", lambda _, tokens: torch.zeros(len(tokens), 32))
    with pytest.raises(EncoderError, match="differ from those in training"):
        LLM2Rec(domains, config, tmp_path).encoder("raw")


def test_the_commands_make_and_compare_encoders(tmp_path: Path) -> None:
    """The embedded LLM on two demo worlds; the table says where each encoder was trained, and the figures are there."""
    for name, seed in (("seen", 0), ("unseen", 1)):
        generate(DemoConfig(users=60, items=100, seed=seed)).save(tmp_path / name)
    fast = [f"{stage}.{limit}" for stage in ("csft", "mntp", "contrastive") for limit in ("max_steps=1",)]
    settings = [
        *fast,
        "csft.validation_users=4",
        "csft.batch_tokens=256",
        "contrastive.batch_size=4",
        "mntp.batch_size=4",
    ]
    options = [text for setting in settings for text in ("--set", setting)]
    made = ["llm2rec", str(tmp_path / "seen"), "--out", str(tmp_path / "run"), "--llm", EMBEDDED, *options]
    result = CliRunner().invoke(app, [*made, "--variant", "raw", "--variant", "llm2rec"])
    assert result.exit_code == 0, result.output
    folders = [str(tmp_path / "run" / name / "encoder") for name in ("raw", "llm2rec")]
    compared = ["evaluate-encoder", str(tmp_path / "seen"), str(tmp_path / "unseen"), "--out", str(tmp_path / "table")]
    chosen = [text for folder in folders for text in ("--encoder", folder)]
    result = CliRunner().invoke(
        app,
        [*compared, *chosen, "--use", "sasrec", "--use", "hybrid", "--set", "epochs=1", "--set", "embedding_size=8"],
    )
    assert result.exit_code == 0, result.output
    table = (tmp_path / "table" / "encoders.md").read_text()
    assert table.count("| llm2rec") == 4
    lines = [line for line in table.splitlines() if line.startswith("| llm2rec")]
    assert [("| yes |" in line, "| no |" in line) for line in lines] == [(True, False)] * 2 + [(False, True)] * 2
    assert CliRunner().invoke(app, [*made, "--variant", "half"]).exit_code == 2
