"""An LLM that learns to rank titles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from models.catalogue import Catalogue
from models.domain import DOMAINS, Domain
from models.errors import ConfigError, PromptTooLongError
from models.llm.loading import LanguageModel, load_llm
from models.prompts.title_list import TitleListConfig
from models.title_lists import TitleLists
from tests.device import DEVICE
from tests.models.scoring.families import EXACT, tiny
from tests.tiny import tiny_split
from tests.training.ground import write_shop
from training.allmrec.tuned import TunedOn, TuningData
from training.cli.catalogue import make_pipeline
from training.cli.main import app
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.llm2rec.config import LoRAConfig
from training.llm2rec.model import Tuning
from training.runs.loop import Outcome
from training.runs.settings import with_changes
from training.tuning.config import LOW_RANK_RATE, WHOLE_RATE, TunedLLMConfig
from training.tuning.positions import Positions
from training.tuning.reading import START_SCALE, Reading
from training.tuning.tune import in_words, task, tune_llm

DOMAIN = DOMAINS["movie"]
SPLIT = tiny_split()
SHOWN = TitleListConfig(history_items=3, max_title_tokens=16, vocabulary="catalogue")
DATA = TuningData("data", "interactions", "last")


def two_tastes() -> SequenceSplit:
    """Every user watches one half of the catalogue alone, whose titles begin alike."""
    rng = np.random.default_rng(0)
    train = [1 + 15 * (user % 2) + rng.permutation(15)[:4] for user in range(40)]
    titles = [f"{'aa' if item < 15 else 'zz'} {item}" for item in range(30)]
    counts = np.bincount(np.concatenate(train), minlength=31)[1:]
    catalogue = Catalogue(SPLIT.catalogue.item_ids[1:], titles, [""] * 30, [()] * 30, counts)
    return replace(SPLIT, catalogue=catalogue, train=train)


def reading_of(
    llm: LanguageModel, shown: TitleListConfig = SHOWN, split: SequenceSplit = SPLIT, domain: Domain = DOMAIN
) -> tuple[Reading, TitleLists]:
    lists = TitleLists(split.catalogue.titles, llm.tokenizer, shown, domain, llm.context_length)
    return Reading(llm, Tuning(llm.model, None).weights, lists), lists


def config_of(llm: str, **changes: object) -> TunedLLMConfig:
    loop = {"max_steps": 3, "validate_every": 0.05, "validate_first": True, "checkpoint_minutes": 0}
    settings = {"llm": llm, "device": DEVICE, "title_list": SHOWN.model_dump(), "negatives": 4, "batch_lists": 4}
    return TunedLLMConfig.model_validate({**settings, "validation_users": 12, "loop": loop, **changes})


def tuned(config: TunedLLMConfig, directory: Path, split: SequenceSplit = SPLIT, data: str = "data") -> Path:
    return tune_llm(split, DOMAIN, config, DATA._replace(data=data), directory, Console(quiet=True))


@pytest.mark.parametrize("vocabulary", ["whole", "catalogue"])
def test_titles_are_read_as_by_plain_loops(llm: str, vocabulary: str) -> None:
    """log P(title | list) and log P(title), token by token, over the catalogue's tokens or all."""
    loaded = load_llm(llm, DEVICE)
    reading, lists = reading_of(loaded, SHOWN.model_copy(update={"vocabulary": vocabulary}))
    histories = [SPLIT.train[0], SPLIT.train[1][:1]]
    items = np.asarray([[3, 7, 12], [5, 0, 1]])
    with torch.no_grad():
        likely, prior, tokens = reading.read(histories, items)
    prompts = [lists.after(history) for history in histories], [lists.alone] * 2
    for prompt_of, found in zip(prompts, (likely, prior), strict=True):
        for row, prompt in enumerate(prompt_of):
            for column, item in enumerate(items[row]):
                wanted = plain(loaded, prompt, lists, int(item)) if item else -np.inf
                assert float(found[row, column]) == pytest.approx(wanted, abs=1e-4)
    assert tokens.tolist() == [len(lists.tree([item]).branches) for item in (3, 5)]


@torch.no_grad()
def plain(llm: LanguageModel, prompt: np.ndarray, lists: TitleLists, item: int) -> float:
    """One token after the other, each by a forward pass of its own."""
    tree = lists.tree([item])
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
    places = Positions(SPLIT, lists.lengths, SHOWN.history_items, config.negatives, config.seed)
    histories, items = places.take(batch)
    with torch.no_grad():
        likely, prior, tokens = (values.cpu().double().numpy() for values in reading.read(histories, items))
        found = float(job.loss(batch))
    scale, share = float(reading.log_scale.detach().exp()), float(reading.share.detach())
    surprises = []
    for row in range(len(items)):
        real = items[row] > 0
        logits = scale * (likely[row, real] - share * prior[row, real])
        surprises.append(np.log(np.exp(logits).sum()) - logits[0])
    assert found == pytest.approx(np.mean(surprises) - 0.25 * np.mean(likely[:, 0] / tokens), rel=1e-4)


def test_validation_is_of_validation_items_that_are_new(llm: str) -> None:
    """Of so many users, by the same reading."""
    reading, lists = reading_of(load_llm(llm, DEVICE))
    repeated = replace(SPLIT, validation=np.where(np.arange(40) % 3, SPLIT.validation, [t[0] for t in SPLIT.train]))
    held_out = HeldOut.of(repeated, Holdout.VALIDATION, 0, 12)
    held_out = held_out.take(held_out.groups["new"])
    assert 0 < len(held_out) < 12
    with torch.no_grad():
        found = task(reading, repeated, lists, config_of(llm)).validate()
        logits = reading.logits(reading.read(held_out.users.histories, held_out.candidates.items))
    assert found == pytest.approx(mean_metrics(logits.cpu().numpy()))


@pytest.mark.parametrize(
    ("lora", "rate", "gain"), [(None, 5e-3, 0.5), (LoRAConfig(rank=8, dropout=0.0), 3e-3, 0.05)], ids=["whole", "lora"]
)
def test_it_learns_and_is_an_llm_like_any_other(
    llm: str, lora: LoRAConfig | None, rate: float, gain: float, tmp_path: Path
) -> None:
    """What is saved is better at ranking titles than what it was made of; low ranks do little for a random LLM."""
    loop = {"max_steps": 100, "validate_every": 100, "clip_norm": 1.0}
    config = config_of(llm, lora=lora, learning_rate=rate, loop=loop)
    folder = tuned(config, tmp_path, two_tastes())
    before, after = (surprise(load_llm(path, DEVICE)) for path in (llm, str(folder)))
    assert after < before - gain
    assert load_llm(str(folder)).fingerprint != load_llm(llm).fingerprint
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["scale"] != pytest.approx(START_SCALE, rel=1e-3)


def surprise(llm: LanguageModel) -> float:
    """Of training's targets among all items."""
    split = two_tastes()
    reading, lists = reading_of(llm, split=split)
    job = task(reading, split, lists, config_of("none", negatives=100, likelihood=0.0, batch_lists=1000))
    (batch, *_) = job.batches(7)
    with torch.no_grad():
        return float(job.loss(batch))


@pytest.mark.skipif(DEVICE == "cpu", reason="of a GPU")
def test_attention_is_not_compiled_anew_for_every_length(llm: str):
    load_llm(llm, DEVICE)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_what_is_saved_says_what_was_validated(llm: str, tmp_path: Path) -> None:
    """A checkpoint in half precision is saved in full: small steps would be rounded away."""
    half = load_llm(llm)
    half.model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    half.tokenizer.save_pretrained(tmp_path / "half")
    config = config_of(str(tmp_path / "half"), learning_rate=1e-4, validation_users=40)
    folder = tuned(config, tmp_path / "run")
    figures = json.loads((tmp_path / "run/metrics.json").read_text())
    loaded = load_llm(str(folder), DEVICE)
    assert loaded.model.dtype == torch.float32
    reading, lists = reading_of(loaded)
    with torch.no_grad():
        reading.log_scale.fill_(float(np.log(figures["scale"])))
        reading.share.fill_(figures["prior_share"])
        found = task(reading, SPLIT, lists, config).validate()
    assert found == pytest.approx({name: figures["validation"][name] for name in found}, abs=1e-6)


def test_checkpointed_layers_have_the_gradients_of_others(llm: str, tmp_path: Path) -> None:
    """Under low-rank updates with dropout, which a layer that is computed again must draw again."""
    for name, checkpointing in (("plain", False), ("checkpointed", True)):
        config = config_of(llm, lora=LoRAConfig(rank=2, dropout=0.5), gradient_checkpointing=checkpointing)
        tuned(config, tmp_path / name)
    curves = [json.loads((tmp_path / name / "curve.json").read_text()) for name in ("plain", "checkpointed")]
    losses = [[point["loss"] for point in curve if "loss" in point] for curve in curves]
    assert len(losses[0]) > 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_is_done_is_not_done_again(llm: str, tmp_path: Path) -> None:
    """Nor undone by other settings, other data or another LLM; the same weights in another place are the same LLM."""
    folder = tuned(config_of(llm), tmp_path / "run")
    written = (folder / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "same").symlink_to(llm)
    tuned(config_of(str(tmp_path / "same")), tmp_path / "run")
    other = load_llm(llm)
    with torch.no_grad():
        next(other.model.parameters()).add_(0.1)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    for config, data in (
        (config_of(llm, seed=1), "data"),
        (config_of(llm), "other data"),
        (config_of(str(tmp_path / "other")), "data"),
    ):
        with pytest.raises(ConfigError, match="name another --out"):
            tuned(config, tmp_path / "run", data=data)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_who_was_stopped_after_writing_goes_on(llm: str, tmp_path: Path) -> None:
    """The LLM is there, and the run not yet done; it is not another one's."""
    folder = tuned(config_of(llm), tmp_path / "run")
    (tmp_path / "run" / "done").unlink()
    assert tuned(config_of(llm), tmp_path / "run") == folder
    assert (tmp_path / "run" / "done").is_file()
    assert load_llm(str(folder)).model is not None


def test_what_is_refused_leaves_what_was_done(llm: str, tmp_path: Path) -> None:
    """An LLM that is not there, one with injected tokens, a tuned one, titles that do not fit its context."""
    folder = tuned(config_of(llm), tmp_path)
    for wrong, reason in (
        (config_of(str(tmp_path / "nowhere")), "there is no folder of that name"),
        (config_of("embedded"), "injected tokens"),
        (config_of(str(folder)), "is a tuned one"),
        (config_of(llm, title_list=SHOWN.model_copy(update={"max_title_tokens": 5000}).model_dump()), "another --out"),
    ):
        with pytest.raises(ConfigError, match=reason):
            tuned(wrong, tmp_path)
    too_long = config_of(llm, title_list=SHOWN.model_copy(update={"max_title_tokens": 5000}).model_dump())
    with pytest.raises(PromptTooLongError):
        tuned(too_long, tmp_path / "new")
    assert not (tmp_path / "new/config.json").exists()
    assert (tmp_path / "done").is_file()
    assert load_llm(str(folder)).model is not None


def test_it_knows_what_it_was_tuned_on(llm: str, tmp_path: Path) -> None:
    """The same files split otherwise would leak; other data are another matter."""
    folder = str(tuned(config_of(llm), tmp_path))
    record = TunedOn.of(folder)
    assert record is not None
    assert TunedOn.of(llm) is None
    assert not record.check(folder, DATA, SHOWN)
    assert "other data" in " ".join(record.check(folder, TuningData("others", "other", "time"), SHOWN))
    for data in ("data", "with a description that was corrected"):
        with pytest.raises(ConfigError, match="another split of these data"):
            record.check(folder, TuningData(data, "interactions", "time"), SHOWN)
    (warning,) = record.check(folder, DATA, SHOWN.model_copy(update={"vocabulary": "whole", "history_items": 99}))
    assert warning.endswith(
        'tuned by --set blend.title_list.history_items=3 --set blend.title_list.vocabulary="catalogue"'
    )
    (Path(folder) / "tuned.json").write_text("{}")
    with pytest.raises(ConfigError, match="tune it again"):
        TunedOn.of(folder)


def test_a_start_that_was_not_validated_is_not_told() -> None:
    """What came of tuning is not held against the first validation after it."""
    first, last = {"step": 0, "ndcg@10": 0.25}, {"step": 9, "ndcg@10": 0.5}
    assert in_words(Outcome(best_step=9, curve=[first, last]), "ndcg@10") == "validation ndcg@10 0.2500 to 0.5000"
    assert "0.5000; it was not validated before" in in_words(Outcome(best_step=9, curve=[last]), "ndcg@10")


def test_no_encoder_is_made_of_a_tuned_llm(llm: str, tmp_path: Path) -> None:
    """Nothing would know what it has seen."""
    folder = tuned(config_of(llm), tmp_path / "run")
    call = ["llm2rec", str(write_shop(tmp_path)), "--llm", str(folder), "--out", str(tmp_path / "encoders")]
    result = CliRunner().invoke(app, call)
    assert (result.exit_code, "is a tuned one" in result.output) == (2, True)


@pytest.mark.parametrize("by_time", [False, True])
def test_the_command(llm: str, by_time: bool, tmp_path: Path) -> None:
    """From a dataset's folder to an LLM that a fit on the same split takes, and one on another does not."""
    shop = Dataset.load(write_shop(tmp_path))
    daily = shop.interactions.with_columns(pl.col("timestamp") * 86_400 + 1_500_000_000)
    replace(shop, interactions=daily).save(tmp_path / "shop")
    small = ["max_steps=1", "validation_users=4", "negatives=2", "batch_lists=2", "title_list.max_title_tokens=8"]
    settings = [part for change in small for part in ("--set", change)]
    split = ["--time-split"] if by_time else []
    result = CliRunner().invoke(
        app, ["tune-llm", str(tmp_path / "shop"), "--llm", llm, "--out", str(tmp_path / "run"), *settings, *split]
    )
    assert result.exit_code == 0, result.output
    record = TunedOn.of(str(tmp_path / "run/llm"))
    assert record is not None
    assert record.held_out == ("time" if by_time else "last")
    settings = [f'stage2.llm="{tmp_path}/run/llm"']
    same, other = (
        make_pipeline(tmp_path / "shop", "default", settings, tmp_path / "fit", by_time=split)
        for split in (by_time, not by_time)
    )
    assert same.llm.name == f"{tmp_path}/run/llm"
    with pytest.raises(ConfigError, match="another split of these data"):
        _ = other.split


def test_settings_are_checked() -> None:
    """Keys of the loop may stand by themselves; what is no setting is refused."""
    changes = ["minutes=3", "negatives=2", "lora.rank=4", "title_list.history_items=5"]
    config = with_changes(TunedLLMConfig(), changes, "tune-llm")
    assert (config.loop.minutes, config.negatives, config.title_list.history_items) == (3, 2, 5)
    assert config.lora == LoRAConfig(rank=4)
    assert config.rate == LOW_RANK_RATE
    assert with_changes(config, ["lora=none"], "tune-llm").rate == WHOLE_RATE
    assert with_changes(config, ["learning_rate=3e-4"], "tune-llm").rate == 3e-4
    for wrong in ("negative=2", "negatives=0", "loop.minute=3"):
        with pytest.raises(ConfigError, match=r"^tune-llm: "):
            with_changes(TunedLLMConfig(), [wrong], "tune-llm")


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe", "olmoe", "phimoe"])
def test_layers_that_cannot_be_updated_are_told_with_the_way_out(case: str) -> None:
    """Experts that are one table have no place for dropout; without it most can be tuned."""
    with pytest.raises(
        ConfigError, match=r"by low-rank updates of all its layers with dropout 0\.05 \(set lora\.dropout=0"
    ):
        Tuning(tiny(case, EXACT[case]), LoRAConfig(rank=2))
    if case != "phimoe":
        tuning = Tuning(tiny(case, EXACT[case]), LoRAConfig(rank=2, dropout=0))
        assert sum(weight.numel() for weight in tuning.weights.parameters())
