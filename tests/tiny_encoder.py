"""A sentence-transformers model of a few kilobytes with random weights, for tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def write_tiny_encoder(directory: Path, words: list[str], size: int = 16, seed: int = 0, dropout: float = 0.1) -> str:
    """Write a two-layer BERT over `words` in sentence-transformers' format and return its path."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL[1]))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * size,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    raw = directory / "raw"
    BertModel(config).save_pretrained(raw)
    fast.save_pretrained(raw)
    transformer = Transformer(str(raw), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(size, pooling_mode="mean"), Normalize()], device="cpu")
    path = directory / "tiny-encoder"
    model.save_pretrained(str(path), create_model_card=False)
    return str(path)


def retrain(folder: str | Path) -> None:
    """Other weights in the same folder."""
    path = Path(folder) / "model.safetensors"
    weights = load(path.read_bytes())
    save_file({name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in weights.items()}, path)


def halve(folder: str | Path) -> None:
    """The same weights in fp16."""
    path = Path(folder) / "model.safetensors"
    weights = load(path.read_bytes())
    save_file({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}, path)
    config = Path(folder) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float16"}))
