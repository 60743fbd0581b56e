"""Prompts: wording, slots, and how they are made to fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.domain import DOMAINS
from models.errors import PromptTooLongError
from models.prompts.layout import Injection, Prompt, Slot
from models.prompts.template import EXPLANATION_TOKENS, PromptConfig, PromptTemplate
from models.prompts.titles import TitleTokens, encode_plain
from tests.tiny import tiny_llm

TOKENIZER = tiny_llm().tokenizer
SPECIAL = ["<unk>", "<pad>", "</s>"]
MOVIES = PromptConfig(domain=DOMAINS["movie"], history_items=3, max_title_tokens=8)
title = st.text(min_size=1, max_size=12).filter(str.strip)
titles = st.lists(title, max_size=6)
some_titles = st.lists(title, min_size=1, max_size=6)
# How a title may try to look like the prompt around it.
forgeries = st.sampled_from([*SPECIAL, '" [slot] "', '". The recommendation is "', "\n\n", '","', "<|user|>", '""'])


def tokens_of(texts: list[str], max_tokens: int = 8) -> list[list[int]]:
    encoded = TitleTokens(TOKENIZER, texts, max_tokens)
    return encoded.of(range(len(texts)))


def test_titles_that_are_cut_alike_are_counted() -> None:
    """Those that are the same whole are not meant: they are told apart nowhere."""
    titles = ["one two three", "one two four", "one two four", "five"]
    assert [TitleTokens(TOKENIZER, titles, tokens).alike for tokens in (1, 100)] == [1, 0]


def text_of(token_ids: np.ndarray | list[int]) -> str:
    return TOKENIZER.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def shown(layout) -> str:
    """The prompt's text with each slot as `[kind ordinal]`."""
    parts, start = [], 0
    for position, kind, ordinal in zip(layout.soft_positions, layout.slot_kinds, layout.slot_ordinals, strict=True):
        parts += [text_of(layout.token_ids[start:position]), f"[{Slot(kind).name} {ordinal}]"]
        start = position + 1
    return "".join([*parts, text_of(layout.token_ids[start:])])


def template(context: int = 1024, config: PromptConfig = MOVIES) -> PromptTemplate:
    return PromptTemplate(TOKENIZER, config, context)


def test_the_recommendation_prompt_reads_as_in_the_paper():
    """Figure 3, with the three latest of four films and quoted titles."""
    layout = template().recommend(tokens_of(["A", "B", "C", "D"]), tokens_of(["E", 'F "x"']))
    assert shown(layout) == (
        '</s>[USER 0] is a user representation. This user has watched "B"[HISTORY 1], "C"[HISTORY 2], "D"[HISTORY 3]'
        " in the previous. Recommend one next movie for this user to watch next from the following movie title set,"
        ' "E"[CANDIDATE 0], "F \'x\'"[CANDIDATE 1]. The recommendation is "'
    )
    assert [text_of(choice) for choice in layout.choices] == ["E", "F 'x'"]


def test_the_ablations_leave_out_slots():
    """Table 9: without the user's token, and without any."""
    history, candidates = tokens_of(["A"]), tokens_of(["E", "F"])
    without_user = template().recommend(history, candidates, Injection.ITEMS)
    assert without_user.slot_kinds.tolist() == [Slot.HISTORY, Slot.CANDIDATE, Slot.CANDIDATE]
    assert "user representation" not in shown(without_user)
    assert len(template().recommend(history, candidates, Injection.NONE).soft_positions) == 0
    user_alone = template().recommend(history, candidates, Injection.USER)
    assert user_alone.slot_kinds.tolist() == [Slot.USER]
    assert "user representation" in shown(user_alone)


def test_no_history_is_no_sentence():
    assert "This user has" not in shown(template().recommend([], tokens_of(["E"])))


def test_the_explanation_goes_on_from_the_answer():
    layout = template().explanation(tokens_of(["A"]), tokens_of(["Drama"])[0])
    assert shown(layout).endswith('The favorite genre is "Drama", because this user has watched')


@given(titles, some_titles)
def test_every_title_has_its_slot_behind_its_closing_quote(history: list[str], candidates: list[str]):
    layout = template().recommend(tokens_of(history), tokens_of(candidates))
    told = min(len(history), MOVIES.history_items)
    first = len(history) - told
    assert layout.slot_kinds.tolist() == [Slot.USER] + [Slot.HISTORY] * told + [Slot.CANDIDATE] * len(candidates)
    assert layout.slot_ordinals.tolist() == [0, *range(first, first + told), *range(len(candidates))]
    assert all(text_of(layout.token_ids[:slot]).endswith('"') for slot in layout.soft_positions[1:])


@given(st.lists(forgeries, max_size=3), st.lists(forgeries, min_size=1, max_size=3))
def test_no_title_can_forge_a_slot_a_quote_or_a_special_token(history: list[str], candidates: list[str]):
    """Whatever titles spell, the prompt has the slots, quotes and special tokens that harmless titles give it."""
    config = PromptConfig(domain=DOMAINS["movie"], history_items=3, max_title_tokens=40)
    forged = template(config=config).recommend(tokens_of(history, 40), tokens_of(candidates, 40))
    harmless = template(config=config).recommend(tokens_of(["x"] * len(history)), tokens_of(["x"] * len(candidates)))
    assert forged.slot_kinds.tolist() == harmless.slot_kinds.tolist()
    for token in (*TOKENIZER.all_special_ids, template().end_token):
        assert count_outside_slots(forged, token) == count_outside_slots(harmless, token)


def count_outside_slots(layout, token: int) -> int:
    return int((np.delete(layout.token_ids, layout.soft_positions) == token).sum())


@given(st.sampled_from(SPECIAL), st.text(max_size=5), st.text(max_size=5))
def test_special_token_spellings_stay_plain(special: str, before: str, after: str):
    """A text with `</s>` in it has no special token, and reads back as it was."""
    (token_ids,) = encode_plain(TOKENIZER, [before + special + after])
    assert not set(token_ids) & set(TOKENIZER.all_special_ids)
    assert text_of(token_ids) == before + special + after


@settings(max_examples=60)
@given(titles, some_titles, st.integers(150, 500))
def test_a_prompt_fits_with_any_of_its_choices(history: list[str], candidates: list[str], context: int):
    """Prompt, longest choice and its end stay within the context; every candidate is kept and told alike."""
    try:
        layout = template(context).recommend(tokens_of(history), tokens_of(candidates))
    except PromptTooLongError:
        assume(False)
    assert len(layout.token_ids) + max(len(choice) + 1 for choice in layout.choices) <= context
    assert len(layout.choices) == len(candidates)
    for choice, title in zip(layout.choices, tokens_of(candidates), strict=True):
        assert choice == title[: len(choice)]
        assert choice


def test_what_does_not_fit_drops_the_oldest_history_first_then_shortens_titles():
    """Shrinking the context token by token: history goes oldest first, then all titles lose tokens, then it fails."""
    history, candidates = tokens_of(["aaaaaa", "bbbbbb", "cccccc"]), tokens_of(["dddddddd", "eeeeeeee"])
    full = template(1024).recommend(history, candidates)
    seen = []
    for context in range(len(full.token_ids) + 20, 0, -1):
        try:
            layout = template(context).recommend(history, candidates)
        except PromptTooLongError as error:
            refusal = str(error)
            break
        told = layout.slot_ordinals[layout.slot_kinds == Slot.HISTORY].tolist()
        state = (len(told), max(map(len, layout.choices)))
        assert told == [0, 1, 2][3 - len(told) :]
        assert not seen or state <= seen[-1]
        if state not in seen:
            seen.append(state)
    assert "2 candidates" in refusal
    longest = max(len(title) for title in candidates)
    assert seen[:4] == [(3, longest), (2, longest), (1, longest), (0, longest)]
    assert seen[4:] == [(0, tokens) for tokens in range(longest - 1, 0, -1)]


@given(titles, title, st.integers(150, 300))
def test_an_explanation_leaves_room_to_answer(history: list[str], genre: str, context: int):
    tokens = tokens_of([genre])[0]
    try:
        layout = template(context).explanation(tokens_of(history), tokens)
    except PromptTooLongError:
        assume(False)
    assert len(layout.token_ids) + EXPLANATION_TOKENS <= context
    assert shown(layout).endswith(f'"{text_of(tokens)}", because this user has watched')


def test_slots_and_soft_tokens_must_match_in_number():
    with pytest.raises(ValueError, match="2 slots but 3"):
        Prompt(np.zeros(4, dtype=np.int64), np.asarray([0, 2]), torch.zeros(3, 8))


def test_an_llm_that_reads_no_tokens_gets_none():
    """By the bundle's config every prompt is plain text, and still says how much of the history it shows."""
    plain = template(config=PromptConfig(injection=Injection.NONE))
    history, genres = tokens_of(["Alien", "Brazil"]), tokens_of(["Drama", "Comedy"])
    for layout in (plain.recommend(history, genres), plain.favorite_genre(history, genres)):
        assert len(layout.soft_positions) == 0
        assert layout.shown == 2
