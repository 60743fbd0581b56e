"""What vectors are worth: how a recommender is given them, and how it is reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbones import Backbone, create_backbone
from models.errors import ConfigError
from tests.tiny import tiny_split
from tests.tiny_encoder import write_tiny_encoder
from training.data.splits import Holdout
from training.llm2rec.compare import compare, learned_from
from training.llm2rec.corpus import Domain
from training.llm2rec.encoder import Record
from training.llm2rec.report import make_row, markdown, write_report
from training.llm2rec.trials import HYBRID, TrialConfig, Trials, VectorTrainer, known_uses, labelled
from training.runs.context import RunContext
from training.runs.settings import with_changes


@pytest.fixture
def config() -> TrialConfig:
    """Small and quick."""
    return with_changes(
        TrialConfig(), ["embedding_size=8", "epochs=2", "validate_every=1", "max_text_tokens=16"], "evaluate-encoder"
    )


def create(use: str, config: TrialConfig, directory: Path, vectors: torch.Tensor) -> Backbone:
    """A recommender with fresh weights, in eval mode."""
    preset = config.backbone(use)
    return VectorTrainer(tiny_split(), preset, RunContext(directory), vectors).create(preset).eval()


def text_vectors() -> torch.Tensor:
    """Of 30 items."""
    vectors = torch.randn(31, 5, generator=torch.Generator().manual_seed(0))
    vectors[0] = 0.0
    return vectors


@pytest.mark.parametrize("use", known_uses())
def test_items_are_their_texts_and_in_a_hybrid_ids_too(use: str, config: TrialConfig, tmp_path: Path) -> None:
    """`A q` for all, or `id + A q` for those with training interactions; some of them alone are the same."""
    vectors = text_vectors()
    backbone = create(use, config, tmp_path, vectors)
    with torch.no_grad():
        expected = backbone.adapter(vectors)
        if use == HYBRID:
            expected = expected + backbone.items.weight * torch.from_numpy(tiny_split().catalogue.trained)[:, None]
        torch.testing.assert_close(backbone.item_vectors, expected)
        torch.testing.assert_close(backbone.vectors_of(torch.tensor([3, 7])), expected[[3, 7]])
    assert backbone.num_items == 30


def test_an_adapted_backbone_is_the_backbone_over_adapted_vectors(config: TrialConfig, tmp_path: Path) -> None:
    """SASRec whose own table holds A q says the same of a history; its table in the adapted one is never read."""
    adapted = create("sasrec", config, tmp_path, text_vectors())
    plain = create_backbone("sasrec", {"num_items": 30, "embedding_size": 8, "dropout": 0.5}).eval()
    weights = dict(adapted.network.state_dict())
    plain.load_state_dict({**weights, "items.weight": adapted.item_vectors.detach()})
    history = torch.tensor([[0, 4, 9], [30, 2, 1]])
    with torch.no_grad():
        torch.testing.assert_close(adapted.represent(history), plain.represent(history))
        adapted.network.items.weight.fill_(9.0)
        torch.testing.assert_close(adapted.represent(history), plain.represent(history))


def test_trials_are_kept(config: TrialConfig, tmp_path: Path) -> None:
    """The same question has the same answer without training; another encoder under the same label is tried anew."""
    words = [f"title {number}".split()[1] for number in range(1, 31)] + ["title"]
    first = write_tiny_encoder(tmp_path / "a", words)
    second = write_tiny_encoder(tmp_path / "b", words, seed=1)
    trials = Trials(Domain("tiny", tiny_split()), "data", config, tmp_path / "trials")
    ranks = trials.ranks("one", first, "sasrec")
    done = tmp_path / "trials" / "one" / "sasrec" / "seed-0" / "done"
    stamp = done.stat().st_mtime_ns
    again = trials.ranks("one", first, "sasrec")
    assert done.stat().st_mtime_ns == stamp
    assert np.array_equal(ranks[Holdout.TEST], again[Holdout.TEST])
    assert ranks[Holdout.TEST].min() >= 1
    assert ranks[Holdout.TEST].shape == (1, len(trials.groups(Holdout.TEST)["cold"])) == (1, 40)
    other = trials.ranks("one", second, "sasrec")
    assert not np.array_equal(ranks[Holdout.TEST], other[Holdout.TEST])


def test_more_seeds_are_more_trainings(config: TrialConfig, tmp_path: Path) -> None:
    """The first is the one that was there; each other learns something else of the same vectors."""
    encoder = write_tiny_encoder(tmp_path / "a", [str(number) for number in range(1, 31)])
    trials = Trials(Domain("tiny", tiny_split()), "data", config, tmp_path / "trials")
    alone = trials.ranks("one", encoder, "sasrec")[Holdout.TEST]
    first, second = trials.ranks("one", encoder, "sasrec", seeds=2)[Holdout.TEST]
    assert np.array_equal(alone[0], first)
    assert not np.array_equal(first, second)


def test_rows_are_worked_out_from_ranks(tmp_path: Path) -> None:
    """Two users at ranks 1 and 15 against 2 and 30; NDCG@10 is 1 / log2(1 + rank) within ten."""
    ranks = {holdout: np.array([[1, 15]]) for holdout in Holdout}
    first = {holdout: np.array([[2, 30]]) for holdout in Holdout}
    names = {"dataset": "d", "use": "sasrec", "in_domain": None}
    rows = [
        make_row(first, None, np.array([False, False]), {**names, "encoder": "a"}),
        make_row(ranks, first, np.array([False, True]), {**names, "encoder": "b"}),
    ]
    assert rows[0].metrics["ndcg@10"].mean == pytest.approx(0.5 / np.log2(3))
    assert rows[1].metrics["recall@10"].mean == 0.5
    assert rows[1].metrics["recall@20"].mean == 1.0
    assert rows[1].metrics["ndcg@20"].mean == pytest.approx((1 + 1 / np.log2(16)) / 2)
    assert rows[1].lead["ndcg@10"].mean == pytest.approx((1 - 1 / np.log2(3)) / 2)
    assert (rows[0].cold, rows[1].cold.mean, rows[0].lead) == (None, 0.0, {})
    text = markdown(rows)
    assert "| b * |" in text
    assert "| a |" in text
    twice = {holdout: np.array([[1, 15], [1, 1]]) for holdout in Holdout}
    both = make_row(twice, twice, np.array([False, True]), {**names, "encoder": "c"})
    assert (both.seeds, both.metrics["recall@10"].mean, both.cold.mean, both.lead["ndcg@10"].high) == (2, 0.75, 0.5, 0)
    assert "2 users, 2 seeds" in markdown([both])
    assert "seeds" not in text
    write_report(rows, {"seed": 0}, tmp_path)
    assert json.loads((tmp_path / "encoders.json").read_text())["rows"][1]["users"] == 2


def test_encoders_are_compared_on_every_catalogue(config: TrialConfig, tmp_path: Path) -> None:
    """In every use asked for; the first has no lead on itself."""
    words = [str(number) for number in range(1, 31)] + ["title"]
    encoders = {name: write_tiny_encoder(tmp_path / name, words, seed=seed) for seed, name in enumerate("ab")}
    domains = [Domain("x", tiny_split()), Domain("y", tiny_split(seed=3))]
    path = compare(domains, encoders, ["sasrec"], config, tmp_path / "out")
    rows = json.loads(path.with_suffix(".json").read_text())["rows"]
    assert [(row["dataset"], row["encoder"], bool(row["lead"])) for row in rows] == [
        ("x", "a", False),
        ("x", "b", True),
        ("y", "a", False),
        ("y", "b", True),
    ]


def test_what_an_encoder_learned_from_is_told_by_titles(tmp_path: Path) -> None:
    """Not by folders, which are called anything; where the name says yes and the titles no, nobody can say."""
    split, other = tiny_split(), tiny_split(items=34)
    record = Record(llm="x", stages=["csft"], domains={"shop": Domain("shop", split).titles_fingerprint})
    (tmp_path / "llm2rec.json").write_text(record.model_dump_json())
    encoder = str(tmp_path)
    assert learned_from(encoder, Domain("shop", split)) is True
    assert learned_from(encoder, Domain("renamed", split)) is True
    assert learned_from(encoder, Domain("shop", other)) is None
    assert learned_from(encoder, Domain("mall", other)) is False
    assert learned_from("embedded", Domain("shop", split)) is None
    (tmp_path / "llm2rec.json").write_text('{"llm": "x", "stages": ["csft"], "domains": ["shop"]}')
    assert learned_from(encoder, Domain("shop", split)) is None
    assert learned_from(encoder, Domain("mall", split)) is False
    (tmp_path / "llm2rec.json").write_text('{"llm": "x", "stages": [], "domains": ["shop"]}')
    assert learned_from(encoder, Domain("shop", split)) is False
    (tmp_path / "llm2rec.json").write_text('{"llm": ')
    with pytest.raises(ConfigError, match=r"llm2rec\.json is damaged"):
        learned_from(encoder, Domain("shop", split))


@pytest.mark.parametrize("given", ["a/b=embedded", "../x=embedded", "..=embedded", "=embedded", "a|b=embedded", "."])
def test_labels_are_names_of_folders(given: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a folder"):
        labelled([given])


def test_labels_and_settings() -> None:
    """A folder `encoder` is called as what holds it; a setting that is none is refused."""
    assert labelled(["embedded", "runs/x/csft/encoder", "best=runs/y"]) == {
        "embedded": "embedded",
        "csft": "runs/x/csft/encoder",
        "best": "runs/y",
    }
    with pytest.raises(ConfigError, match="two encoders are called 'x'"):
        labelled(["x=a", "x=b"])
    with pytest.raises(ConfigError, match="sheets"):
        with_changes(TrialConfig(), ["sheets=1"], "evaluate-encoder")
    with pytest.raises(ConfigError, match="'sheets' is unknown"):
        compare([], {}, ["sheets"], TrialConfig(), Path())
