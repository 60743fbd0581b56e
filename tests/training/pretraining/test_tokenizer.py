"""The embedded LLM's tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.llm.loading import load_tokenizer
from models.prompts.titles import encode_plain
from training.pretraining.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    """Byte-level: every string, in any script, survives the round trip."""
    assert tokenizer.decode(encode_plain(tokenizer, [text])[0]) == text


@pytest.mark.parametrize("text", ["</s>", "<pad>", "<unk>", "a </s> b"])
def test_text_that_spells_a_special_token_stays_text(tokenizer, text):
    """No title can end the text or pad it."""
    ids = encode_plain(tokenizer, [text])[0]
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == text


def test_special_tokens_are_where_opt_has_them(tokenizer):
    """One token begins and ends a text; padding is 1."""
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 2, 1)
    assert len(tokenizer) == 4096


def test_quotes_are_single_tokens(tokenizer):
    """The model finds titles by the opening quote, and the closing one ends every choice."""
    opening, closing = encode_plain(tokenizer, [' "', '"'])
    assert len(opening) == len(closing) == 1
    assert opening != closing


def test_training_is_deterministic():
    """The same corpus gives the same tokenizer."""
    first, second = (train_tokenizer(titles=300, vocab_size=600).backend_tokenizer.to_str() for _ in range(2))
    assert first == second
