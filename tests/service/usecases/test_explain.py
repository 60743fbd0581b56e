"""GET /explain/genre."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle.store import load_bundle
from models.composer import PromptComposer
from models.llm.loading import load_tokenizer
from models.prompts.template import PromptConfig
from models.prompts.titles import LONGEST_TOLD
from service.usecases.narration import Narration, is_grounded, loops
from tests.service.world import GENRES, FakeEngine, World, broken, serving

pytestmark = pytest.mark.anyio


async def explain(client: httpx.AsyncClient, user_id: str, **query: Any) -> dict[str, Any]:
    answer = await client.get("/explain/genre", params={"user_id": user_id, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    blocks = [block.split("\n") for block in text.split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


async def test_genres_come_with_the_history_that_speaks_for_them(client: httpx.AsyncClient, world: World) -> None:
    """Probabilities over all four genres sum to one; evidence is the history's items of that genre, latest first."""
    answer = await explain(client, "u0", top_k=4)
    assert answer["ranker"] == "llm"
    assert sorted(share["genre"] for share in answer["genres"]) == sorted(GENRES)
    probabilities = [share["probability"] for share in answer["genres"]]
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities == sorted(probabilities, reverse=True)
    contents = load_bundle(world.bundle).model
    history = contents.histories.of("u0")[::-1]
    for share in answer["genres"]:
        expected = [f"i{item}" for item in history if GENRES[(item - 1) % 4] == share["genre"]]
        assert [item["item_id"] for item in share["evidence"]] == expected


async def test_top_k_limits_the_genres_but_not_what_they_are_probable_among(client: httpx.AsyncClient) -> None:
    every, first = await explain(client, "u0", top_k=4), await explain(client, "u0", top_k=1)
    assert [share["genre"] for share in first["genres"]] == [share["genre"] for share in every["genres"][:1]]
    assert first["genres"][0]["probability"] == pytest.approx(every["genres"][0]["probability"])
    assert len((await explain(client, "u0"))["genres"]) == 3


async def write_pieces(*pieces: str) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece


async def cite(client: httpx.AsyncClient, engine: FakeEngine, end: str = ".") -> str:
    """Have the LLM cite one title that speaks for the first genre; returns what it writes."""
    evidence = (await explain(client, "u0"))["genres"][0]["evidence"]
    prompted = sorted((item["title"] for item in evidence[:3]), key=engine.tokenizer.encode)
    engine.texts = cycle([[' "'], [end]])
    return f' this user has watched "{prompted[0]}"{end}'


async def test_the_sentence_is_the_llms(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    written = await cite(faked, engine)
    answer = await explain(faked, "u0")
    assert (
        answer["sentence"]
        == f"The favorite movie genre of this user is {answer['genres'][0]['genre']}, because{written}"
    )
    assert answer["sentence_source"] == "llm"


@pytest.mark.parametrize(
    ("sentence", "holds"),
    [
        ('It is "A" and "B".', True),
        ("The users' friends\u2019 film is \"\u201cA\u201d, the 'B'\".", True),
        ("It is good.", False),
        ('It is "A" and', False),
        ("", False),
        ('It is \u201cFake\u201d and "A".', False),
        ("It is 'Fake' and \"A\".", False),
        ('It is \u00abFaux\u00bb and "A".', False),
        ('It is *Fake* and "A".', False),
        ('It is \uff02Fake\uff02 and "A".', False),
        ('It is \u275dFake\u275e and "A".', False),
        ('It is \u2033Fake\u2033 and "A".', False),
        ('It is \u00b4Fake\u00b4 and "A".', False),
    ],
)
def test_a_sentence_holds_if_it_ends_and_quotes_something(sentence: str, holds: bool) -> None:
    assert is_grounded(sentence) is holds


def test_what_can_be_quoted_was_prompted(world: World) -> None:
    """Not what the prompt has no room to tell; equal titles once; as it stands in the prompt."""
    contents = load_bundle(world.bundle).model
    contents.catalogue.titles[4:7] = ['the  "red" one', "silent", "silent"]
    composer = PromptComposer(contents, PromptConfig(history_items=3), load_tokenizer(str(world.llm)), 1024)
    vector = contents.user_vectors([[1, 2, 4]])[0]
    draft = composer.explanation(vector, [1, 4, 5, 6], GENRES[0])
    assert [quotable.text for quotable in draft.quotables] == ["the 'red' one", "silent"]
    decode = load_tokenizer(str(world.llm)).decode
    assert [decode(quotable.tokens) for quotable in draft.quotables] == ["the 'red' one", "silent"]
    assert decode(draft.prompt.token_ids).count('"silent"') == 2
    contents.catalogue.titles[4] = "word " * 1000
    (quotable,) = composer.explanation(vector, [4], GENRES[0]).quotables
    assert len(quotable.text) <= LONGEST_TOLD
    assert quotable.text.startswith("word word")


@pytest.mark.parametrize(("first", "joined"), [(' "', ' "'), ('"', ' "'), (",", ","), ("", " ")])
async def test_the_llm_goes_on_where_the_opening_ends(first: str, joined: str) -> None:
    narration = Narration("because this user has watched", "the facts", write_pieces(first, 'A".'))
    assert (await narration.whole()).startswith(f"because this user has watched{joined}A")


async def test_a_genre_with_a_quote_in_it_is_no_title() -> None:
    """Only what the LLM wrote counts as quoted by it."""
    narration = Narration('The favorite genre is 12" Vinyl, because', "the facts", write_pieces(" it is good", "."))
    assert (await narration.whole(), narration.source) == ("the facts", "template")


async def test_without_evidence_the_llm_is_not_asked(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    """It could quote nothing."""
    engine.texts = cycle([['"'], ["."]])
    answers = [await explain(faked, f"u{number}") for number in range(20)]
    without = [answer for answer in answers if not answer["genres"][0]["evidence"]]
    assert without
    assert {answer["sentence_source"] for answer in without} == {"template"}


async def test_a_sentence_that_did_not_end_leaves_the_facts(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    await cite(faked, engine, end=" and")
    assert (await explain(faked, "u0"))["sentence_source"] == "template"


async def test_a_streamed_sentence_follows_the_genres_and_is_summed_up(
    faked: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await cite(faked, engine)
    whole = await explain(faked, "u0")
    answer = await faked.get("/explain/genre", params={"user_id": "u0", "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    sent = events(answer.text)
    assert [name for name, _ in sent] == ["genres", "token", "token", "token", "done"]
    assert sent[0][1]["genres"] == whole["genres"]
    assert "".join(data["text"] for name, data in sent if name == "token") == whole["sentence"]
    assert {**sent[-1][1], "took_ms": 0} == {**whole, "took_ms": 0}


async def test_without_an_llm_the_facts_make_the_sentence(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.failure = broken()
    answer = await explain(faked, "u0", top_k=4)
    assert (answer["ranker"], answer["fallback"], answer["sentence_source"]) == ("blend", "llm_error", "template")
    assert sum(share["probability"] for share in answer["genres"]) == pytest.approx(1)
    titles = [item["title"] for item in answer["genres"][0]["evidence"][:3]][::-1]
    if titles:
        assert all(f"“{title}”" in answer["sentence"] for title in titles)
    assert answer["sentence"].startswith(
        f"The favorite movie genre of this user is {answer['genres'][0]['genre']}, bec"
    )


async def test_an_llm_that_fails_while_writing_leaves_the_facts(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    """The genres are the LLM's, it begins to write and breaks: the sentence that counts is the template's."""

    async def fail(*_: Any) -> Any:
        yield " it was"
        raise broken()

    engine.generate = fail  # type: ignore[method-assign]
    answer = await faked.get("/explain/genre", params={"user_id": "u0", "stream": True})
    done = events(answer.text)[-1]
    assert done[0] == "done"
    assert (done[1]["ranker"], done[1]["sentence_source"]) == ("llm", "template")
    assert "it was" not in done[1]["sentence"]


async def test_an_llm_that_writes_nothing_leaves_the_facts(faked: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.texts = cycle([[]])
    assert (await explain(faked, "u0"))["sentence_source"] == "template"


async def test_an_llm_that_gets_stuck_is_stopped_and_leaves_the_facts(
    faked: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.texts, before = cycle([[]]), engine.calls
    await explain(faked, "u0")
    asked, before = engine.calls - before, engine.calls
    engine.texts = cycle([[" so"] * 100])
    assert (await explain(faked, "u0"))["sentence_source"] == "template"
    assert engine.calls == before + asked + 3  # the same questions, and the word three times


@pytest.mark.parametrize(
    ("text", "stuck"),
    [
        ("it is so so so", True),
        ("it is so, so so", False),
        ("this and that and that and that", True),
        ("a b c d a b c d a b c d", True),
        ("a b c d e a b c d e a b c d e", False),
        ("no no", False),
        ("", False),
    ],
)
def test_a_text_is_stuck_if_it_says_the_same_thrice(text: str, stuck: bool) -> None:
    assert loops(text) is stuck


async def test_an_unknown_user_is_404(client: httpx.AsyncClient) -> None:
    answer = await client.get("/explain/genre", params={"user_id": "nobody"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_user_without_usable_history_gets_what_is_popular(client: httpx.AsyncClient, world: World) -> None:
    """Known by an event about an item that this bundle does not have."""
    await client.post("/feedback", json={"events": [{"user_id": "stranger", "item_id": "from-another-bundle"}]})
    answer = await explain(client, "stranger", top_k=4)
    assert (answer["ranker"], answer["fallback"], answer["sentence_source"]) == ("popularity", "cold_user", "template")
    catalogue = load_bundle(world.bundle).model.catalogue
    counts = {genre: int(catalogue.interactions[items].sum()) + 1 for genre, items in catalogue.category_items.items()}
    total = sum(counts.values())
    assert {share["genre"]: pytest.approx(share["probability"]) for share in answer["genres"]} == {
        genre: count / total for genre, count in counts.items()
    }
    assert all(share["evidence"] == [] for share in answer["genres"])


@pytest.mark.parametrize("query", [{}, {"user_id": ""}, {"user_id": "u0", "top_k": 0}, {"user_id": "u0", "top_k": 31}])
async def test_bad_queries_are_422(client: httpx.AsyncClient, query: dict[str, Any]) -> None:
    assert (await client.get("/explain/genre", params=query)).status_code == 422


async def test_a_late_llm_is_not_waited_for(world: World, engine: FakeEngine, tmp_path: Path) -> None:
    async with serving(world.settings_for(tmp_path, explain_timeout_ms=200), engine) as (client, _):
        engine.seconds = 3600
        answer = await explain(client, "u0")
        assert (answer["ranker"], answer["fallback"], answer["sentence_source"]) == ("blend", "timeout", "template")
