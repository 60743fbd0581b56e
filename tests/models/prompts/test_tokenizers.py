"""Prompts and titles by tokenizers of every kind: pieces add up to the text, in any script."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast

from models.engines.text_stream import TextStream
from models.errors import ConfigError
from models.prompts.anchor import anchor_of
from models.prompts.template import PromptConfig, PromptTemplate
from models.prompts.titles import TitleTokens, as_quoted, decode_plain, encode_plain
from models.scoring.choices import ChoiceTrie
from tests.tiny import tiny_llm

CHARACTERS = sorted(
    set('This user has watched "Title 1", "Title 2" in the previous. The recommendation is (1977)xy') - {" "}
)
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TITLES = ["Amélie", "千と千尋の神隠し", "الرسالة", "🎬 🏳️‍🌈", "Title 1", "1984", "(500) Days", "'Tis", "über", " x  y "]


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Special tokens, bytes, characters and merges."""
    merges = [("▁", '"'), ("T", "i"), ("Ti", "t"), ("Tit", "l"), ("Titl", "e"), ("▁", "Title"), ("i", "s"), ('"', ",")]
    tokens = [*SPECIAL, *BYTES, "▁", *CHARACTERS, *(left + right for left, right in merges)]
    return {token: number for number, token in enumerate(tokens)}, merges


def byte_level() -> Any:
    """As GPT-2's and OPT's."""
    return tiny_llm().tokenizer


def sentencepiece(prepend: str) -> Any:
    """As Llama 2's, Mistral's and Gemma's: words begin with a mark, unknown characters are spelled in bytes."""
    tokenizer = Tokenizer(BPE(*vocabulary(), unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend, split=False)
    strip = [] if prepend == "never" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return fast(tokenizer)


def byte_level_with_a_space() -> Any:
    """As RoBERTa's and some BLOOMs': a space before the first word, which decoding keeps."""
    tokenizer = Tokenizer.from_str(byte_level().backend_tokenizer.to_str())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return fast(tokenizer)


def legacy() -> Any:
    """As Llama 2's was converted at first: its normaliser writes the mark of the first word."""
    tokenizer = sentencepiece("never").backend_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(tokenizer)


def unigram() -> Any:
    """As T5's and XGLM's: no line breaks, so another anchor is needed."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁Title", -3.0), ('▁"', -3.0)]
    tokenizer = Tokenizer(
        Unigram([*pieces, *((text, -4.0) for text in [*CHARACTERS, *BYTES])], unk_id=0, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("\n", " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    return fast(tokenizer)


def fast(tokenizer: Tokenizer) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


TOKENIZERS = {
    "byte level": byte_level(),
    "byte level, a space first": byte_level_with_a_space(),
    "sentencepiece, first": sentencepiece("first"),
    "sentencepiece, always": sentencepiece("always"),
    "sentencepiece, never": sentencepiece("never"),
    "sentencepiece, legacy": legacy(),
    "unigram": unigram(),
}
each_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


@each_tokenizer
def test_pieces_add_up_to_the_text(tokenizer: Any):
    """No space that the text has not, and none missing."""
    pieces = [" This user has", ' "', *TITLES[:4], '"', ",", ' "', "Title 1", '"', ". The recommendation is"]
    tokens = [token for ids in encode_plain(tokenizer, pieces) for token in ids]
    assert decode_plain(tokenizer, tokens) == "".join(pieces)


@each_tokenizer
@settings(max_examples=40, deadline=None)
@given(title=st.text(min_size=1, max_size=12).filter(str.strip))
@example(title="</s>")
@example(title="\u200d")
@example(title="▁")
def test_titles_in_any_script_read_back(tokenizer: Any, title: str):
    """A title as quoted, character by character; none spells a special token."""
    (tokens,) = TitleTokens(tokenizer, [title], 200).of([0])
    assert not set(tokens) & set(tokenizer.all_special_ids)
    expected = as_quoted(title)
    if "▁" in expected and not isinstance(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        expected = expected.replace("▁", " ")
    assert decode_plain(tokenizer, tokens) == expected


@each_tokenizer
def test_prompts_read_as_texts(tokenizer: Any):
    """The whole prompt without slots is the sentence that it is to be, behind the BOS that the LLM wants."""
    template = PromptTemplate(tokenizer, PromptConfig(max_title_tokens=200), 4096)
    titles = TitleTokens(tokenizer, TITLES, 200)
    layout = template.recommend(titles.of([0, 1]), titles.of([2, 3, 4]), injection="none")
    assert layout.token_ids[0] == tokenizer.bos_token_id
    noun = PromptConfig().domain.noun
    text = decode_plain(tokenizer, layout.token_ids[1:])
    assert f'"{TITLES[0]}", "{TITLES[1]}" in the previous.' in text
    assert text.endswith(f'{noun} title set, "{TITLES[2]}", "{TITLES[3]}", "{TITLES[4]}". The recommendation is "')
    assert [decode_plain(tokenizer, choice) for choice in layout.choices] == TITLES[2:5]


@each_tokenizer
def test_what_is_written_keeps_its_spaces(tokenizer: Any):
    """A continuation begins with a space where it begins with a word."""
    stream = TextStream(tokenizer, ('"',))
    (tokens,) = encode_plain(tokenizer, [' "Title 1" and'])
    pieces = []
    for token in tokens:
        pieces.append(stream.push(token))
        if stream.ended:
            break
    assert "".join(pieces) == ' "'


def test_a_closing_quote_of_several_tokens_ends_choices_as_a_whole():
    """`"` is written as `<<`: a title that goes on with the first of these is a choice of its own."""
    tokenizer = fast(byte_level().backend_tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace('"', "<<")
    assert not anchor_of(tokenizer).text
    template = PromptTemplate(tokenizer, PromptConfig(), 4096)
    opening, mark = encode_plain(tokenizer, ["<<", "<"])
    assert opening == mark * 2
    titles = TitleTokens(tokenizer, ["A", "A<B", "A<C"], 16).of(range(3))
    layout = template.recommend([], titles)
    assert layout.choices == [[*title, *mark] for title in titles]
    assert template.end_token == mark[0]
    trie = ChoiceTrie(layout.choices, template.end_token)
    assert len(set(trie.groups.tolist())) == 3
    log_probs = trie.log_probs([[0.0] * len(branch.children) for branch in trie.branches])
    assert sum(2.718281828459045**value for value in log_probs) == pytest.approx(1.0)


NORMALISERS = {
    "full width": normalizers.NFKC(),
    "apostrophes": normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]),
}


@pytest.mark.parametrize("normaliser", NORMALISERS.values(), ids=NORMALISERS)
@pytest.mark.parametrize("make", [byte_level, lambda: sentencepiece("first"), unigram])
def test_no_normaliser_brings_a_quote_back(normaliser: Any, make: Any):
    """NFKC makes `"` of full-width quotes, ALBERT's normaliser of two apostrophes: no title ends its own quote."""
    tokenizer = fast(Tokenizer.from_str(make().backend_tokenizer.to_str()))
    own = tokenizer.backend_tokenizer.normalizer
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normaliser, *([own] if own else [])])
    template = PromptTemplate(tokenizer, PromptConfig(max_title_tokens=40), 4096)
    given = ["A", "A\uff02 B", "\uff02A\uff02", "A'' B", '""A"" B', "``A``"]
    titles = TitleTokens(tokenizer, given, 40)
    layout = template.recommend([], titles.of(range(len(given))))
    trie = ChoiceTrie(layout.choices, template.end_token)
    log_probs = trie.log_probs([[0.0] * len(branch.children) for branch in trie.branches])
    assert sum(2.718281828459045**value for value in log_probs) == pytest.approx(1.0)
    assert not any(template.end_token in choice for choice in layout.choices)


def test_what_a_tokenizer_does_not_know_is_no_anchor():
    """Without bytes a line break is the unknown token, of which nothing is left in a text."""
    pieces = [("<unk>", 0.0), ("▁", -2.0), *((text, -4.0) for text in string.printable.strip())]
    tokenizer = Tokenizer(Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    (tokens,) = encode_plain(fast(tokenizer), ["This user likes films"])
    assert decode_plain(fast(tokenizer), tokens) == "This user likes films"


def test_a_tokenizer_without_a_quotation_mark_is_refused():
    """Nothing would end a title."""
    tokenizer = Tokenizer(
        BPE({token: number for number, token in enumerate([*SPECIAL, *CHARACTERS[1:], "\u2581"])}, [])
    )
    for unknown in ("<unk>", None):
        tokenizer.model.unk_token = unknown
        with pytest.raises(ConfigError, match="has no token for"):
            PromptTemplate(fast(tokenizer), PromptConfig(), 4096)
