"""Loading an LLM: which part of it, in which way, and how a bundle knows it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config

from models.engines.transformers import TransformersEngine, TransformersEngineConfig
from models.errors import ConfigError
from models.llm.checkpoint import fingerprint_checkpoint
from models.llm.families import UnsupportedLLMError, context_length_of
from models.llm.forward import embed_tokens
from models.llm.loading import load_config, load_llm
from tests.models.scoring.families import EXACT, HEADS, MIXED, REFUSED, SIZES, tiny
from tests.tiny import tiny_llm
from training.llm2rec.model import load_model


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a model, with a tokenizer beside it, into a folder of its own."""

    def save(model: Any, **how: Any) -> Path:
        folder = tmp_path_factory.mktemp("llm")
        model.save_pretrained(folder, **how)
        tiny_llm().tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module")
def llama(save: Callable[..., Path]) -> Path:
    return save(tiny("llama", {}))


def test_of_a_multimodal_llm_the_text_is_asked(save: Callable[..., Path]):
    """Gemma 3 with eyes: sizes and context are those of its text part, in both engines' terms."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = SIZES | MIXED | HEADS
    tokens = {"image_token_index": 90, "boi_token_index": 91, "eoi_token_index": 92, "mm_tokens_per_image": 4}
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 16, "patch_size": 4}, **tokens)
    torch.manual_seed(0)
    folder = save(AutoModelForCausalLM.from_config(config))
    llm = load_llm(str(folder))
    assert (llm.token_size, llm.context_length) == (32, 128)
    engine = TransformersEngine(TransformersEngineConfig(llm=str(folder), workers=1))
    assert (engine.token_size, engine.context_length) == (32, 128)


def test_a_refused_family_is_not_loaded(save: Callable[..., Path]):
    folder = save(tiny("mpt", REFUSED["mpt"][0]))
    with pytest.raises(UnsupportedLLMError, match="ALiBi"):
        load_llm(str(folder))


def test_no_checkpoint_is_said_so(tmp_path: Path):
    tiny_llm().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no config"):
        load_llm(str(tmp_path))


def changed(folder: Path, **settings: Any) -> str:
    """The same folder with another config."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(folder)


def test_weights_that_are_not_there_are_not_drawn(save: Callable[..., Path]):
    """A head, or layers: two loads would be two LLMs of one fingerprint."""
    headless = save(tiny("llama", {"tie_word_embeddings": False}).model)
    for folder, lacking in (
        (str(headless), "lm_head.weight"),
        (changed(save(tiny("llama", {})), num_hidden_layers=3), "model.layers.2"),
    ):
        with pytest.raises(ConfigError, match=rf"its files lack weights that its config has: {lacking}"):
            load_llm(folder)
        with pytest.raises(ConfigError, match=rf"its files lack weights that its config has: {lacking}"):
            load_model(folder, "cpu")


def test_broken_files_are_told_in_a_line(save: Callable[..., Path]):
    """Whatever error they end in, it names the LLM and what could not be read."""
    cut = save(tiny("llama", {}))
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    other = changed(save(tiny("llama", {})), hidden_size=64)
    tokenless = save(tiny("llama", {}))
    (tokenless / "tokenizer.json").write_text('{"a": 1}')
    for folder, what in ((str(cut), "weights"), (other, "weights"), (str(tokenless), "tokenizer")):
        with pytest.raises(ConfigError, match=f"no {what} can be loaded: ") as raised:
            load_llm(folder)
        assert "\n" not in str(raised.value)


def test_a_frozen_llm_is_the_same_in_training(save: Callable[..., Path]):
    """Dropout of its config plays no part."""
    model = load_llm(str(save(tiny("gpt2", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5})))).model
    tokens = torch.arange(5, 25)[None]
    expected = model(tokens).logits
    torch.testing.assert_close(model.train()(tokens).logits, expected)


def test_embeddings_that_scale_themselves_are_scaled():
    """Gemma multiplies what stands in its table by the root of its size; injected tokens live in that space."""
    model = tiny("gemma3_text", EXACT["gemma3_text"])
    tokens = torch.arange(5, 25)
    torch.testing.assert_close(embed_tokens(model, tokens), model.model.embed_tokens.weight[tokens] * 32**0.5)


def test_longrope_keeps_to_the_context_in_which_nothing_switches():
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 10000.0}
    original = {"original_max_position_embeddings": 64}
    config = AutoConfig.for_model("phi3", **SIZES, **original, rope_parameters=rope | original)
    assert context_length_of(config) == 64
    assert context_length_of(AutoConfig.for_model("phi3", **SIZES)) == 128


class TestFingerprint:
    """A digest of the config and all weights, as stored."""

    def test_is_the_same_however_it_is_loaded_and_cut(self, llama: Path, save: Callable[..., Path]) -> None:
        """In another dtype; in shards; under another name."""
        found = {load_llm(str(llama), dtype=dtype).fingerprint for dtype in (torch.float32, torch.bfloat16)}
        sharded = save(tiny("llama", {}), max_shard_size="10KB")
        assert len(list(sharded.glob("*.safetensors"))) > 1
        assert found == {fingerprint_checkpoint(str(sharded))}

    @pytest.mark.parametrize("part", ["q_proj", "down_proj", "norm.weight", "embed_tokens"])
    def test_differs_with_any_weight(self, part: str, llama: Path, save: Callable[..., Path]) -> None:
        """A merged adapter is another LLM."""
        folder = save(tiny("llama", {}))
        weights = load_file(folder / "model.safetensors")
        name = next(name for name in weights if part in name)
        weights[name].view(-1)[-1] += 1e-3
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        assert fingerprint_checkpoint(str(folder)) != fingerprint_checkpoint(str(llama))

    @pytest.mark.parametrize(
        ("key", "value", "same"),
        [("rms_norm_eps", 1e-3, False), ("transformers_version", "9.9", True), ("dtype", "bfloat16", True)],
    )
    def test_differs_with_what_the_config_means(
        self, key: str, value: Any, same: bool, llama: Path, save: Callable[..., Path]
    ) -> None:
        folder = save(tiny("llama", {}))
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        assert (fingerprint_checkpoint(str(folder)) == fingerprint_checkpoint(str(llama))) is same

    def test_older_files_count_too(self, save: Callable[..., Path]) -> None:
        """`pytorch_model.bin`, as old checkpoints have it."""
        folder = save(tiny("llama", {}))
        expected = fingerprint_checkpoint(str(folder))
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        assert fingerprint_checkpoint(str(folder)) == expected

    def test_without_weights_there_is_none(self, tmp_path: Path) -> None:
        AutoConfig.for_model("llama", **SIZES).save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match="no weights"):
            fingerprint_checkpoint(str(tmp_path))


class TestEightBits:
    def test_need_a_gpu(self, llama: Path) -> None:
        with pytest.raises(ConfigError, match="onto a GPU only"):
            load_llm(str(llama), load_in_8bit=True)

    def test_are_asked_of_transformers(self, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is told to quantise, and to put it all onto the device; nothing moves it afterwards."""
        asked: dict[str, Any] = {}

        def from_pretrained(name: str, **how: Any) -> Any:
            asked.update(how)
            model = AutoModelForCausalLM.from_config(load_config(name))
            monkeypatch.setattr(model, "to", lambda *_: pytest.fail("a quantised model is not moved"))
            return model, {"missing_keys": set()}

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
        load_llm(str(llama), "cuda:0", torch.bfloat16, load_in_8bit=True)
        assert asked["quantization_config"].load_in_8bit
        assert (asked["device_map"], asked["dtype"]) == ({"": "cuda:0"}, torch.bfloat16)
