"""The baselines' losses, each beside a loop that works it out another way, and worlds where their signals must show."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.errors import ConfigError
from models.prompts.template import PromptConfig
from models.rankers.base import Audience
from tests.tiny import tiny_llm, tiny_split
from training.baselines.bench import Bench
from training.baselines.ctrl import contrast, in_words
from training.baselines.morec import MoRecConfig
from training.baselines.port import Shop
from training.baselines.recformer import Training, masked, recformer
from training.baselines.recformer_network import ItemTexts, RecformerConfig, built
from training.baselines.tallrec import TALLRecConfig, YesNoPrompts, YesNoRanker, answer_loss, padded, tuned
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.runs.loop import LoopConfig, train
from training.runs.settings import merged


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_contrast_is_the_loop_over_pairs_and_parts() -> None:
    """CTRL: the sum over parts of the best cosine, softmax over the batch, both ways."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 5, 3, 4))
    pairs = list(product(range(5), range(5)))
    to_theirs, to_ours = np.zeros((5, 5)), np.zeros((5, 5))
    for a, b in pairs:
        to_theirs[a, b] = sum(max(cosine(ours[a, p], theirs[b, q]) for q in range(3)) for p in range(3))
        to_ours[b, a] = sum(max(cosine(ours[a, p], theirs[b, q]) for p in range(3)) for q in range(3))
    expected = 0.0
    for likeness, row in product((to_theirs, to_ours), range(5)):
        shares = [math.exp(likeness[row, other] / 0.2) for other in range(5)]
        expected -= math.log(shares[row] / sum(shares)) / 10
    found = contrast(torch.tensor(ours), torch.tensor(theirs), 0.2)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_pair_in_words_names_the_next_item_and_the_latest_before_it() -> None:
    """Five of them, in their order."""
    catalogue = tiny_split().catalogue
    told = in_words(catalogue, np.arange(1, 8), 9)
    assert told == "next: Title 9; before: Title 3, Title 4, Title 5, Title 6, Title 7"


def test_the_answers_loss_is_of_one_token() -> None:
    """TALLRec: -log softmax over the vocabulary at Yes or No."""
    rng = np.random.default_rng(1)
    logits, liked = rng.normal(size=(4, 9)), [True, False, False, True]
    expected = np.mean(
        [-row[2 if yes else 5] + math.log(np.exp(row).sum()) for row, yes in zip(logits, liked, strict=True)]
    )
    found = answer_loss(torch.tensor(logits), torch.tensor(liked), yes=2, no=5)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_candidates_share_their_prefix_and_have_the_logits_of_whole_prompts() -> None:
    """TALLRec: equal to one plain forward for each candidate, without cache or padding."""
    llm, split = tiny_llm(), tiny_split()
    prompts = YesNoPrompts(llm.tokenizer, split.catalogue, PromptConfig())
    history, items = split.train[0], np.array([3, 17, 28, 4])
    found = YesNoRanker(llm.model, prompts).compute(Audience(["a"], [history]), items[None])[0]
    for item, logit in zip(items, found, strict=True):
        tokens = torch.tensor([[*prompts.history(history), *prompts.target(int(item))]])
        last = llm.model(input_ids=tokens).logits[0, -1].double()
        assert logit == pytest.approx(float(last[prompts.yes] - last[prompts.no]), abs=1e-4)


def test_lora_changes_nothing_before_and_the_llm_never(bench: Bench) -> None:
    """TALLRec: the tuned copy starts as the frozen LLM; only LoRA's matrices are trained."""
    model = tuned(bench, TALLRecConfig(modules=("q_proj", "v_proj")))
    ids, mask = padded([[5, 6, 7], [8, 9]], "cpu")
    with torch.no_grad():
        ours, frozen = (net(input_ids=ids, attention_mask=mask).logits for net in (model, bench.llm.model))
    torch.testing.assert_close(ours, frozen)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_words_are_masked_and_remembered() -> None:
    """RECFORMER: every hidden word is told with its place, nothing else changes, [CLS] stays; as in BERT, of those told
    eight in ten are masked, one is another word, one stays."""
    texts = [(list(range(100, 4100)), [1] * 4000, [1] * 4000), (list(range(200, 230)), [2] * 30, [3] * 30)]
    hidden, places, words = masked(texts, mask=7, vocabulary=50, seed=3)
    assert len(places) == len(words) == pytest.approx(0.15 * 4028, rel=0.1)
    kinds = {"masked": 0, "another": 0, "kept": 0}
    for (row, place), word in zip(places, words, strict=True):
        assert place > 0
        assert texts[row][0][place] == word
        shown = hidden[row][0][place]
        kinds["kept" if shown == word else "masked" if shown == 7 else "another"] += 1
        assert shown < 50 or shown == word
    shares = [count / len(words) for count in kinds.values()]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.04)
    changed = sum(a != b for old, new in zip(texts, hidden, strict=True) for a, b in zip(old[0], new[0], strict=True))
    assert changed == kinds["masked"] + kinds["another"]


def test_recformer_tells_the_next_item_by_cosines(bench: Bench) -> None:
    """-log softmax of cosine / temperature over the items given, worked out in NumPy."""
    config = bench.config("recformer", RecformerConfig)
    network, tokenizer = built(config, len(bench.split.catalogue))
    texts = ItemTexts(tokenizer, bench.split.catalogue, config)
    users = network.encode(texts, [[1, 2], [3]]).numpy()
    items = network.encode_items(texts).numpy()
    assert not items[0].any()
    logits = users @ items[1:].T / config.temperature
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), 1.0, rtol=1e-5)
    expected = np.mean([np.log(np.exp(row).sum()) - row[answer] for row, answer in zip(logits, [4, 0], strict=True)])
    found = network.contrast(torch.tensor(users), torch.tensor(items[1:]), torch.tensor([4, 0]))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def in_a_loop(training: Training, batch: list[tuple[list[int], int]], items: np.ndarray) -> float:
    """RECFORMER's loss in fine-tuning: one user after the other among all items with training interactions."""
    trained = [item for item in range(1, len(items)) if training.split.catalogue.trained[item]]
    losses = []
    for history, answer in batch:
        user = training.network.encode(training.texts, [history]).numpy()[0].astype(np.float64)
        logits = {item: user @ items[item] / training.config.temperature for item in trained}
        losses.append(math.log(sum(math.exp(logit) for logit in logits.values())) - logits[answer])
    return float(np.mean(losses))


def test_in_recformers_second_step_the_items_rest(bench: Bench, tmp_path: Path) -> None:
    """The network learns among the vectors of the first step's best validation, and is validated by them."""
    first_step, second_step = LoopConfig(max_steps=3), LoopConfig(max_steps=3, validate_first=True)
    small = {"layers": 1, "attention_window": 8, "item_tokens": 6, "history_items": 5, "batch_size": 8}
    config = bench.config("recformer", RecformerConfig)
    training = Training(bench, config.model_copy(update={**small, "loop": first_step, "second_step": second_step}))
    phases = training.phases()
    first = train(*phases["fine-tuning"], tmp_path / "first.ckpt", console=bench.console)
    items = training.network.table.clone()
    task, loop = phases["second step"]
    batch, weights = task.batches(0)[0], [parameter.clone() for parameter in training.network.parameters()]
    assert task.loss(batch).item() == pytest.approx(in_a_loop(training, batch, items.double().numpy()), rel=1e-4)
    second = train(task, loop, tmp_path / "second.ckpt", console=bench.console)
    last = torch.load(tmp_path / "second.ckpt", weights_only=True)["weights"]
    torch.testing.assert_close(last["table"], items, rtol=0, atol=0)
    training.network.load_state_dict(last)
    assert any(not torch.equal(a, b) for a, b in zip(training.network.parameters(), weights, strict=True))
    assert not torch.allclose(training.network.encode_items(training.texts), items, atol=1e-3)
    assert task.loss(batch).item() == pytest.approx(in_a_loop(training, batch, items.double().numpy()), rel=1e-4)
    start = next(record for record in second.curve if "ndcg@10" in record)
    assert (start["step"], start["ndcg@10"]) == (0, first.best["ndcg@10"])


def test_recformer_ranks_by_the_vectors_that_rested(bench: Bench) -> None:
    """Its own catalogue; items of another one it has to encode."""
    ranker = recformer(bench)
    held_out = HeldOut.of(bench.split, Holdout.TEST, users=3)
    own, foreign = (
        ranker(Shop(bench.split.catalogue, bench.prompt, foreign=foreign)).compute(
            held_out.users, held_out.candidates.items
        )
        for foreign in (False, True)
    )
    (path,) = bench.directory.glob("recformer/*/recformer.safetensors")
    config = bench.config("recformer", RecformerConfig)
    network, tokenizer = built(config, len(bench.split.catalogue))
    network.load_state_dict(load_file(path))
    texts = ItemTexts(tokenizer, bench.split.catalogue, config)
    users = network.encode(texts, [history.tolist() for history in held_out.users.histories]).numpy()
    for items, found in ((network.table, own), (network.encode_items(texts), foreign)):
        expected = [
            items.numpy()[row] @ user / config.temperature
            for user, row in zip(users, held_out.candidates.items, strict=True)
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_longformers_padding_changes_no_vector(bench: Bench) -> None:
    """Alone or beside a longer text."""
    config = bench.config("recformer", RecformerConfig)
    network, tokenizer = built(config, len(bench.split.catalogue))
    texts = ItemTexts(tokenizer, bench.split.catalogue, config)
    told = [texts.of([1]), texts.of([1, 2, 3, 4, 5, 6])]
    with torch.no_grad():
        together = network.eval().vectors(told, texts.pad)[0]
        alone = network.vectors(told[:1], texts.pad)[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_published_weights_are_trained_in_full_precision(bench: Bench, tmp_path: Path) -> None:
    """Hubs have them in half: an optimizer's steps soon are no numbers there."""
    config = bench.config("recformer", RecformerConfig)
    network, tokenizer = built(config, len(bench.split.catalogue))
    network.longformer.half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, _ = built(config.model_copy(update={"weights": str(tmp_path)}), len(bench.split.catalogue))
    assert {weights.dtype for weights in loaded.parameters()} == {torch.float32}


def test_settings_of_all_give_way_to_a_baselines_own(bench: Bench) -> None:
    """Section by section; an unknown key is refused with the baseline's name."""
    assert merged({"loop": {"minutes": 1, "epochs": 2}, "seed": 3}, {"loop": {"minutes": 5}}) == {
        "loop": {"minutes": 5, "epochs": 2},
        "seed": 3,
    }
    loop = bench.config("morec", MoRecConfig).loop
    assert (loop.max_steps, loop.patience) == (2, MoRecConfig().loop.patience)
    assert MoRecConfig(minutes=60).limited.loop.minutes == MoRecConfig(minutes=60).limited.tuning.minutes == 60
    assert MoRecConfig(minutes=0.1).limited.loop.minutes == 0.1
    assert MoRecConfig().limited == MoRecConfig()
    wrong = Bench(
        bench.dataset_path,
        bench.recipe.model_copy(update={"baselines": {"morec": {"learning_rat": 1}}}),
        bench.directory,
        bench.console,
    )
    with pytest.raises(ConfigError, match=r"baselines\.morec.*learning_rat"):
        wrong.config("morec", MoRecConfig)
