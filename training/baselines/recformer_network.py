"""RECFORMER's network: a Longformer over the words of items, its sizes, and items as it reads them.

Axes: B texts, L tokens, N items, M masked tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional
from transformers import AutoTokenizer, LongformerConfig, LongformerModel

from models.alignment.text_encoder import EMBEDDED, TextEncoder
from models.batching import batches_of_like_length
from models.catalogue import PADDING_ITEM, Catalogue
from models.errors import ConfigError
from training.baselines.bench import BaselineConfig
from training.runs.loop import LoopConfig

SPECIAL, KEYS, VALUES = 0, 1, 2
"""Types of tokens."""
ENCODED_AT_ONCE = 64
MOST_CHARACTERS = 400
"""Of a text that are tokenised."""


class RecformerConfig(BaselineConfig):
    """RECFORMER's budgets, and the sizes of a Longformer that is trained from scratch.

    Attributes:
        weights: "none", or the hub name or path of a Longformer to start from, such as allenai/longformer-base-4096.
        text_encoder: whose tokenizer is used; with `weights`, the Longformer's own.
        hidden_size: D, without `weights`.
        layers: of it, likewise.
        heads: of it, likewise.
        attention_window: tokens that each one sees, likewise.
        item_tokens: of an item's text.
        history_items: that are read, the latest first.
        temperature: of the cosines; 0.05 in the paper.
        word_weight: of the masked words' loss; 0.1 in the paper.
        batch_size: users a step.
        learning_rate: of AdamW.
        pretraining: how long.
        loop: of fine-tuning's first step, where all items are encoded anew every epoch.
        second_step: of its second, where the items' vectors rest as they were at the best validation of the first. The
            weights of the first are kept unless others are better on validation items.
    """

    weights: str = "none"
    text_encoder: str = EMBEDDED
    hidden_size: int = Field(64, gt=0)
    layers: int = Field(2, gt=0)
    heads: int = Field(2, gt=0)
    attention_window: int = Field(32, gt=0)
    item_tokens: int = Field(16, gt=2)
    history_items: int = Field(10, gt=0)
    temperature: float = Field(0.05, gt=0)
    word_weight: float = Field(0.1, ge=0)
    batch_size: int = Field(32, gt=1)
    learning_rate: float = Field(1e-3, gt=0)
    pretraining: LoopConfig = LoopConfig(epochs=10, minutes=5)
    loop: LoopConfig = LoopConfig(epochs=20, minutes=5, validate_first=True, patience=4)
    second_step: LoopConfig = LoopConfig(epochs=20, minutes=5, validate_first=True, patience=3)


class ItemTexts:
    """Items as key-value text: `title ... category ... description ...`, each token with the type of its word.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
        catalogue: the items.
        config: how much of each is read.

    Attributes:
        items: for all N+1 the tokens and their types; none of the padding row.
    """

    def __init__(self, tokenizer: Any, catalogue: Catalogue, config: RecformerConfig) -> None:
        self.pad = int(tokenizer.pad_token_id or 0)
        self.start = int(tokenizer.pad_token_id if tokenizer.cls_token_id is None else tokenizer.cls_token_id)
        self.mask = int(tokenizer.unk_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id)
        self.size = len(tokenizer)
        self._limit, self._history = config.item_tokens, config.history_items
        categories = [", ".join(names) for names in catalogue.categories]
        columns = {"title": catalogue.titles, "category": categories, "description": catalogue.descriptions}
        rows = [self._row(tokenizer, columns, item) for item in range(1, len(catalogue) + 1)]
        self.items: list[tuple[list[int], list[int]]] = [([], []), *rows]

    def _row(self, tokenizer: Any, columns: dict[str, list[str]], item: int) -> tuple[list[int], list[int]]:
        tokens: list[int] = []
        types: list[int] = []
        for key, texts in columns.items():
            for text, kind in ((key, KEYS), (texts[item][:MOST_CHARACTERS], VALUES)) if texts[item] else ():
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                tokens += ids
                types += [kind] * len(ids)
        return tokens[: self._limit], types[: self._limit]

    def of(self, items: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
        """Tokens, types and places of a text of `items`, oldest first: the latest has place 1, [CLS] place 0."""
        tokens, types, places = [self.start], [SPECIAL], [0]
        for place, item in enumerate(reversed(items[-self._history :]), start=1):
            words, kinds = self.items[item]
            tokens += words
            types += kinds
            places += [place] * len(words)
        return tokens, types, places


class Recformer(nn.Module):
    """Longformer over words, their types, and the places of the items that they are of.

    Args:
        longformer: without a pooling layer.
        config: sizes.
        items: N, for the vectors that fine-tuning compares with.
    """

    table: torch.Tensor
    table_epoch: torch.Tensor

    def __init__(self, longformer: LongformerModel, config: RecformerConfig, items: int) -> None:
        super().__init__()
        size = longformer.config.hidden_size
        self.longformer, self._temperature = longformer, config.temperature
        self.types, self.places = nn.Embedding(3, size), nn.Embedding(config.history_items + 1, size)
        self.words = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
        for table in (self.types, self.places):
            nn.init.normal_(table.weight, std=longformer.config.initializer_range)
        self.register_buffer("table", torch.zeros(items + 1, size))
        self.register_buffer("table_epoch", torch.tensor(-1))

    def forward(self, texts: Sequence[tuple[list[int], list[int], list[int]]], pad: int) -> torch.Tensor:
        """(B, L, D) outputs of B texts, padded on the right."""
        device, width = self.table.device, max(len(tokens) for tokens, _, _ in texts)
        columns = [
            torch.tensor([[*row[part], *[filler] * (width - len(row[part]))] for row in texts], device=device)
            for part, filler in ((0, pad), (1, SPECIAL), (2, 0))
        ]
        lengths_B = torch.tensor([len(tokens) for tokens, _, _ in texts], device=device)
        mask_B_L = (torch.arange(width, device=device) < lengths_B[:, None]).long()
        at_start_B_L = torch.zeros_like(mask_B_L)
        at_start_B_L[:, 0] = 1
        embeddings = self.longformer.get_input_embeddings()(columns[0])
        found = self.longformer(
            inputs_embeds=embeddings + self.types(columns[1]) + self.places(columns[2]),
            attention_mask=mask_B_L,
            global_attention_mask=at_start_B_L,
        )
        outputs: torch.Tensor = found.last_hidden_state[:, :width]
        return outputs

    def vectors(self, texts: Sequence[tuple[list[int], list[int], list[int]]], pad: int) -> torch.Tensor:
        """(B, D) at [CLS], of unit length."""
        return functional.normalize(self(texts, pad)[:, 0], dim=-1)

    @torch.no_grad()
    def encode(self, texts: ItemTexts, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """(n, D) of texts of several items each, in batches of like length, without dropout."""
        was_training = self.training
        self.eval()
        told = [texts.of(items) for items in rows]
        result = torch.zeros(len(told), self.table.shape[1], device=self.table.device)
        for chosen in batches_of_like_length([len(text[0]) for text in told], most_rows=ENCODED_AT_ONCE):
            result[torch.from_numpy(chosen)] = self.vectors([told[row] for row in chosen], texts.pad)
        self.train(was_training)
        return result

    def encode_items(self, texts: ItemTexts) -> torch.Tensor:
        """(N+1, D) of all items, row 0 zeros."""
        vectors_N_D = self.encode(texts, [[item] for item in range(len(texts.items))])
        vectors_N_D[PADDING_ITEM] = 0.0
        return vectors_N_D

    def word_logits(self, outputs_M_D: torch.Tensor) -> torch.Tensor:
        """(M, V) by the embeddings of the words themselves."""
        return functional.linear(self.words(outputs_M_D), self.longformer.get_input_embeddings().weight)

    def contrast(self, users_B_D: torch.Tensor, items_N_D: torch.Tensor, answers_B: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each user's next item among some, by cosines over the temperature."""
        return functional.cross_entropy(users_B_D @ items_N_D.T / self._temperature, answers_B)


def built(config: RecformerConfig, items: int) -> tuple[Recformer, Any]:
    """The network with fresh or published weights, and its tokenizer.

    Raises:
        ConfigError: weights or tokenizer cannot be loaded.
    """
    if config.weights != "none":
        try:
            longformer = LongformerModel.from_pretrained(config.weights, add_pooling_layer=False, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(config.weights)
        except (OSError, ValueError) as error:
            raise ConfigError(f"Longformer '{config.weights}' cannot be loaded: {error}") from error
        return Recformer(longformer, config, items).to(config.device), tokenizer
    encoder = TextEncoder(config.text_encoder, config.item_tokens, "cpu")
    tokenizer, size = encoder.model.tokenizer, config.hidden_size
    sizes = LongformerConfig(
        vocab_size=len(tokenizer),
        hidden_size=size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * size,
        attention_window=[config.attention_window] * config.layers,
        max_position_embeddings=config.history_items * config.item_tokens + 2 * config.attention_window + 4,
        pad_token_id=int(tokenizer.pad_token_id or 0),
    )
    return Recformer(LongformerModel(sizes, add_pooling_layer=False), config, items).to(config.device), tokenizer
