"""Stage 2: what is drawn, what is trained, and for what."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbones import represent_all
from models.composer import PromptComposer
from models.llm.law import ExactReader, in_series
from models.prompts.layout import Injection
from models.prompts.template import PromptConfig
from models.prompts.titles import TitleTokens
from models.scoring.choices import ChoiceTrie
from models.scoring.score import score_prompts
from tests.tiny import CF_SIZE, law_logits, sequel_split, tiny_contents, tiny_llm, tiny_split
from training.allmrec.stage2.config import Loss, Stage2Config
from training.allmrec.stage2.examples import ExampleConfig, Examples, ExampleSampler, Positions
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.loss import Stage2Loss, node_masses
from training.allmrec.stage2.stage import train_stage2
from training.allmrec.stage2.teachers import collaborative_teacher, token_teacher
from training.allmrec.stage2.warm_start import (
    WarmStart,
    WarmStartConfig,
    fit_coordinates,
    fit_history_weights,
    fit_similarities,
    fit_temperature,
    history_similarity,
    warm_start,
)
from training.data.splits import SequenceSplit
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun


def lengths(split) -> np.ndarray:
    return np.full(len(split.catalogue) + 1, 4)


class TestExamples:
    def test_the_target_is_among_the_candidates_and_follows_the_history(self) -> None:
        """The answer column holds the item that comes after the first `end` items of the user."""
        split = tiny_split()
        for batch in ExampleSampler(split, ExampleConfig(), lengths(split), seed=1).batches(0):
            for user, end, items, answer in zip(batch.users, batch.ends, batch.items, batch.answers, strict=True):
                assert end >= 1
                assert items[answer] == split.train[user][end]

    def test_negatives_were_seen_in_training_but_not_by_this_user(self) -> None:
        """Else stage 2 would learn that items without interactions never come next."""
        split = tiny_split()
        for batch in ExampleSampler(split, ExampleConfig(), lengths(split), seed=1).batches(0):
            for user, items, answer in zip(batch.users, batch.items, batch.answers, strict=True):
                negatives = np.delete(items, answer)
                negatives = negatives[negatives > 0]
                assert split.catalogue.trained[negatives].all()
                assert not np.isin(negatives, split.train[user]).any()

    def test_the_target_has_no_favourite_place_in_the_prompt(self) -> None:
        """Over many epochs every one of four places is taken about equally often."""
        split = tiny_split()
        sampler = ExampleSampler(split, ExampleConfig(candidates=4), lengths(split), seed=1)
        answers = np.concatenate([batch.answers for epoch in range(20) for batch in sampler.batches(epoch)])
        assert np.bincount(answers, minlength=4) / len(answers) == pytest.approx([0.25] * 4, abs=0.06)

    def test_an_epoch_is_the_same_at_every_call_and_differs_from_the_next(self) -> None:
        """So that a resumed run sees what an uninterrupted one would have seen."""
        split = tiny_split()
        first, again, second = (
            np.concatenate(
                [batch.items for batch in ExampleSampler(split, ExampleConfig(), lengths(split), 1).batches(n)]
            )
            for n in (0, 0, 1)
        )
        assert np.array_equal(first, again)
        assert not np.array_equal(first, second)

    def test_last_positions_predict_the_last_training_item(self) -> None:
        """As in the paper; validation and test items are not looked at."""
        split = tiny_split()
        config = ExampleConfig(positions=Positions.LAST)
        for batch in ExampleSampler(split, config, lengths(split), seed=1).batches(0):
            for user, end in zip(batch.users, batch.ends, strict=True):
                assert end == len(split.train[user]) - 1

    def test_batches_keep_to_the_token_budget(self) -> None:
        """20 titles of 4 tokens and up to 7 told: no prompt here is under 200 tokens, so 450 hold two at most."""
        split = tiny_split()
        batches = ExampleSampler(split, ExampleConfig(batch_tokens=500), lengths(split), seed=1).batches(0)
        assert max(len(batch) for batch in batches) == 2
        assert sum(len(batch) for batch in batches) == len(split)


def test_node_masses_follow_the_choices_through_the_trie() -> None:
    """Choices ab, ac, d with .5, .3, .2: the root sends .8 to a and .2 to d, node a sends .5 to b and .3 to c."""
    trie = ChoiceTrie([[1, 2], [1, 3], [4]], end_token=9)
    masses = node_masses([trie], [np.array([0.5, 0.3, 0.2])], (2, 2))
    assert masses.numpy() == pytest.approx(np.array([[0.8, 0.2], [0.5, 0.3]]))


class TestLoss:
    def examples(self, split) -> Examples:
        config = ExampleConfig(candidates=5, text_prompts=0.0, text_items=0.0, batch_tokens=100_000)
        batch = ExampleSampler(split, config, lengths(split), seed=3).batches(0)[0]
        assert len(batch) >= 6
        return batch.take(np.arange(6))

    def loss(self, split, contents, llm, **settings) -> Stage2Loss:
        composer = PromptComposer(contents, PromptConfig(), llm.tokenizer, llm.context_length)
        config = Stage2Config(training_dtype="float32", **settings)
        texts = ItemTexts(contents.joint_text, torch.zeros_like(contents.cf_vectors))
        teach = collaborative_teacher(contents, texts, temperature=1.0)
        return Stage2Loss(Stage2Inputs(split, contents, texts, llm, PromptConfig()), composer, config, teach)

    @pytest.mark.parametrize("injection", [Injection.ALL, Injection.ITEMS, Injection.USER])
    def test_the_choice_loss_is_what_serving_says_of_the_target(self, injection: Injection) -> None:
        """Mean of -log P(target) as composer and choice scoring compute it, prompt by prompt."""
        split, llm = tiny_split(), tiny_llm()
        contents = tiny_contents(split)
        batch = self.examples(split)
        composer = PromptComposer(contents, PromptConfig(), llm.tokenizer, llm.context_length)
        expected = []
        for user, end, items, answer in zip(batch.users, batch.ends, batch.items, batch.answers, strict=True):
            history = split.train[user][:end].tolist()
            user_vector = contents.user_vectors([history])[0]
            order = np.arange(len(items))
            question = composer.recommend(user_vector, history, items, injection=injection, order=order)
            (nodes,) = score_prompts(llm, [question.prompt], [question.trie])
            expected.append(-question.trie.log_probs(nodes)[answer])
        loss = self.loss(split, contents, llm, injection=injection)(batch)
        assert float(loss.detach()) == pytest.approx(np.mean(expected), abs=1e-4)

    def test_the_title_loss_is_the_cross_entropy_of_the_title_and_its_quote(self) -> None:
        """Against the LLM run on the whole text, with labels on the target's tokens alone."""
        split, llm = tiny_split(), tiny_llm()
        contents = tiny_contents(split)
        batch = self.examples(split).take(np.arange(1))
        composer = PromptComposer(contents, PromptConfig(), llm.tokenizer, llm.context_length)
        history = split.train[batch.users[0]][: batch.ends[0]].tolist()
        question = composer.recommend(
            contents.user_vectors([history])[0], history, batch.items[0], order=np.arange(len(batch.items[0]))
        )
        title = [*composer.titles[batch.items[0][batch.answers[0]]], composer.template.end_token]
        tokens = torch.tensor([*question.prompt.token_ids, *title])
        embeds = llm.model.get_input_embeddings()(tokens).clone()
        embeds[torch.from_numpy(question.prompt.soft_positions)] = question.prompt.soft_tokens.clone()
        with torch.no_grad():
            log_probs = llm.model(inputs_embeds=embeds[None]).logits[0].log_softmax(dim=-1)
        start = len(question.prompt.token_ids)
        expected = -sum(log_probs[start + depth - 1, token] for depth, token in enumerate(title))
        loss = self.loss(split, contents, llm, loss=Loss.TITLE)(batch)
        assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-3)

    def test_full_distillation_asks_for_the_backbone_distribution(self) -> None:
        """The loss is then least where the LLM agrees with the backbone, so it is at least the latter's entropy."""
        split, llm = tiny_split(), tiny_llm()
        contents = tiny_contents(split)
        batch = self.examples(split)
        composer = PromptComposer(contents, PromptConfig(), llm.tokenizer, llm.context_length)
        cross_entropy = []
        for user, end, items in zip(batch.users, batch.ends, batch.items, strict=True):
            history = split.train[user][:end].tolist()
            user_vector = contents.user_vectors([history])[0]
            question = composer.recommend(user_vector, history, items, order=np.arange(len(items)))
            (nodes,) = score_prompts(llm, [question.prompt], [question.trie])
            wanted = np.exp(question.tie_scores - question.tie_scores.max())
            cross_entropy.append(-(wanted / wanted.sum()) @ question.trie.log_probs(nodes))
        loss = self.loss(split, contents, llm, distillation=1.0)(batch)
        assert float(loss.detach()) == pytest.approx(np.mean(cross_entropy), abs=1e-4)

    def test_tokens_teach_what_they_say(self) -> None:
        """The teacher's distribution is the law's, and stays when the projector moves on."""
        split, llm = tiny_split(), tiny_llm(interface=True)
        contents = tiny_contents(split)
        titles = TitleTokens(llm.tokenizer, ["", "Red Car", "Old Tree", "Red Car Again", "Sea", "Sun"], 16)
        teach = token_teacher(contents, titles, llm.interface)
        users, told, items = torch.randn(1, CF_SIZE), np.array([1, 4]), np.array([2, 3, 5])
        series = np.array([0.0, 1.0, 0.0])
        np.testing.assert_array_equal(in_series(titles.of(told), titles.of(items)), series)
        reader = ExactReader(contents.projector, llm.interface)
        (logits,) = law_logits(reader, users, contents.joint_item, [told], items[None], series[None])
        with torch.no_grad():
            contents.projector.item.output.weight.zero_()
        (found,) = teach(users, [torch.from_numpy(told)], [torch.from_numpy(items)])
        np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)

    @torch.no_grad()
    def test_the_exact_reader_reads_by_the_law(self) -> None:
        """coupling * (<u, z> + <mean y, y> + p + w * s) of tokens made from known coordinates, in NumPy."""
        split, llm = tiny_split(), tiny_llm(interface=True)
        contents, law = tiny_contents(split), llm.interface
        users, histories = torch.randn(2, CF_SIZE), [np.array([1, 4]), np.array([], dtype=np.int64)]
        candidates, series = np.array([[2, 3, 5], [1, 2, 4]]), np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
        user_T, item_T = contents.projector.user(users).numpy(), contents.projector.item(contents.joint_item).numpy()

        def read(tokens: np.ndarray, basis: torch.Tensor) -> np.ndarray:
            return tokens @ np.linalg.pinv(np.atleast_2d(basis.numpy()))

        u, w = read(user_T, law.user_basis), read(user_T, law.series_axis)
        z, y, p = (read(item_T, axes) for axes in (law.item_basis, law.similarity_basis, law.popularity_axis))
        expected = []
        for row, history in enumerate(histories):
            mean = y[history].mean(axis=0) if len(history) else np.zeros(y.shape[1])
            items = candidates[row]
            expected.append(law.coupling * (z[items] @ u[row] + y[items] @ mean + p[items, 0] + w[row] * series[row]))
        found = law_logits(
            ExactReader(contents.projector, law), users, contents.joint_item, histories, candidates, series
        )
        np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-4, atol=1e-4)

    def test_items_marked_as_text_are_injected_by_their_text(self) -> None:
        """With every item marked, swapping the item table changes nothing and swapping the text table does."""
        split, llm = tiny_split(), tiny_llm()
        contents = tiny_contents(split)
        batch = self.examples(split)
        marked = replace(batch, as_text=np.ones_like(batch.as_text))
        before = float(self.loss(split, contents, llm)(marked).detach())
        contents.joint_item.zero_()
        assert float(self.loss(split, contents, llm)(marked).detach()) == pytest.approx(before)
        contents.joint_text.zero_()
        assert float(self.loss(split, contents, llm)(marked).detach()) != pytest.approx(before)

    def test_gradients_reach_both_projections_and_the_slot_types(self) -> None:
        """A few steps on one batch bring its loss down, and every trained tensor moves."""
        split, llm = tiny_split(), tiny_llm()
        for weight in llm.model.parameters():
            if weight.dim() > 1:  # so large that attention attends at all
                torch.nn.init.normal_(weight, std=0.3)
        contents = tiny_contents(split)
        batch, loss = self.examples(split), self.loss(split, contents, llm)
        before = {name: value.detach().clone() for name, value in contents.projector.named_parameters()}
        optimizer = torch.optim.Adam(contents.projector.parameters(), lr=1e-2)
        losses = []
        for _ in range(60):
            value = loss(batch)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        assert losses[-1] < 0.7 * losses[0]
        assert all(not torch.equal(value, before[name]) for name, value in contents.projector.named_parameters())


class TestWarmStart:
    def world(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        users = torch.randn(400, CF_SIZE, generator=generator) * torch.linspace(2, 0.2, CF_SIZE) + 0.5
        items = torch.randn(300, CF_SIZE, generator=generator) * torch.linspace(0.3, 3, CF_SIZE) - 1.0
        return users, items

    def test_coordinates_keep_the_collaborative_logits(self) -> None:
        """`coupling (<u, z> + p)` is `<x, E> / temperature` up to a constant for each user."""
        users, items = self.world()
        interface = tiny_llm(interface=True).interface
        coordinates = fit_coordinates(users, items, interface, temperature=2.0)
        matches = coordinates.users(users) @ coordinates.items(items).T
        logits = interface.coupling * (matches + coordinates.popularity(items))
        expected = users @ items.T / 2.0
        difference = logits - expected
        assert (difference - difference.mean(dim=1, keepdim=True)).abs().max() < 1e-3

    def test_users_and_items_are_spread_alike(self) -> None:
        """Their second moments in the coordinates are the same matrix."""
        users, items = self.world()
        interface = tiny_llm(interface=True).interface
        coordinates = fit_coordinates(users, items, interface, temperature=1.0)
        u, z = coordinates.users(users), coordinates.items(items)
        assert torch.allclose(u.T @ u / len(u), z.T @ z / len(z), atol=1e-3)

    def test_the_directions_that_matter_least_are_cut(self) -> None:
        """Of eight directions four fit; no four axes keep the logits better than the chosen ones."""
        users, items = self.world()
        users = users - users.mean(dim=0)
        interface = tiny_llm(interface=True).interface
        narrow = replace(interface, user_basis=interface.user_basis[:4], item_basis=interface.item_basis[:4])
        coordinates = fit_coordinates(users, items, narrow, temperature=1.0)
        logits = 0.25 * coordinates.users(users) @ coordinates.items(items).T
        centred = items - items.mean(dim=0)
        strength = (users.square().mean(dim=0) * centred.square().mean(dim=0)).argsort(descending=True)
        kept = strength[:4]
        axes_error = (users @ centred.T - users[:, kept] @ centred[:, kept].T).square().mean()
        assert (users @ centred.T - logits).square().mean() < 1.1 * axes_error

    def test_the_projections_learn_the_interface(self) -> None:
        """A few hundred steps bring the projected tokens' logits to the collaborative ones."""
        split, llm = tiny_split(users=300, items=60), tiny_llm(interface=True)
        contents = tiny_contents(split)
        users, _ = self.world()
        coordinates = fit_coordinates(users, contents.cf_vectors[1:], llm.interface, temperature=1.0)
        similarities = fit_similarities(contents.joint_text[1:], llm.interface)
        tables = [(contents.joint_item[1:], contents.cf_vectors[1:], contents.joint_text[1:])]
        config = WarmStartConfig(steps=400, batch_size=128)
        target = WarmStart(llm.interface, coordinates, similarities, 1.5)
        errors = warm_start(contents.projector, target, users, tables, config)
        assert errors["user_error"] < 0.05
        assert errors["item_error"] < 0.05
        everything = np.tile(np.arange(1, len(contents.joint_item)), (len(users), 1))
        told = [np.array([1, 2])] * len(users)
        series = np.random.default_rng(0).integers(0, 2, everything.shape)
        reader = ExactReader(contents.projector, llm.interface)
        logits = law_logits(reader, users, contents.joint_item, told, everything, series)
        wanted = 1.5 * series + (users @ (contents.cf_vectors[1:] - contents.cf_vectors[1:].mean(dim=0)).T).numpy()
        wanted += history_similarity(similarities, llm.interface, contents.joint_text, told, everything)
        correlation = np.corrcoef(logits.ravel(), wanted.ravel())[0, 1]
        assert correlation > 0.97
        assert torch.equal(contents.projector.slot_types.detach(), llm.interface.slot_types)

    def test_similarity_with_the_history_is_the_cosine_of_texts(self) -> None:
        """With as many coordinates as the texts have, it is the mean cosine of the centred texts."""
        interface = tiny_llm(interface=True).interface
        texts = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) + 3.0
        similarities = fit_similarities(texts, interface)
        histories, items = [np.array([1, 2, 5]), np.array([], dtype=np.int64)], np.array([[3, 4], [6, 7]])
        logits = history_similarity(similarities, interface, texts, histories, items)
        unit = torch.nn.functional.normalize(texts - texts.mean(dim=0), dim=1).numpy()
        np.testing.assert_allclose(logits[0], unit[[3, 4]] @ unit[[1, 2, 5]].mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(logits[1], 0.0)
        tripled = history_similarity(similarities.scaled(3.0), interface, texts, histories, items)
        np.testing.assert_allclose(tripled, 3 * logits, atol=1e-5)

    def test_the_similarity_weight_is_the_one_that_drew_the_positives(self) -> None:
        """Positives drawn from softmax(cf + 4 * similarity) give back about 4; from cf alone, about none."""
        rng = np.random.default_rng(0)
        for weight in (4.0, 0.0):
            cf, similarity = rng.standard_normal((4000, 10)), rng.standard_normal((4000, 10))
            drawn = (cf + weight * similarity + rng.gumbel(size=cf.shape)).argmax(axis=1)
            for table in (cf, similarity):
                rows = np.arange(4000)
                table[rows, drawn], table[:, 0] = table[:, 0].copy(), table[rows, drawn].copy()
            found, _ = fit_history_weights([cf], similarity, np.zeros(cf.shape), WarmStartConfig())
            assert found == pytest.approx(weight, rel=0.2, abs=0.11)

    def test_the_series_weight_is_the_one_that_drew_the_positives(self) -> None:
        """Beside similarity it is found too; it is none where no candidate is of a series, or if it may not count."""
        rng = np.random.default_rng(0)
        cf, similarity = rng.standard_normal((4000, 10)), rng.standard_normal((4000, 10))
        series = (rng.random((4000, 10)) < 0.1).astype(float)
        drawn = (cf + similarity + 1.5 * series + rng.gumbel(size=cf.shape)).argmax(axis=1)
        for table in (cf, similarity, series):
            rows = np.arange(4000)
            table[rows, drawn], table[:, 0] = table[:, 0].copy(), table[rows, drawn].copy()
        found = fit_history_weights([cf], similarity, series, WarmStartConfig())
        assert found == pytest.approx((1.0, 1.5), rel=0.25)
        assert fit_history_weights([cf], similarity, series, WarmStartConfig(series=False))[1] == 0.0
        assert fit_history_weights([cf], similarity, 0 * series, WarmStartConfig())[1] == pytest.approx(0.0)
        rare = np.zeros(series.shape)
        rare[0, 0] = 1.0
        assert abs(fit_history_weights([cf], similarity, rare, WarmStartConfig())[1]) < 2.5

    def test_the_temperature_is_the_one_that_drew_the_positives(self) -> None:
        """Positives drawn from softmax(logits / 3) give back about 3."""
        rng = np.random.default_rng(0)
        logits = 6 * rng.standard_normal((4000, 10))
        drawn = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(axis=1)
        logits[np.arange(4000), drawn], logits[:, 0] = logits[:, 0].copy(), logits[np.arange(4000), drawn].copy()
        assert fit_temperature(logits) == pytest.approx(3.0, rel=0.1)


class TestTraining:
    CONFIG = Stage2Config(
        examples=ExampleConfig(candidates=5, batch_tokens=4000),
        learning_rate=3e-3,
        validation_users=20,
        warm_start=WarmStartConfig(steps=50, batch_size=64),
        loop=LoopConfig(epochs=6, validate_every=3, clip_norm=1.0),
    )

    def train(
        self,
        directory: Path,
        config: Stage2Config = CONFIG,
        interface: bool = True,
        split: SequenceSplit | None = None,
    ):
        split, llm = split or tiny_split(), tiny_llm(interface)
        contents = tiny_contents(split)
        run = StageRun(directory, config, config.seed, {"llm": llm.fingerprint})
        frozen = {name: tensor.clone() for name, tensor in llm.model.state_dict().items()}
        texts = ItemTexts(contents.joint_text, contents.cf_vectors)
        trained = train_stage2(Stage2Inputs(split, contents, texts, llm, PromptConfig()), config, run)
        assert all(torch.equal(tensor, frozen[name]) for name, tensor in llm.model.state_dict().items())
        return trained, run

    @pytest.mark.parametrize("interface", [True, False])
    def test_only_the_projector_learns(self, tmp_path: Path, interface: bool) -> None:
        """The LLM, the backbone and the tables stay as they were."""
        split = tiny_split()
        before, fresh = tiny_contents(split), tiny_contents(split)
        contents, _ = self.train(tmp_path / "run", interface=interface)
        assert not torch.equal(contents.projector.user.output.weight, fresh.projector.user.output.weight)
        assert torch.equal(contents.joint_item, before.joint_item)
        for name, tensor in contents.backbone.state_dict().items():
            assert torch.equal(tensor, before.backbone.state_dict()[name])

    def test_similarity_can_be_left_out(self, tmp_path: Path) -> None:
        """Then its weight is nil, and with it there is one."""
        without = WarmStartConfig(steps=50, batch_size=64, similarity=False)
        _, run = self.train(tmp_path / "without", self.CONFIG.model_copy(update={"warm_start": without}))
        metrics = json.loads((run.directory / "metrics.json").read_text())
        assert metrics["start"]["similarity_weight"] == 0.0
        _, run = self.train(tmp_path / "with")
        assert "similarity_weight" in json.loads((run.directory / "metrics.json").read_text())["start"]

    def test_series_count_where_they_tell_what_comes_next(self, tmp_path: Path) -> None:
        """Where users go on to second parts, the tokens say so; not if it is left out."""
        split = sequel_split()
        llm = tiny_llm(interface=True)
        for name, start in (
            ("with", self.CONFIG.warm_start),
            ("without", WarmStartConfig(steps=50, series=False)),
        ):
            config = self.CONFIG.model_copy(update={"warm_start": start, "distillation": 1.0})
            contents, run = self.train(tmp_path / name, config, split=split)
            weight = json.loads((run.directory / "metrics.json").read_text())["start"]["series_weight"]
            users = represent_all(contents.backbone, split.train, contents.cf_vectors)
            with torch.no_grad():
                reader = ExactReader(contents.projector, llm.interface)
                read_users = reader.users(users, contents.joint_item, split.train)
                items = reader.items(contents.joint_item[1:2])
                read = (reader.logits(read_users, items, torch.ones(1)) - reader.logits(read_users, items)).mean()
            assert weight > 1.5 if name == "with" else weight == 0.0
            assert float(read) == pytest.approx(weight, abs=0.7)

    def test_joint_embeddings_can_be_random(self, tmp_path: Path) -> None:
        """Table 9, row 4: numbers that say nothing of any item, the same whenever the stage is loaded."""
        config = self.CONFIG.model_copy(update={"random_joint": True, "loop": LoopConfig(max_steps=1)})
        first, _ = self.train(tmp_path / "run", config)
        again, _ = self.train(tmp_path / "run", config)
        assert torch.equal(first.joint_item, again.joint_item)
        assert not first.joint_item[0].any()
        assert not torch.isclose(first.joint_item[1:], tiny_contents(tiny_split()).joint_item[1:]).all(dim=1).any()
        assert torch.equal(first.cf_vectors, tiny_contents(tiny_split()).cf_vectors)

    def test_a_finished_stage_is_loaded_not_run_again(self, tmp_path: Path) -> None:
        """The projector and the genres come back bit by bit."""
        first, run = self.train(tmp_path / "run")
        stamp = (run.directory / "projector.safetensors").stat().st_mtime_ns
        second, _ = self.train(tmp_path / "run")
        assert (run.directory / "projector.safetensors").stat().st_mtime_ns == stamp
        for name, tensor in first.projector.state_dict().items():
            assert torch.equal(tensor, second.projector.state_dict()[name])
        assert torch.equal(first.joint_genre, second.joint_genre)
        assert not torch.equal(first.joint_genre, tiny_contents(tiny_split()).joint_genre)
