"""Stage 2's negatives: of which kinds they are, and that the kind does not give the target away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.scoring.choices import ChoiceTrie
from tests.tiny import tiny_contents, tiny_split
from training.allmrec.stage2.examples import ExampleConfig, Examples, ExampleSampler
from training.allmrec.stage2.loss import choice_log_probs, corrected_surprise
from training.allmrec.stage2.negatives import NegativeConfig, Negatives, best_of
from training.data.splits import SequenceSplit

ITEMS, BEST = 200, 20


@pytest.fixture(scope="module")
def split() -> SequenceSplit:
    """Two thousand users whose items are popular in proportion to 1 / number."""
    rng = np.random.default_rng(0)
    odds = 1.0 / np.arange(1, ITEMS + 1)
    train = [1 + rng.choice(ITEMS, 5, replace=False, p=odds / odds.sum()) for _ in range(2000)]
    tiny = tiny_split(items=ITEMS)
    counts = np.bincount(np.concatenate(train), minlength=ITEMS + 1)
    names, nobody = [f"u{number}" for number in range(2000)], np.zeros(2000, dtype=np.int64)
    return SequenceSplit(names, tiny.catalogue.with_interactions(counts[1:]), train, nobody, nobody)


def retrieved(users: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The same twenty items for everybody, met or not, from the middle of the catalogue."""
    assert len(users) == len(ends)
    return np.tile(np.arange(101, 101 + BEST), (len(users), 1))


def drawn(split: SequenceSplit, config: NegativeConfig, target: Callable[..., np.ndarray]) -> tuple[np.ndarray, ...]:
    """Candidates and log odds of all users, ten each."""
    rng = np.random.default_rng(1)
    users, ends = np.arange(len(split)), np.full(len(split), 4)
    negatives = Negatives(split, split.catalogue.trained, config, retrieved)
    return negatives.beside(target(split, rng), users, ends, 9, rng)


def last(split: SequenceSplit, _: np.random.Generator) -> np.ndarray:
    return np.asarray([items[4] for items in split.train])


def anything(split: SequenceSplit, rng: np.random.Generator) -> np.ndarray:
    """A pseudo-positive: uniform of what the user did not meet."""
    return split.negative_sampler(trained_only=True).sample(np.arange(len(split)), 1, rng)[:, 0]


def test_negatives_have_the_shares_that_were_asked_for(split: SequenceSplit) -> None:
    """Half of what is retrieved; of the others, popular ones have more interactions than uniform ones."""
    items, _ = drawn(split, NegativeConfig(retrieved=0.5, among=BEST), last)
    among_best = (items[:, 1:] > 100) & (items[:, 1:] <= 100 + BEST)
    # Uniform ones are among the best twenty of two hundred in one of ten cases.
    assert among_best.mean() == pytest.approx(0.5 + 0.5 * 0.1, abs=0.03)
    top = [drawn(split, NegativeConfig(popular=share), last)[0][:, 1:] <= BEST for share in (0.0, 0.3, 0.6)]
    uniform, some, more = (each.mean() for each in top)
    assert uniform < 0.1
    assert more - uniform == pytest.approx(2 * (some - uniform), rel=0.25)
    assert some > uniform + 0.05


def test_negatives_are_never_of_the_users_training_items(split: SequenceSplit) -> None:
    """Whatever their kind, and none twice."""
    items, _ = drawn(split, NegativeConfig(popular=0.4, retrieved=0.5), last)
    for row, met in zip(items, split.train, strict=True):
        assert not np.isin(row[1:], met).any()
        assert len(set(row.tolist())) == len(row)


def test_the_best_have_nothing_that_the_user_met_but_the_target() -> None:
    """They are the likeliest of the others by the model's logits."""
    split = tiny_split()
    model = tiny_contents(split)
    known = split.catalogue.trained
    users, ends = np.arange(len(split)), np.asarray([len(items) - 1 for items in split.train])
    found = best_of(model, split, known, 4)(users, ends)
    for user, end, best in zip(users, ends, found, strict=True):
        allowed = known.copy()
        allowed[np.setdiff1d(split.train[user], split.train[user][end])] = False
        vector = model.user_vectors([split.train[user][:end]])[0]
        scores = np.where(allowed, (model.cf_vectors @ vector).numpy(), -np.inf)
        assert set(best.tolist()) == set(np.argsort(-scores)[:4].tolist())


def test_odds_are_those_of_the_mixture(split: SequenceSplit) -> None:
    """Of an item that is retrieved and one that is not, worked out by hand."""
    config = NegativeConfig(popular=0.2, retrieved=0.3, among=BEST)
    items, log_odds = drawn(split, config, last)
    power = split.catalogue.interactions**0.75
    for item, best in ((105, True), (60, False)):
        expected = 0.5 / ITEMS + 0.2 * power[item] / power.sum() + 0.3 / BEST * best
        assert np.exp(log_odds[items == item]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_kind_of_a_negative_does_not_tell_the_target(split: SequenceSplit, *, corrected: bool) -> None:
    """Pseudo-positives teach nothing of popularity or of what is retrieved; they would if odds were left out."""
    items, log_odds = drawn(split, NegativeConfig(popular=0.3, retrieved=0.3, among=BEST), anything)
    rows, zeros = len(items), np.zeros(len(items), dtype=np.int64)
    batch = Examples(zeros, zeros, items, zeros, np.zeros((rows, 0)), log_odds if corrected else 0 * log_odds)
    popularity = np.log(split.catalogue.interactions + 1.0)
    among_best = (items > 100) & (items <= 100 + BEST)
    features = torch.from_numpy(np.stack([popularity[items], among_best], axis=2)).float()
    weights = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=50)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = corrected_surprise(features @ weights, batch).mean()
        value.backward()
        return value

    optimizer.step(loss)
    learned = weights.detach().abs()
    assert bool((learned < 0.15).all()) is corrected, learned


def test_choices_share_what_equal_titles_have() -> None:
    """log P along the trie: ab and ac under a, and d twice."""
    tries = [ChoiceTrie([[1, 2], [1, 3], [4], [4]], end_token=9), ChoiceTrie([[5], [6]], end_token=9)]
    nodes = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.9, 0.1]]).log()
    expected = [[0.3, 0.3, 0.2, 0.2], [0.9, 0.1, 0.0, 0.0]]
    torch.testing.assert_close(choice_log_probs(tries, nodes).exp(), torch.tensor(expected))


def test_equal_odds_change_nothing(split: SequenceSplit) -> None:
    """Where all are uniform, the surprise is minus the log-probability of the target."""
    items, log_odds = drawn(split, NegativeConfig(), last)
    zeros = np.zeros(len(items), dtype=np.int64)
    batch = Examples(zeros, zeros, items, zeros, np.zeros((len(items), 0)), log_odds)
    logits = torch.randn(items.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(corrected_surprise(logits, batch), -logits.log_softmax(dim=1)[:, 0])


def test_some_negatives_stay_uniform() -> None:
    """Else an item of no other kind could not be drawn at all."""
    with pytest.raises(ValidationError, match="less than 1"):
        NegativeConfig(popular=0.5, retrieved=0.5)


class TestHeldBackExamples:
    """What is predicted where a part of the sequences was held back."""

    def examples(self, share: float, **config: object) -> tuple[SequenceSplit, SequenceSplit, list[Examples]]:
        split = tiny_split()
        fitted = split.holding_back(share, seed=3)
        sampler = ExampleSampler(split, ExampleConfig(**config), np.full(31, 4), 1, fitted)
        return split, fitted, [batch for epoch in range(5) for batch in sampler.batches(epoch)]

    def test_targets_are_not_among_what_the_backbone_fitted(self) -> None:
        """They follow what it had of the user, in order; what it never met of anyone is neither target nor negative."""
        split, fitted, batches = self.examples(0.3)
        assert sum(map(len, batches)) > 0
        for batch in batches:
            for user, end, items, answer in zip(batch.users, batch.ends, batch.items, batch.answers, strict=True):
                assert end >= len(fitted.train[user])
                assert items[answer] == split.train[user][end]
                assert fitted.catalogue.trained[items[items > 0]].all()
                assert not np.isin(np.delete(items, answer), split.train[user]).any()

    def test_all_that_is_held_back_is_predicted_in_time(self) -> None:
        """But what nobody else met; and by `last` the newest of every user alone."""
        split, fitted, batches = self.examples(0.5)
        wanted = {
            (user, end)
            for user, items in enumerate(split.train)
            for end in range(len(fitted.train[user]), len(items))
            if fitted.catalogue.trained[items[end]]
        }
        found = {pair for batch in batches for pair in zip(batch.users.tolist(), batch.ends.tolist(), strict=True)}
        assert found <= wanted
        assert len(found) > 0.7 * len(wanted)
        _, _, batches = self.examples(0.5, positions="last")
        newest = {user: max(end for other, end in wanted if other == user) for user, _ in wanted}
        assert {(u, e) for b in batches for u, e in zip(b.users.tolist(), b.ends.tolist(), strict=True)} == set(
            newest.items()
        )

    def test_the_same_seed_gives_the_same_examples(self) -> None:
        """In another process too, so that an interrupted run goes on with what it would have had."""
        (_, _, first), (_, _, second) = self.examples(0.3), self.examples(0.3)
        for one, other in zip(first, second, strict=True):
            for name, value in vars(one).items():
                assert np.array_equal(value, vars(other)[name])


def test_hard_negatives_are_the_same_at_every_call() -> None:
    """An epoch's examples depend on the seed alone, with their odds."""
    split = tiny_split()
    model = tiny_contents(split)
    config = ExampleConfig(negatives=NegativeConfig(popular=0.3, retrieved=0.4, among=5), candidates=6)
    retrieve = best_of(model, split, split.catalogue.trained, 5)
    sampler, again = (ExampleSampler(split, config, np.full(31, 4), 1, None, retrieve) for _ in range(2))
    for one, other in zip(sampler.batches(2), again.batches(2), strict=True):
        assert np.array_equal(one.items, other.items)
        assert np.array_equal(one.log_odds, other.log_odds)
        assert one.log_odds.std() > 0
