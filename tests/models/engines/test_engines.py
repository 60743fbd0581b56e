"""What every engine must do: the transformers engine, the same in a process of its own, and vLLM."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.engines.base import InvalidPromptError, LLMEngine
from models.engines.process import EngineProcess
from models.engines.transformers import TransformersEngine, TransformersEngineConfig
from models.errors import ConfigError, EngineError, OverloadedError
from models.llm.loading import load_llm
from models.prompts.layout import Prompt
from models.prompts.titles import encode_plain
from models.scoring.choices import ChoiceTrie
from models.scoring.likelihood import ContinuationTree
from models.writing import Draft, Quotable, write
from tests.device import DEVICE
from tests.models.engines.hosting import CONTEXT, END, TOKEN_SIZE, Hosted, Reference, log_probs, make_prompt

SHARED_STARTS = [[10, 11, 12], [10, 11, 13], [10, 14], [10], [20, 11, 12], [30], [30, 11], [30]]
NO_SLOTS = np.zeros(0, dtype=np.int64)


async def collect(engine: LLMEngine, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()) -> list[str]:
    return [piece async for piece in engine.generate(prompt, max_tokens, stop)]


class Opens:
    """An engine that opens a quote first and then writes as it does."""

    def __init__(self, engine: LLMEngine) -> None:
        self._engine, self._begun = engine, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, *arguments: Any) -> AsyncIterator[str]:
        if not self._begun:
            self._begun = True
            yield ' for "'
            return
        async for piece in self._engine.generate(*arguments):
            yield piece


@pytest.fixture(scope="module")
def narrow_process(checkpoint: Path) -> Iterator[Hosted]:
    """A process whose engine has room for two requests: there nothing can be changed once it runs."""
    config = TransformersEngineConfig(llm=str(checkpoint), device=DEVICE, max_waiting=2)
    with asyncio.Runner() as runner:
        narrow = Hosted(EngineProcess(TransformersEngine(config)), runner)
        narrow.run(narrow.engine.start())
        yield narrow
        narrow.run(narrow.engine.close())


@pytest.fixture
def at_most_two(hosted: Hosted, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Hosted:
    """The engine with room for two requests."""
    if isinstance(hosted.engine, EngineProcess):
        narrow: Hosted = request.getfixturevalue("narrow_process")
        return narrow
    config = hosted.engine.config.model_copy(update={"max_waiting": 2})
    monkeypatch.setattr(hosted.engine, "config", config)
    return hosted


def test_knows_its_llm(hosted: Hosted, checkpoint):
    """Identity, sizes and health are those of the checkpoint: what a bundle is checked against."""
    engine = hosted.engine
    llm = load_llm(str(checkpoint))
    assert (engine.fingerprint, engine.token_size, engine.context_length) == (
        llm.fingerprint,
        TOKEN_SIZE,
        CONTEXT,
    )
    assert engine.healthy


@pytest.mark.parametrize(("length", "slots"), [(1, 1), (40, 3), (200, 20), (97, 0)])
def test_scores_equal_brute_force(hosted: Hosted, reference: Reference, length: int, slots: int):
    """Shared starts, a choice that begins another, equal choices: as decoding over the full trie token by token."""
    prompt = make_prompt(length, slots, seed=length)
    expected = reference.log_probs(prompt, SHARED_STARTS)
    assert hosted.log_probs(prompt, SHARED_STARTS) == pytest.approx(expected, abs=1e-3)
    assert np.exp(expected).sum() == pytest.approx(1.0)


def test_scores_a_node_with_many_children(hosted: Hosted, reference: Reference):
    """All of 300 first tokens, more than vLLM gives in one answer."""
    choices = [[token] for token in range(6, 306)]
    prompt = make_prompt(33)
    expected = reference.log_probs(prompt, choices)
    assert hosted.log_probs(prompt, choices) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("length", "slots"), [(1, 1), (40, 3), (97, 0)])
def test_likelihoods_equal_plain_loops(hosted: Hosted, reference: Reference, length: int, slots: int):
    """Whole strings over the whole vocabulary, token by token; strings may begin others and be equal."""
    prompt, strings = make_prompt(length, slots, seed=length), [[*choice, END] for choice in SHARED_STARTS] + [[10, 11]]
    tree = ContinuationTree(strings)
    found = tree.token_log_probs(hosted.run(hosted.engine.score(prompt, tree)))
    for string, values in zip(strings, found, strict=True):
        assert values == pytest.approx(reference.token_log_probs(prompt, string), abs=1e-3)


def test_likelihoods_and_choices_at_once_change_nothing(hosted: Hosted, reference: Reference):
    """Each kind of question gets its own kind of answer, whatever waits beside it."""
    engine, prompt = hosted.engine, make_prompt(60, seed=8)
    tree, trie = ContinuationTree(SHARED_STARTS), ChoiceTrie(SHARED_STARTS, END)

    async def together():
        return await asyncio.gather(*(engine.score(prompt, asked) for asked in [tree, trie] * 6))

    results = hosted.run(together())
    expected = [reference.token_log_probs(prompt, string).sum() for string in SHARED_STARTS]
    for likelihoods, choices in zip(results[::2], results[1::2], strict=True):
        assert tree.log_probs(likelihoods) == pytest.approx(expected, abs=1e-3)
        assert trie.log_probs(choices) == pytest.approx(reference.log_probs(prompt, SHARED_STARTS), abs=1e-3)


def test_states_are_those_of_plain_passes(hosted: Hosted, reference: Reference):
    """At several places of prompts of several lengths, whatever waits beside them; vLLM refuses in a line."""
    engine, lengths = hosted.engine, (40, 3, 200, 97)
    prompts = [make_prompt(length, 2, seed=length) for length in lengths]

    async def together():
        asked = [engine.encode(prompt, np.asarray([len(prompt.token_ids) - 1])) for prompt in prompts]
        scores = [engine.score(prompt, ChoiceTrie(SHARED_STARTS, END)) for prompt in prompts]
        return (await asyncio.gather(*asked, *scores))[: len(prompts)]

    if isinstance(engine, TransformersEngine | EngineProcess):
        for prompt, states in zip(prompts, hosted.run(together()), strict=True):
            assert states[0] == pytest.approx(reference.state(prompt), abs=1e-3)
        places = np.asarray([30, 10])
        plain = Prompt(prompts[0].token_ids, NO_SLOTS, torch.zeros(0, TOKEN_SIZE))
        states = hosted.run(engine.encode(plain, places))
        for place, state in zip(places, states, strict=True):
            shorter = Prompt(plain.token_ids[: place + 1], NO_SLOTS, plain.soft_tokens)
            assert state == pytest.approx(reference.state(shorter), abs=1e-3)
    else:
        with pytest.raises(ConfigError, match=r"ALLMREC_ENGINE=transformers.*'user_encoder'"):
            hosted.run(together())


def test_one_choice_needs_no_llm(hosted: Hosted):
    assert hosted.run(hosted.engine.score(make_prompt(9), ChoiceTrie([[7, 8], [7, 8]], END))) == []


def test_a_soft_token_is_what_stands_in_its_slot(hosted: Hosted):
    """The token id under a slot changes nothing, the soft token does: prefix caches must tell them apart."""
    first = make_prompt(150, 4, seed=1)
    relabelled = first.token_ids.copy()
    relabelled[first.soft_positions] = 9
    same = Prompt(relabelled, first.soft_positions, first.soft_tokens)
    other = Prompt(first.token_ids, first.soft_positions, first.soft_tokens.flip(0))
    scores = [hosted.log_probs(prompt, SHARED_STARTS) for prompt in (first, same, other)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    assert np.abs(scores[2] - scores[0]).max() > 0.01


def test_generates_the_greedy_continuation(hosted: Hosted, reference: Reference):
    prompt = make_prompt(50, seed=3)
    token_ids = reference.continuation(prompt, 12)
    assert hosted.engine.tokenizer.eos_token_id not in token_ids
    text = hosted.engine.tokenizer.decode(token_ids, skip_special_tokens=True)
    pieces = hosted.run(collect(hosted.engine, prompt, 12))
    assert "".join(pieces) == text.rstrip("\N{REPLACEMENT CHARACTER}")
    assert len(pieces) > 1


def test_what_it_writes_chooses_its_quotes_and_goes_on(hosted: Hosted, reference: Reference):
    """The quote is the likeliest by brute force; what follows is the greedy continuation of all before it."""
    engine, prompt = hosted.engine, make_prompt(40, 3)
    texts = {"A": [70, 71, 72], "B": [70, 71, 90], "C": [200]}
    quotables = [Quotable(tokens, text) for text, tokens in texts.items()]

    async def collect() -> str:
        return "".join([piece async for piece in write(Opens(engine), Draft(prompt, quotables), 12)])  # type: ignore[arg-type]

    sentence = hosted.run(collect())
    opening, closing = (encode_plain(engine.tokenizer, [text])[0] for text in (' for "', '"'))
    opened = prompt.followed_by(opening)
    trie = ChoiceTrie(list(texts.values()), closing[-1])
    by_hand = reference.log_probs(opened, list(texts.values()), closing[-1])
    assert trie.log_probs(hosted.run(engine.score(opened, trie))) == pytest.approx(by_hand, abs=1e-3)
    best = list(texts)[by_hand.argmax()]
    rest = reference.continuation(opened.followed_by([*texts[best], *closing]), 12 - len(opening))
    expected = engine.tokenizer.decode(rest, skip_special_tokens=True)
    assert sentence == f' for "{best}"{expected}'.rstrip("\N{REPLACEMENT CHARACTER}")


def test_generation_ends_after_a_stop_string(hosted: Hosted):
    prompt = make_prompt(50, seed=3)
    text = "".join(hosted.run(collect(hosted.engine, prompt, 12)))
    stop = text[len(text) // 2]
    assert "".join(hosted.run(collect(hosted.engine, prompt, 12, (stop,)))) == text[: text.index(stop) + 1]


def test_concurrent_mixed_work_gives_what_each_gives_alone(hosted: Hosted, reference: Reference):
    """Prompts of many lengths and generations at once: company changes no answer."""
    prompts = [make_prompt(length, min(length, 5), seed=length) for length in (1, 7, 33, 64, 130, 131, 190, 222)]
    engine = hosted.engine

    async def together():
        return await asyncio.gather(
            *(log_probs(engine, prompt, SHARED_STARTS) for prompt in prompts * 2),
            *(collect(engine, prompt, 8) for prompt in prompts[:3]),
        )

    results = hosted.run(together())
    for prompt, scores in zip(prompts * 2, results, strict=False):
        assert scores == pytest.approx(reference.log_probs(prompt, SHARED_STARTS), abs=1e-3)
    for prompt, pieces in zip(prompts[:3], results[len(prompts) * 2 :], strict=True):
        assert "".join(pieces) == "".join(hosted.run(collect(engine, prompt, 8)))


def test_a_score_knows_neither_company_nor_cache_nor_order(hosted: Hosted, reference: Reference):
    """Soft prompts, the same ids in plain tokens, with other slots, and with more behind them, so that prefix caches
    are cold, then warm, then warm by others; each time in another order, with the choices in another order, too."""
    random = np.random.default_rng(0)
    soft = make_prompt(150, 4, seed=7)
    moved = Prompt(soft.token_ids, soft.soft_positions + (soft.soft_positions < 149), soft.soft_tokens)
    prompts = [soft, Prompt(soft.token_ids, NO_SLOTS, torch.zeros(0, TOKEN_SIZE)), moved, make_prompt(150, 4, seed=8)]
    prompts += [prompt.followed_by([40, 41, 42]) for prompt in prompts]
    expected = [reference.log_probs(prompt, SHARED_STARTS) for prompt in prompts]

    async def ask(place: int, order: np.ndarray) -> tuple[int, np.ndarray]:
        scores = np.empty(len(order))
        scores[order] = await log_probs(hosted.engine, prompts[place], [SHARED_STARTS[choice] for choice in order])
        return place, scores

    async def together(places: np.ndarray) -> list[tuple[int, np.ndarray]]:
        return await asyncio.gather(*(ask(place, random.permutation(len(SHARED_STARTS))) for place in places.tolist()))

    first = dict(hosted.run(together(np.arange(len(prompts)))))
    for _ in range(3):
        for place, scores in hosted.run(together(random.permutation(np.tile(np.arange(len(prompts)), 2)))):
            assert scores == pytest.approx(expected[place], abs=1e-3)
            assert scores == pytest.approx(first[place], abs=1e-4)
    for place in range(len(prompts)):
        assert hosted.run(ask(place, np.arange(len(SHARED_STARTS))))[1] == pytest.approx(first[place], abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt(NO_SLOTS, NO_SLOTS, torch.zeros(0, TOKEN_SIZE)), "empty"),
        (make_prompt(CONTEXT - 2), "context"),
        (Prompt(np.full(5, 7), np.asarray([2]), torch.zeros(1, TOKEN_SIZE // 2)), "dimensions"),
    ],
    ids=["empty", "over-long", "bad dimensions"],
)
def test_refuses_what_it_cannot_run(hosted: Hosted, prompt: Prompt, reason: str):
    """Refused with the reason; the engine goes on."""
    with pytest.raises(InvalidPromptError, match=reason):
        hosted.log_probs(prompt, SHARED_STARTS)
    assert hosted.engine.healthy


def test_a_prompt_may_fill_the_context(hosted: Hosted, reference: Reference):
    """The deepest branch of the choices lies two tokens deep, and the chosen token needs a place of its own."""
    prompt = make_prompt(CONTEXT - 3)
    expected = reference.log_probs(prompt, SHARED_STARTS)
    assert hosted.log_probs(prompt, SHARED_STARTS) == pytest.approx(expected, abs=1e-3)


def test_generation_stays_within_the_context(hosted: Hosted, reference: Reference):
    """Four tokens are left of the context, so a thousand become four."""
    prompt = make_prompt(CONTEXT - 4, seed=5)
    token_ids = reference.continuation(prompt, 4)
    assert hosted.engine.tokenizer.eos_token_id not in token_ids
    text = hosted.engine.tokenizer.decode(token_ids, skip_special_tokens=True).rstrip("\N{REPLACEMENT CHARACTER}")
    assert "".join(hosted.run(collect(hosted.engine, prompt, 1000))) == text
    with pytest.raises(InvalidPromptError, match="context"):
        hosted.run(collect(hosted.engine, make_prompt(CONTEXT), 1))


def test_sheds_what_exceeds_its_limit(at_most_two: Hosted):
    """Some of twenty requests are refused at once, the others are answered."""
    engine = at_most_two.engine
    prompt = make_prompt(100)

    async def flood():
        questions = (log_probs(engine, prompt, SHARED_STARTS) for _ in range(20))
        return await asyncio.gather(*questions, return_exceptions=True)

    results = at_most_two.run(flood())
    answered = [result for result in results if isinstance(result, np.ndarray)]
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert len(answered) + len(refused) == 20
    assert len(answered) >= 2
    assert refused


def test_what_is_due_already_is_not_begun(hosted: Hosted, reference: Reference):
    """Refused; and who has time beside it is answered as ever."""
    engine, prompt, trie = hosted.engine, make_prompt(60, seed=6), ChoiceTrie(SHARED_STARTS, END)
    now = time.perf_counter()

    async def ask():
        return await asyncio.gather(
            engine.score(prompt, trie, now - 1), engine.score(prompt, trie, now + 60), return_exceptions=True
        )

    late, answered = hosted.run(ask())
    assert isinstance(late, OverloadedError)
    assert trie.log_probs(answered) == pytest.approx(reference.log_probs(prompt, SHARED_STARTS), abs=1e-3)


def test_cancelled_requests_free_their_places(at_most_two: Hosted, reference: Reference):
    """Twelve requests cancelled two by two, so that any that stayed behind would fill the limit of two."""
    engine = at_most_two.engine
    prompt = make_prompt(120, seed=4)

    async def cancel_repeatedly():
        for round_ in range(6):
            tasks = [
                asyncio.create_task(log_probs(engine, make_prompt(200, seed=round_), SHARED_STARTS)),
                asyncio.create_task(collect(engine, make_prompt(20, seed=round_), 200)),
            ]
            await asyncio.sleep(0.002 * round_)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return await log_probs(engine, prompt, SHARED_STARTS)

    scores = at_most_two.run(cancel_repeatedly())
    assert scores == pytest.approx(reference.log_probs(prompt, SHARED_STARTS), abs=1e-3)


def test_a_reader_may_leave_in_the_middle_of_a_text(at_most_two: Hosted):
    """Closing the stream frees its place, three times over a limit of two."""
    engine = at_most_two.engine

    async def read_one_piece() -> str:
        stream = engine.generate(make_prompt(50, seed=3), 150)
        piece = await anext(stream)
        await stream.aclose()
        return piece

    assert len({at_most_two.run(read_one_piece()) for _ in range(6)}) == 1
    at_most_two.log_probs(make_prompt(9), SHARED_STARTS)


class TestVLLM:
    """What only an engine with processes of its own can do."""

    @pytest.fixture(autouse=True)
    def only_vllm(self, hosted: Hosted) -> None:
        if type(hosted.engine).__name__ != "VLLMEngine":
            pytest.skip("this engine has no processes of its own")

    def test_the_nodes_of_a_request_share_its_prompt(self, hosted: Hosted):
        """Of four nodes sent together, one computes the prompt's 192 tokens and three find them in the cache."""
        from prometheus_client import REGISTRY

        def tokens(kind: str) -> float:
            samples = (s for metric in REGISTRY.collect() for s in metric.samples)
            return sum(s.value for s in samples if s.name == f"vllm:prefix_cache_{kind}_total")

        trie = ChoiceTrie(SHARED_STARTS, END)
        assert len(trie.branches) == 4
        before = tokens("queries"), tokens("hits")
        hosted.run(hosted.engine.score(make_prompt(192, seed=77), trie))
        queries, hits = tokens("queries") - before[0], tokens("hits") - before[1]
        assert queries == sum(192 + len(branch.path) for branch in trie.branches)
        assert hits >= 2 * 192 + 160

    def test_cancelling_aborts_the_requests(self, hosted: Hosted):
        """vLLM has nothing left to do once the caller is gone."""
        engine = hosted.engine

        async def cancel() -> tuple[int, int]:
            task = asyncio.create_task(collect(engine, make_prompt(20), 200))
            while not engine._llm.get_num_unfinished_requests():
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return engine._llm.get_num_unfinished_requests()

        assert hosted.run(cancel()) == 0

    def test_a_killed_engine_fails_its_requests_and_comes_back(self, hosted: Hosted, reference: Reference):
        """Under load: every request is answered or fails, health is lost, then both come back with the same scores."""
        engine = hosted.engine
        prompt = make_prompt(200, seed=8)

        async def kill_under_load():
            asks = [
                asyncio.create_task(log_probs(engine, make_prompt(200, seed=seed), SHARED_STARTS))
                for seed in range(100, 140)
            ]
            writes = [asyncio.create_task(collect(engine, make_prompt(20, seed=9), 200)) for _ in range(4)]
            await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
            next(child for child in multiprocessing.active_children() if "EngineCore" in child.name).kill()
            results = await asyncio.gather(*asks, *writes, return_exceptions=True)
            healthy_after_death = engine.healthy
            with pytest.raises(EngineError):
                await log_probs(engine, prompt, SHARED_STARTS)
            while not engine.healthy:
                await asyncio.sleep(0.2)
            return results, healthy_after_death, await log_probs(engine, prompt, SHARED_STARTS)

        results, healthy_after_death, scores = hosted.run(kill_under_load())
        failed = [result for result in results if isinstance(result, BaseException)]
        assert failed
        assert all(isinstance(failure, EngineError) for failure in failed)
        assert not healthy_after_death
        assert scores == pytest.approx(reference.log_probs(prompt, SHARED_STARTS), abs=1e-3)


def test_closing_fails_what_waits(hosted: Hosted):
    """The last test of an engine: whoever waits is told, whoever comes later too."""
    engine = hosted.engine

    async def close_under_load():
        prompts = [make_prompt(200, seed=seed) for seed in range(200, 230)]
        asks = [asyncio.create_task(log_probs(engine, prompt, SHARED_STARTS)) for prompt in prompts]
        await asyncio.sleep(0.01)
        await engine.close()
        results = await asyncio.gather(*asks, return_exceptions=True)
        with pytest.raises(EngineError):
            await log_probs(engine, prompts[0], SHARED_STARTS)
        return results

    results = hosted.run(close_under_load())
    assert not engine.healthy
    assert any(isinstance(result, EngineError) for result in results)
    assert all(isinstance(result, EngineError | np.ndarray) for result in results)
