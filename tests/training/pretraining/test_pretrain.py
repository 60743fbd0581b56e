"""LLM pre-training: the fast forward pass, the constructed circuit, the stage."""

import copy
import json
import re
import signal
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from models.errors import ConfigError
from models.llm.loading import EMBEDDED_DIRECTORY, load_llm, load_tokenizer
from models.prompts.layout import Slot
from models.prompts.titles import encode_plain
from models.scoring.opt_training import PackedReader
from models.scoring.packing import child_logits, hidden_states
from models.scoring.score import score_prompts
from training.cli.lm import read_config
from training.cli.main import app
from training.pretraining import worlds
from training.pretraining.architecture import Architecture, build_interface, build_model
from training.pretraining.circuit import Gains, wake
from training.pretraining.evaluate import bucketed, compare, measure, measure_writing
from training.pretraining.objective import FLAT, Objective
from training.pretraining.pretrain import PretrainConfig, circuit_of, draw, initial_model, pretrain, save
from training.pretraining.prompts import Example, Mixture, PromptFactory, collate
from training.runs.loop import Interrupted, LoopConfig
from training.runs.stage_run import StageRun

SHORT = Mixture(candidates=(10, 10), title_tokens=1, history=0, genres=0.0, explanations=0.0)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def interface():
    return build_interface(Architecture(), 0)


@pytest.fixture(scope="module")
def factory(tokenizer, interface):
    return PromptFactory(tokenizer, interface, 1152, titles=200)


@pytest.fixture(scope="module")
def constructed(tokenizer, interface):
    return initial_model(PretrainConfig(), tokenizer, interface).eval()


@torch.no_grad()
def test_the_fast_forward_pass_is_the_kernels(constructed, factory):
    """At every node and text position it gives what `hidden_states` gives."""
    batch = collate(draw(factory, Mixture(explanations=0.3), 6, seed=0))
    rows = torch.cat([batch.packed.node_rows, batch.text_rows])
    columns = torch.cat([batch.packed.node_columns, batch.text_columns])
    expected = hidden_states(constructed, batch.packed, batch.soft_tokens_T_D)[rows, columns]
    actual = PackedReader(constructed)(batch.packed, batch.soft_tokens_T_D, rows, columns)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_divergence_at_every_node(constructed, factory):
    """In fp32 and without its side terms it is sum of sqrt(reach) * KL, worked out with NumPy."""
    examples = draw(factory, Mixture(explanations=0.0), 5, seed=1)
    batch = collate(examples)
    with torch.no_grad():
        loss = Objective(constructed, 0.0, 0.0, 0.0, torch.float32)(batch).item()
        hidden = hidden_states(constructed, batch.packed, batch.soft_tokens_T_D)
        logits = child_logits(constructed, batch.packed, hidden).double().numpy()
    expected, node = 0.0, 0
    for example in examples:
        for target, reach in zip(*example.node_targets(), strict=True):
            row = logits[node, : len(target)]
            log_q = row - row.max() - np.log(np.exp(row - row.max()).sum())
            expected += np.sqrt(reach) * sum(p * (np.log(p) - q) for p, q in zip(target, log_q, strict=True) if p > 0)
            node += 1
    assert loss == pytest.approx(expected / len(examples), rel=1e-3)


def test_the_order_counts_flattened(constructed, factory):
    """With a weight it adds FLAT squared times the divergence at temperature FLAT, worked out with NumPy."""
    examples = [example for example in draw(factory, SHORT, 8, seed=1) if len(example.trie.branches) == 1]
    batch = collate(examples)
    with torch.no_grad():
        losses = [Objective(constructed, 0.0, weight, 0.0, torch.float32)(batch).item() for weight in (0.0, 0.5)]
        hidden = hidden_states(constructed, batch.packed, batch.soft_tokens_T_D)
        logits = child_logits(constructed, batch.packed, hidden).double().numpy()
    expected = 0.0
    for row, example in zip(logits, examples, strict=True):
        target = example.node_targets()[0][0] ** (1 / FLAT)
        target /= target.sum()
        q = np.exp((row[: len(target)] - row[: len(target)].max()) / FLAT)
        expected += FLAT**2 * float((target * np.log(target / (q / q.sum()))).sum())
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected / len(examples), rel=1e-3)


def test_the_constructed_circuit_ranks_before_any_training(constructed, tokenizer, interface, factory):
    """Most of Bayes without one step; the ordinary initialisation is at chance."""
    examples = draw(factory, SHORT, 100, seed=2)
    ordinary = initial_model(PretrainConfig(constructed=False), tokenizer, interface).eval()
    read, guessed = measure(constructed, examples)["all"], measure(ordinary, examples)["all"]
    assert read["share"] > 0.8
    assert read["rank"] > 0.7
    assert abs(guessed["rank"]) < 0.1
    assert guessed["share"] < 0.4


@pytest.fixture
def alike(factory, monkeypatch):
    """Draws prompts in which three candidates share so many first tokens and differ in the next; names their nodes."""
    titles = factory._titles

    def drawn(shared: int) -> tuple[list[Example], str]:
        def begun(rng: np.random.Generator, mixture: Mixture, history: int, candidates: int) -> list[list[int]]:
            found = titles(rng, mixture, history, candidates)
            beginning = rng.choice(factory._pieces, shared).tolist()
            different = rng.choice(factory._pieces, 3, replace=False).tolist()
            for place, last in zip(rng.choice(candidates, 3, replace=False), different, strict=True):
                found[history + place] = [*beginning, last]
            return found

        monkeypatch.setattr(factory, "_titles", begun)
        mixture = Mixture(candidates=(10, 10), collisions=0.0, series=0.0, genres=0.0, explanations=0.0)
        name = "nodes after 1 shared tokens" if shared == 1 else "nodes after 2+ shared tokens"
        return draw(factory, mixture, 400, seed=9), name  # of 120, the share of a uniform guess varied from .36 to .61

    return drawn


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_titles_that_begin_alike_are_told_apart(constructed, alike, shared, trained):
    """After one shared token and after several, the LM is nearer to the truth than a uniform guess, trained or not."""
    examples, nodes = alike(shared)
    found = measure(load_llm("embedded").model if trained else constructed, examples)[nodes]
    assert found["prompts"] > 350
    assert found["kl"] < (0.6 if trained else 0.9) * found["uniform_kl"]


@pytest.mark.parametrize("shared", [2, 4])
def test_locating_titles_tells_them_apart_after_several_tokens(constructed, tokenizer, interface, alike, shared):
    """Without it the untrained circuit is no better than a uniform guess there."""
    examples, nodes = alike(shared)
    without = PretrainConfig(gains=Gains(locate_write=0.0, follow_write=0.0))
    not_located = measure(initial_model(without, tokenizer, interface), examples)[nodes]
    assert not_located["kl"] > not_located["uniform_kl"]
    assert measure(constructed, examples)[nodes]["kl"] < 0.8 * not_located["kl"]


def test_waking_free_dimensions_changes_nothing_yet_and_lets_all_learn(tokenizer, interface, factory):
    """The circuit computes the same with random free rows; after a step, every attention dimension gets a gradient.

    The first step gives heads that were free as a whole something to say, and only then does it matter what they ask.
    """
    config = PretrainConfig()
    model = build_model(config.architecture, tokenizer).eval()
    circuit_of(config, tokenizer, interface).write(model)
    batch = collate(draw(factory, Mixture(), 12, seed=4))

    def gradients(model: Any = model) -> list[torch.Tensor]:
        model.zero_grad()
        Objective(model, 0.05, 0.3, 0.05, torch.float32)(batch).backward()
        layers = [layer.self_attn for layer in model.model.decoder.layers]
        pairs = [(layer.q_proj.weight.grad, layer.k_proj.weight.grad) for layer in layers]
        pairs += [(layer.v_proj.weight.grad, layer.out_proj.weight.grad.T) for layer in layers]
        return [first.abs().sum(dim=1) + second.abs().sum(dim=1) for first, second in pairs]

    with torch.no_grad():
        before = hidden_states(model, batch.packed, batch.soft_tokens_T_D)
    assert any((gradient == 0).any() for gradient in gradients())
    wake(model, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(hidden_states(model, batch.packed, batch.soft_tokens_T_D), before)
    for woken in (model, initial_model(config, tokenizer, interface)):
        gradients(woken)
        torch.optim.SGD(woken.parameters(), lr=1e-3).step()
        assert all((gradient > 0).all() for gradient in gradients(woken))


def test_going_on_from_weights_wakes_their_free_dimensions(tokenizer, interface, tmp_path):
    """An LLM of which whole heads sleep has none asleep after a step."""
    config = small()
    start = build_model(config.architecture, tokenizer)
    circuit_of(config, tokenizer, interface).write(start)

    def asleep(weights: dict[str, torch.Tensor]) -> int:
        return sum(
            int((~weight.any(dim=1)).sum()) for name, weight in weights.items() if name.endswith("q_proj.weight")
        )

    assert asleep(start.state_dict()) > 0
    run = StageRun(tmp_path, config, config.seed, {})
    pretrain(config, tokenizer, run, start_from=start.state_dict())
    assert asleep(load_llm(str(tmp_path / "llm")).model.state_dict()) == 0


@torch.no_grad()
@pytest.mark.parametrize("trained", [False, True])
def test_series_count_by_their_weight(constructed, interface, factory, trained):
    """Two logits more of it raise the candidates of a series against the others of their prompt, trained or not."""
    model = load_llm("embedded").model if trained else constructed
    examples = draw(factory, Mixture(candidates=(20, 20), series=1.0, title_tokens=4, explanations=0.0), 150, seed=7)
    raised = []
    for example in examples:
        of_series = example.world.series > 0
        if not of_series.any() or of_series.all():
            continue
        read = []
        for weight in (0.0, 2.0 / interface.coupling):
            batch = collate([example])
            change = (weight - example.world.user[-1]) * interface.series_axis
            batch.soft_tokens_T_D[torch.from_numpy(example.layout.slot_kinds == Slot.USER)] += change.float()
            hidden = hidden_states(model, batch.packed, batch.soft_tokens_T_D)
            read.append(example.trie.log_probs(child_logits(model, batch.packed, hidden)))
        gain = read[1] - read[0]
        raised.append(gain[of_series].mean() - gain[~of_series].mean())
    assert len(raised) > 20
    assert 1.0 < np.mean(raised) < 3.0


def test_a_model_that_tells_the_truth_measures_as_bayes(factory):
    """Accuracy equals Bayes, divergence is nil: measured on a stand-in whose child logits are the truth."""
    examples = [example for example in draw(factory, SHORT, 20, seed=3) if len(example.trie.branches) == 1]
    for example in examples:
        record = compare(example.world.log_probs, example.trie.log_probs([np.log(example.node_targets()[0][0])]))
        assert record["accuracy"] == pytest.approx(record["bayes"])
        assert record["kl"] == pytest.approx(0.0, abs=1e-9)
        assert record["rank"] == pytest.approx(1.0)


def test_the_nodes_divergences_add_up(constructed, factory):
    """By how many tokens lead to them, they are all of the rankings' divergence."""
    result = measure(constructed, draw(factory, Mixture(explanations=0.0), 30, seed=8))
    parts = [found for name, found in result.items() if name.startswith("nodes after")]
    assert len(parts) == 3
    total = result["all"]["kl"] * result["all"]["prompts"]
    assert sum(part["kl"] * part["prompts"] for part in parts) == pytest.approx(total, rel=1e-4)


def test_compare_by_hand():
    """Two of three candidates swapped."""
    record = compare(np.log([0.5, 0.3, 0.2]), np.log([0.3, 0.5, 0.2]))
    assert record["accuracy"] == pytest.approx(0.3)
    assert record["bayes"] == pytest.approx(0.5)
    assert record["kl"] == pytest.approx(0.5 * np.log(5 / 3) + 0.3 * np.log(3 / 5))
    assert record["rank"] == pytest.approx(0.5)


def test_batches_keep_to_their_budget(factory):
    """No batch is larger than asked, and no prompt is lost."""
    examples = draw(factory, Mixture(), 60, seed=4)
    batches = bucketed(examples, 2048)
    assert sum(map(len, batches)) == 60
    assert all(len(batch) * max(e.length for e in batch) <= 2048 for batch in batches if len(batch) > 1)


def small(**changes):
    return PretrainConfig(
        architecture=Architecture(context_length=400),
        mixture=SHORT,
        titles=100,
        prompts_per_epoch=16,
        validation_prompts=16,
        batch_tokens=1024,
        loop=LoopConfig(max_steps=3, validate_every=10, monitor="closeness", clip_norm=1.0),
        **changes,
    )


def test_the_stage_makes_an_llm_that_loads(tokenizer, tmp_path):
    """Trained a few steps, its folder loads by plain transformers and as an LLM with its interface."""
    config = small()
    run = StageRun(tmp_path / "run", config, config.seed, {})
    metrics = pretrain(config, tokenizer, run)
    assert run.is_done
    assert metrics["all"]["prompts"] == 16
    folder = tmp_path / "run" / "llm"
    loaded = load_llm(str(folder))
    assert loaded.interface is not None
    assert loaded.interface.coupling == pytest.approx(0.25)
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3


def test_the_same_seed_gives_the_same_weights_even_if_stopped(tokenizer, tmp_path, monkeypatch):
    """Deterministic from recipe and seed; Ctrl-C within an epoch and the same call again make no difference."""
    config = small()

    def train(name: str) -> bytes:
        pretrain(config, tokenizer, StageRun(tmp_path / name, config, config.seed, {}))
        return (tmp_path / name / "llm" / "model.safetensors").read_bytes()

    straight = train("straight")
    losses = []
    loss = Objective.__call__

    def stopping(self: Objective, batch: Any) -> torch.Tensor:
        losses.append(loss(self, batch))
        if len(losses) == 1:
            signal.raise_signal(signal.SIGINT)
        return losses[-1]

    monkeypatch.setattr(Objective, "__call__", stopping)
    with pytest.raises(Interrupted):
        train("stopped")
    assert not (tmp_path / "stopped" / "llm").exists()
    assert train("stopped") == straight
    assert len(losses) == 3


def test_what_is_shipped_is_complete():
    """The embedded LLM fits its budget, holds 20 history items and 30 candidates, and carries the interface."""
    names = {path.name for path in EMBEDDED_DIRECTORY.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "interface.safetensors",
        "MODEL_CARD.md",
    } <= names
    assert sum(path.stat().st_size for path in EMBEDDED_DIRECTORY.iterdir()) <= 12_000_000
    llm = load_llm("embedded")
    assert llm.context_length >= 50 * 20 + 100
    expected = build_interface(Architecture(), PretrainConfig().interface_seed)
    assert llm.interface.is_close(expected)


@pytest.mark.parametrize(("place", "named"), [(0, (1.0, 1.0)), (-1, (1.0, 0.0)), (None, (0.0, 0.0))])
def test_writing_counts_what_is_named(factory, tokenizer, monkeypatch, place, named):
    """An LM that writes the choice it ranks first, the one it ranks last, or the first without its end."""
    llm = load_llm("embedded")
    examples = draw(factory, SHORT, 4, seed=3)
    ((close_quote,),) = encode_plain(tokenizer, ['"'])
    left = iter(examples)

    def write(inputs_embeds, **_):
        example = next(left)
        assert inputs_embeds.shape[1] == len(example.layout.token_ids)
        (logits,) = score_prompts(llm, [example.layout.fill(example.soft_tokens)], [example.trie])
        ranked = np.argsort(-example.trie.log_probs(logits))
        return torch.tensor([[*example.layout.choices[ranked[place or 0]], *([] if place is None else [close_quote])]])

    monkeypatch.setattr(llm.model, "generate", write)
    measured = measure_writing(llm.model, examples, close_quote)
    assert (measured["names_choice"], measured["names_first"]) == named


def test_a_mean_lies_between_two_llms(constructed, tokenizer, interface, tmp_path):
    """The command writes an LLM whose weights lie as far between as asked for, and does not overwrite."""
    save(constructed, tokenizer, interface, tmp_path / "begun")
    arguments = ["average-lm", "embedded", str(tmp_path / "begun"), "--share", "0.25", "--out", str(tmp_path / "mean")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    mean, start, goal = (
        load_llm(name).model.state_dict() for name in (str(tmp_path / "mean"), "embedded", str(tmp_path / "begun"))
    )
    for name, weight in mean.items():
        expected = (0.75 * start[name] + 0.25 * goal[name]).bfloat16().float()
        torch.testing.assert_close(weight, expected)
    assert load_llm(str(tmp_path / "mean")).interface.is_close(interface)
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code != 0
    assert "is there already" in " ".join(again.output.split())


@pytest.mark.parametrize("differs", ["architectures", "tokenizers", "token interfaces"])
def test_llms_that_differ_in_more_than_weights_have_no_mean(constructed, tokenizer, interface, tmp_path, differs):
    other, model = copy.deepcopy(tokenizer), constructed
    if differs == "architectures":
        model = copy.deepcopy(constructed)
        model.config.num_attention_heads = 8
    if differs == "tokenizers":
        other.add_tokens(["<new>"])
    if differs == "token interfaces":
        interface = build_interface(Architecture(), 1)
    save(model, other, interface, tmp_path / "other")
    arguments = ["average-lm", "embedded", str(tmp_path / "other"), "--out", str(tmp_path / "mean")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert f"have different {differs}" in " ".join(result.output.split())
    assert not (tmp_path / "mean").exists()


def test_what_is_shipped_reads_injected_tokens(factory):
    """On fresh worlds of every kind the embedded LLM reaches most of what can be reached."""
    llm = load_llm("embedded")
    result = measure(llm.model, draw(factory, Mixture(explanations=0.0), 80, seed=5))["all"]
    assert result["share"] > 0.85
    assert result["rank"] > 0.75


@pytest.mark.parametrize(("similarity", "popularity"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_what_is_shipped_reads_every_signal(factory, monkeypatch, similarity, popularity):
    """It ranks by what the user likes alone, by what is like the history alone, and by what is popular alone."""
    monkeypatch.setattr(worlds, "_similarity_share", lambda _: similarity)
    monkeypatch.setattr(worlds, "_popularity_share", lambda _: popularity)
    examples = draw(factory, Mixture(candidates=(20, 20), title_tokens=2, genres=0.0, explanations=0.0), 80, seed=6)
    told = [example for example in examples if len(example.world.history) >= 2]
    assert measure(load_llm("embedded").model, told)["all"]["rank"] > 0.7


def test_settings_can_be_changed_one_by_one(tmp_path):
    """`--set` goes before the file, the file before the defaults."""
    path = tmp_path / "settings.toml"
    path.write_text("learning_rate = 1e-4\nseed = 3\n")
    config = read_config(path, ["seed=4", "gains.note=0.5"])
    assert (config.learning_rate, config.seed, config.gains.note) == (1e-4, 4, 0.5)
    limited = read_config(None, ["loop.max_steps=5"]).loop
    assert limited == PretrainConfig().loop.model_copy(update={"max_steps": 5})
    with pytest.raises(ConfigError, match="noise_level"):
        read_config(None, ["gains.noise_level=1"])


@pytest.mark.parametrize("text", ["mixture.answers=1", "mixture.explanations=1.0"])
def test_some_prompts_must_be_left_to_validate_on(text):
    """A run without any whose ranking can be measured would break at its first validation."""
    with pytest.raises(ConfigError, match="must leave prompts whose ranking can be measured"):
        read_config(None, [text])


def test_a_config_file_with_an_unknown_setting_is_refused(tmp_path):
    """The error names the file."""
    path = tmp_path / "settings.toml"
    path.write_text("learning_rat = 1e-4\n")
    with pytest.raises(ConfigError, match=r"settings\.toml"):
        read_config(path)


def test_gains_and_seed_come_from_the_file(tmp_path):
    """A recipe sets any field."""
    path = tmp_path / "settings.toml"
    path.write_text("seed = 7\n[gains]\nwrite = 3.0\n")
    config = read_config(path)
    assert (config.seed, config.gains) == (7, Gains(write=3.0))


def test_the_command_trains_and_does_not_train_twice(tmp_path):
    """`allmrec-train pretrain-lm` leaves an LLM, a curve and its plot; a second call finds it done."""
    path = tmp_path / "settings.toml"
    path.write_text(
        "titles = 100\nprompts_per_epoch = 8\nvalidation_prompts = 8\n"
        '[loop]\nmax_steps = 2\nvalidate_every = 50\nmonitor = "closeness"\n'
    )
    arguments = ["pretrain-lm", "--out", str(tmp_path / "run"), "--config", str(path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert {"llm", "curve.json", "curve.png", "metrics.json"} <= {p.name for p in (tmp_path / "run").iterdir()}
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0
    assert "done already" in again.output


def test_the_command_measures_the_prompts_asked_for(monkeypatch):
    """`allmrec-train evaluate-lm` draws as many prompts as it is told, with as many candidates, as sharp."""
    seen = []

    def spy(model, examples):
        seen.extend(examples)
        return measure(model, examples)

    monkeypatch.setattr("training.pretraining.cli.measure", spy)
    arguments = ["evaluate-lm", "--prompts", "30", "--candidates", "6", "--sharpness", "0.2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "branching node" in result.output
    assert re.search(r"names a choice in \d+\.\d% of \d+ prompts", " ".join(result.output.split()))
    assert len(seen) == 30
    recommend = [example for example in seen if not example.text]
    assert {len(example.layout.choices) for example in recommend} == {6}
    assert np.median([example.world.log_probs.std() for example in recommend if not example.world.series.any()]) < 0.4
