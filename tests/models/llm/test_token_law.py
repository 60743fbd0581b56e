"""What it takes to read tokens without their LLM: kept in a bundle, and the same as with all that it was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.bundle.manifest import Origin
from models.bundle.store import load_bundle, load_manifest, write_bundle
from models.composer import PromptComposer
from models.errors import BundleError, ConfigError
from models.llm.law import TokenLaw, series_table
from models.prompts.template import PromptConfig
from models.rankers.base import Audience
from models.rankers.of_model import TOKENS, signals_of
from models.rankers.tokens import TokenRanker
from models.recommending.person import persons
from tests.models.bundle.test_store import bundle, save_text_encoder  # noqa: F401
from tests.tiny import tiny_contents, tiny_llm, tiny_split
from training.allmrec.permuted import text_order

SPLIT = tiny_split()
LLM = tiny_llm(interface=True)
MODEL = tiny_contents(SPLIT)
COMPOSER = PromptComposer(MODEL, PromptConfig(), LLM.tokenizer, 4096)
LAW = TokenLaw.of(LLM.interface, COMPOSER.titles, PromptConfig().history_items)
USERS = Audience(["", "", ""], [np.asarray([1, 2, 3]), np.asarray([4]), np.zeros(0, dtype=np.int64)])


def test_series_are_those_of_the_titles() -> None:
    """Titles are pairs of few words here, so that many begin alike."""
    items = np.tile(np.arange(1, 31), (3, 1))
    expected = series_table(COMPOSER.titles, USERS.histories, items)
    found = LAW.series(USERS.histories, items)
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.sum() < found.size


def test_titles_of_one_token_are_alike_only_if_they_are_equal() -> None:
    law = replace(LAW, beginnings=np.asarray([[-1, -1], [7, -1], [7, 8], [7, -1], [9, 8]]))
    assert law.series([np.asarray([1])], np.asarray([[1, 2, 3, 4]])).tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_other_titles_make_other_series() -> None:
    order = text_order(30, seed=0)
    items = np.arange(31)[None]
    before = LAW.series([order[[5]]], order[items])
    np.testing.assert_array_equal(LAW.with_titles_of(order).series([np.asarray([5])], items), before)


def test_a_bundle_reads_its_tokens_as_training_did(bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    """As a signal of its own, for a person whose vector is at hand and for anybody else; without the LLM."""
    origin = Origin(**{name: getattr(load_manifest(bundle), name) for name in Origin.model_fields})
    read = load_bundle(write_bundle(tmp_path, replace(MODEL, law=LAW), origin, save_text_encoder)).model
    assert {"interface.safetensors", "law.safetensors"} <= set(load_manifest(tmp_path / "current").files)
    candidates = np.asarray([[7, 8, 9, 0]] * 3)
    expected = TokenRanker("tokens", "Tokens", MODEL, LAW).compute(USERS, candidates)
    (ranker,) = (signal for signal in signals_of(read) if signal.id == TOKENS)
    np.testing.assert_allclose(ranker.compute(USERS, candidates), expected, rtol=1e-5, atol=1e-6)
    person = persons(read, USERS.histories[:1])[0]
    np.testing.assert_allclose(ranker.compute(person.audience, candidates[:1]), expected[:1], rtol=1e-5, atol=1e-6)
    without = load_bundle(bundle).model
    assert without.law is None
    assert TOKENS not in {signal.id for signal in signals_of(without)}


def test_half_a_law_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:  # noqa: F811
    """Of other items, or without the interface that it needs."""
    origin = Origin(**{name: getattr(load_manifest(bundle), name) for name in Origin.model_fields})
    other = replace(LAW, beginnings=LAW.beginnings[:-1])
    with pytest.raises(BundleError, match="of other items: export it again"):
        load_bundle(write_bundle(tmp_path / "other", replace(MODEL, law=other), origin, save_text_encoder))
    LAW.save(tmp_path)
    (tmp_path / "interface.safetensors").unlink()
    with pytest.raises(ConfigError, match="has no interface beside it"):
        TokenLaw.load(tmp_path)


def test_projections_in_training_are_read_anew() -> None:
    model = replace(tiny_contents(SPLIT, seed=3), law=LAW)
    candidates = np.asarray([[7, 8, 9]] * 3)
    fresh, resting = (TokenRanker("tokens", "Tokens", model, LAW, resting=rests) for rests in (False, True))
    before = fresh.compute(USERS, candidates)
    assert resting.compute(USERS, candidates) == pytest.approx(before)
    model.projector.item.output.weight.data.mul_(2.0)
    assert not np.allclose(fresh.compute(USERS, candidates), before)
