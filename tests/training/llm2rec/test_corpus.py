"""Titles and histories as tokens: which of them are targets, and what is never seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.catalogue import Catalogue
from models.errors import ConfigError, DataError
from models.llm.loading import load_tokenizer
from models.prompts.titles import encode_plain
from tests.tiny import tiny_split
from training.llm2rec.batches import mixed_batches, padded
from training.llm2rec.config import ItemTexts, LLM2RecConfig, Stage
from training.llm2rec.corpus import Corpus, Domain, Sentences, Titles, item_texts
from training.llm2rec.csft import CSFT
from training.llm2rec.start_token import start_token, with_start_token
from training.runs.settings import with_changes


def test_a_sentence_is_titles_in_a_row(corpus: Corpus) -> None:
    """`T5, T2, T9` and a new line after the start token; targets are the last two titles and the new line."""
    sentence = corpus.titles[0].sentence(np.array([5, 2, 9]), targets=2)
    text = corpus.tokenizer.decode(sentence.ids)
    assert text == "</s>Title 5, Title 2, Title 9\n"
    assert corpus.tokenizer.decode(sentence.ids[sentence.targets]) == " Title 2 Title 9\n"
    assert not sentence.targets[: 1 + len(encode_plain(corpus.tokenizer, ["Title 5"])[0])].any()


def test_the_loss_of_a_paper_s_sentence_is_on_the_last_title_alone(corpus: Corpus) -> None:
    """One target: the history's tokens, separators and the start are none."""
    sentence = corpus.titles[0].sentence(np.array([5, 2, 9]), targets=1)
    wanted = len(encode_plain(corpus.tokenizer, [" Title 9"])[0]) + len(encode_plain(corpus.tokenizer, ["\n"])[0])
    assert sentence.targets.tolist() == [False] * (len(sentence.ids) - wanted) + [True] * wanted


def items_of(corpus: Corpus, packed: bool) -> list[tuple[list[str], int]]:
    """Of the sentences of two users: titles by number, and how many of them are targets."""
    histories = [np.array([1, 2, 3, 4, 5, 6]), np.array([7]), np.array([8, 9])]
    sentences = Sentences(corpus.titles[0], histories, history_items=3, packed=packed)
    found = []
    for row in range(len(sentences)):
        sentence = sentences[row]
        numbers = corpus.tokenizer.decode(sentence.ids).removeprefix("</s>").strip().replace("Title ", "").split(", ")
        found.append((numbers, corpus.tokenizer.decode(sentence.ids[sentence.targets]).count("Title")))
    return found


def test_packed_windows_have_every_next_title_once(corpus: Corpus) -> None:
    """Counted from the latest; the first of a window is its history alone."""
    assert items_of(corpus, packed=True) == [(["3", "4", "5", "6"], 3), (["1", "2", "3"], 2), (["8", "9"], 1)]


def test_otherwise_every_next_title_has_a_sentence_with_its_whole_history(corpus: Corpus) -> None:
    """Three titles before it at most."""
    assert items_of(corpus, packed=False) == [
        (["3", "4", "5", "6"], 1),
        (["2", "3", "4", "5"], 1),
        (["1", "2", "3", "4"], 1),
        (["1", "2", "3"], 1),
        (["1", "2"], 1),
        (["8", "9"], 1),
    ]


def test_held_out_items_are_never_learned_from(corpus: Corpus) -> None:
    """Sentences of training have as many titles as training sequences; validation asks for validation items."""
    for domain, sentences in zip(corpus.domains, corpus.sentences(), strict=True):
        targets = sum(
            corpus.tokenizer.decode(sentence.ids[sentence.targets]).count("Title")
            for sentence in (sentences[row] for row in range(len(sentences)))
        )
        assert targets == sum(len(items) - 1 for items in domain.split.train)
    asked = CSFT(corpus, LLM2RecConfig().csft, 0).validation_sentences()
    wanted = [f" Title {item}\n" for domain in corpus.domains for item in domain.split.validation]
    assert [corpus.tokenizer.decode(sentence.ids[sentence.targets]) for sentence in asked] == wanted


def test_texts_of_all_domains_are_mixed_each_once(corpus: Corpus) -> None:
    """30 titles of the first and 4 more of the second, each after the start token; the vocabulary has all of them."""
    texts = [corpus.tokenizer.decode(ids) for ids in corpus.texts]
    assert texts == [f"</s>Title {number}" for number in range(1, 35)]
    assert set(np.concatenate(corpus.texts)) <= set(corpus.vocabulary.tolist())
    assert len(corpus.vocabulary) < len(corpus.tokenizer)
    assert corpus.alike == 0


def test_texts_that_are_cut_alike_are_counted(corpus: Corpus) -> None:
    """Of 34 titles that differ in their numbers alone none is left but the start they share."""
    cut = Corpus(corpus.domains, corpus.tokenizer, LLM2RecConfig(max_text_tokens=2))
    assert cut.alike + len(cut.texts) == 34
    assert cut.alike > 0


def test_iem_can_read_what_text_encoders_read_here() -> None:
    """Titles with categories, or titles alone; the padding row is empty."""
    catalogue = tiny_split().catalogue
    assert item_texts(catalogue, ItemTexts.TITLE)[:2] == ["", "Title 1"]
    assert item_texts(catalogue, ItemTexts.ITEM)[:2] == ["", "Title: Title 1, Categories: odd"]


def test_titles_are_cut(corpus: Corpus) -> None:
    """To so many tokens each, separators not counted."""
    titles = Titles(corpus.tokenizer, corpus.domains[0].split.catalogue, max_tokens=2)
    assert titles.sentence(np.array([1, 2]), 1).targets.sum() == 2 + len(encode_plain(corpus.tokenizer, ["\n"])[0])


def test_every_text_begins_with_the_start_token_once(llm: str) -> None:
    """An empty one too; BOS, or EOS where there is none; neither is an error."""
    tokenizer = with_start_token(load_tokenizer(llm))
    start = tokenizer.bos_token_id
    assert tokenizer(["", "Title 1"])["input_ids"] == [[start], [start, *encode_plain(tokenizer, ["Title 1"])[0]]]
    tokenizer.bos_token = None
    assert start_token(tokenizer) == (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="neither BOS nor EOS"):
        start_token(tokenizer)


def test_it_stays_so_in_a_folder(llm: str, tmp_path: Path) -> None:
    """Saved and loaded, a tokenizer that padded on the left has the start token, and pads on the right."""
    tokenizer = load_tokenizer(llm)
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    tokenizer.save_pretrained(tmp_path / "left")
    left = load_tokenizer(str(tmp_path / "left"))
    assert left.padding_side == "left"
    with_start_token(left).save_pretrained(tmp_path / "right")
    right = load_tokenizer(str(tmp_path / "right"))
    assert right.padding_side == "right"
    assert right(["Title 1"])["input_ids"] == with_start_token(tokenizer)(["Title 1"])["input_ids"]


def test_batches_have_every_row_once_within_their_limits() -> None:
    """Rows of like length together; padding included they hold at most so many tokens."""
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    for limits in ({"most_rows": 7}, {"most_padded": 90}):
        batches = mixed_batches(lengths, np.random.default_rng(1), **limits)
        assert sorted(np.concatenate(batches).tolist()) == list(range(200))
        assert max(map(len, batches)) <= limits.get("most_rows", 200)
        assert max(len(rows) * lengths[rows].max() for rows in batches) <= limits.get("most_padded", 10_000)


def test_padding_is_on_the_right() -> None:
    """By hand."""
    batch = padded([[3, 4], [5]], "cpu")
    assert batch.ids.tolist() == [[3, 4], [5, 0]]
    assert batch.real.tolist() == [[1, 1], [1, 0]]


def test_settings_are_read_and_refused(tmp_path: Path) -> None:
    """From a file and from `--set`, where a stage's loop may be left out; what is no setting is named."""
    path = tmp_path / "settings.toml"
    path.write_text("[csft]\nlearning_rate = 1e-3\n[csft.loop]\nmax_steps = 5\n")
    changes = ["mntp.minutes=2", "contrastive.loop.minutes=3", "csft.lora.rank=4", "seed=3"]
    config = with_changes(LLM2RecConfig(), changes, "llm2rec", path)
    assert (config.csft.learning_rate, config.csft.loop.max_steps, config.csft.lora.rank) == (1e-3, 5, 4)
    assert (config.mntp.loop.minutes, config.contrastive.loop.minutes, config.seed) == (2, 3, 3)
    assert with_changes(LLM2RecConfig(), ["csft.lora=none"], "llm2rec").csft.lora is None
    with pytest.raises(ConfigError, match=r"^llm2rec: unknown key 'csft.minuts', did you mean 'minutes'\?$"):
        with_changes(LLM2RecConfig(), ["csft.minuts=3"], "llm2rec")


def test_nothing_to_learn_from_is_told_before_training(corpus: Corpus, config: LLM2RecConfig) -> None:
    """All stages have to have something; those that are not wanted need nothing."""
    corpus.check(list(Stage))
    split = tiny_split()
    items = len(split.catalogue)
    columns = ([f"i{number}" for number in range(items)], ["Same"] * items, [""] * items, [()] * items, [1] * items)
    alike = replace(split, catalogue=Catalogue(*columns))
    same = Corpus([Domain("same", alike)], corpus.tokenizer, config)
    same.check([Stage.CSFT, Stage.MNTP])
    with pytest.raises(DataError, match="all items have the same text"):
        same.check([Stage.CONTRASTIVE])
    lonely = replace(split, train=[sequence[:1] for sequence in split.train])
    lone = Corpus([Domain("lonely", lonely)], corpus.tokenizer, config)
    lone.check([Stage.MNTP, Stage.CONTRASTIVE])
    with pytest.raises(DataError, match="no training sequence has two items"):
        lone.check([Stage.CSFT])
