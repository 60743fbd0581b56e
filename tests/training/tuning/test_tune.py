"""An LLM that learns to rank titles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.catalogue import Catalogue
from models.domain import DOMAINS
from models.errors import ConfigError
from models.llm.loading import LanguageModel, load_llm
from models.prompts.title_list import TitleListConfig
from tests.device import DEVICE
from tests.tiny import tiny_split
from training.data.splits import SequenceSplit
from training.llm2rec.config import LoRAConfig
from training.llm2rec.model import Tuning
from training.runs.settings import with_changes
from training.tuning.config import TunedLLMConfig
from training.tuning.lists import Lists
from training.tuning.reading import Reading
from training.tuning.tune import task, tune_llm

DOMAIN = DOMAINS["movie"]
SPLIT = tiny_split()
SHOWN = TitleListConfig(history_items=3, max_title_tokens=16, vocabulary="catalogue")


def two_tastes() -> SequenceSplit:
    """Every user watches one half of the catalogue alone, whose titles begin alike."""
    rng = np.random.default_rng(0)
    train = [1 + 15 * (user % 2) + rng.permutation(15)[:4] for user in range(40)]
    titles = [f"{'aa' if item < 15 else 'zz'} {item}" for item in range(30)]
    counts = np.bincount(np.concatenate(train), minlength=31)[1:]
    catalogue = Catalogue(SPLIT.catalogue.item_ids[1:], titles, [""] * 30, [()] * 30, counts)
    return replace(SPLIT, catalogue=catalogue, train=train)


def reading_of(
    llm: LanguageModel, shown: TitleListConfig = SHOWN, split: SequenceSplit = SPLIT
) -> tuple[Reading, Lists]:
    lists = Lists(split.catalogue.titles, llm.tokenizer, shown, DOMAIN, llm.context_length)
    return Reading(llm, Tuning(llm.model, None).weights, lists), lists


def config_of(llm: str, **changes: object) -> TunedLLMConfig:
    loop = {"max_steps": 3, "validate_every": 0.05, "validate_first": True, "checkpoint_minutes": 0}
    settings = {"llm": llm, "device": DEVICE, "title_list": SHOWN.model_dump(), "negatives": 4, "batch_lists": 4}
    return TunedLLMConfig.model_validate({**settings, "validation_users": 12, "loop": loop, **changes})


@pytest.mark.parametrize("vocabulary", ["whole", "catalogue"])
def test_titles_are_read_as_by_plain_loops(llm: str, vocabulary: str) -> None:
    """log P(title | list) and log P(title), token by token, over the catalogue's tokens or all."""
    loaded = load_llm(llm, DEVICE)
    reading, lists = reading_of(loaded, SHOWN.model_copy(update={"vocabulary": vocabulary}))
    histories = [SPLIT.train[0], SPLIT.train[1][:1]]
    items = np.asarray([[3, 7, 12], [5, 1, 0]])
    with torch.no_grad():
        read = reading.read(histories, items)
    prompts = {"likely": [lists.after(history) for history in histories], "prior": [lists.alone] * 2}
    for prompt_of, found in zip(prompts.values(), read, strict=True):
        for row, prompt in enumerate(prompt_of):
            for column, item in enumerate(items[row]):
                wanted = plain(loaded, prompt, lists, int(item)) if item else -np.inf
                assert float(found[row, column]) == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
def plain(llm: LanguageModel, prompt: np.ndarray, lists: Lists, item: int) -> float:
    """One token after the other, each by a forward pass of its own."""
    tree = lists.tree(np.asarray([item]))
    tokens = [int(branch.children[0]) for branch in tree.branches]
    total, ids = 0.0, prompt.tolist()
    for token in tokens:
        logits = llm.model(input_ids=torch.tensor([ids], device=llm.model.device)).logits[0, -1].double()
        among = logits if tree.vocabulary is None else logits[torch.from_numpy(tree.vocabulary).to(logits.device)]
        total += float(logits[token] - among.logsumexp(0))
        ids = [*ids, token]
    return total


def test_the_loss_is_surprise_among_candidates_and_some_likelihood(llm: str) -> None:
    """By the reading's own scale and share, padding left out."""
    reading, lists = reading_of(load_llm(llm, DEVICE))
    config = config_of(llm, negatives=100, likelihood=0.25)
    job = task(reading, SPLIT, lists, config)
    (batch, *_) = job.batches(0)
    from training.tuning.lists import Positions

    places = Positions(SPLIT, lists.lengths, SHOWN.history_items, config.negatives, config.seed)
    histories, items = places.take(batch)
    with torch.no_grad():
        likely, prior = (values.cpu().double().numpy() for values in reading.read(histories, items))
        found = float(job.loss(batch))
    scale, share = float(reading.log_scale.detach().exp()), float(reading.share.detach())
    surprises = []
    for row in range(len(items)):
        real = items[row] > 0
        logits = scale * (likely[row, real] - share * prior[row, real])
        surprises.append(np.log(np.exp(logits).sum()) - logits[0])
    assert found == pytest.approx(0.75 * np.mean(surprises) - 0.25 * scale * likely[:, 0].mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("lora", "rate", "gain"), [(None, 1e-2, 0.5), (LoRAConfig(rank=8, dropout=0.0), 3e-3, 0.05)], ids=["whole", "lora"]
)
def test_it_learns_and_is_an_llm_like_any_other(
    llm: str, lora: LoRAConfig | None, rate: float, gain: float, tmp_path: Path
) -> None:
    """What is saved is better at ranking titles than what it was made of; low ranks do little for a random LLM."""
    loop = {"max_steps": 100, "validate_every": 100, "clip_norm": 1.0}
    config = config_of(llm, lora=lora, learning_rate=rate, loop=loop)
    folder = tune_llm(two_tastes(), DOMAIN, config, tmp_path)
    before, after = (surprise(load_llm(path, DEVICE)) for path in (llm, str(folder)))
    assert after < before - gain
    assert load_llm(str(folder)).fingerprint != load_llm(llm).fingerprint


def surprise(llm: LanguageModel) -> float:
    """Of training's targets among all items."""
    split = two_tastes()
    reading, lists = reading_of(llm, split=split)
    job = task(reading, split, lists, config_of("none", negatives=100, likelihood=0.0, batch_lists=1000))
    (batch, *_) = job.batches(7)
    with torch.no_grad():
        return float(job.loss(batch))


def test_what_is_done_is_not_done_again(llm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor with other settings taken for the same."""
    folder = tune_llm(SPLIT, DOMAIN, config_of(llm), tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    tune_llm(SPLIT, DOMAIN, config_of(llm), tmp_path)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert "done before" in capsys.readouterr().err
    tune_llm(SPLIT, DOMAIN, config_of(llm, seed=1), tmp_path)
    assert (folder / "model.safetensors").stat().st_mtime_ns != written


def test_settings_are_checked() -> None:
    """Keys of the loop may stand by themselves; what is no setting is refused."""
    changes = ["minutes=3", "negatives=2", "lora.rank=4", "title_list.history_items=5"]
    config = with_changes(TunedLLMConfig(), changes, "tune-llm")
    assert (config.loop.minutes, config.negatives, config.title_list.history_items) == (3, 2, 5)
    assert config.lora is not None
    assert config.lora.rank == 4
    for wrong in ("negative=2", "negatives=0", "loop.minute=3"):
        with pytest.raises(ConfigError, match=r"^tune-llm: "):
            with_changes(TunedLLMConfig(), [wrong], "tune-llm")
