"""Bring your own: vectors and programs of others become backbones, and what cannot be used is refused by name."""

from __future__ import annotations

import copy
import json
import re
import runpy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save_file

from models.backbones import represent_all
from models.backbones.external import External
from models.catalogue import Catalogue
from models.errors import ConfigError
from models.rankers.collaborative import candidate_logits
from tests.models.backbones.test_program import onnx_sums
from tests.tiny import tiny_split
from training.backbones.config import BackboneTrainingConfig
from training.backbones.external import ExternalSource, external_inputs, import_backbone
from training.backbones.full_ranking import FullRanking
from training.backbones.train import train_backbone
from training.backbones.vectors import read_vectors
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import draw_candidates
from training.evaluation.metrics import hit_at, positive_ranks
from training.runs.stage_run import StageRun

DOCS = Path(__file__).parents[3] / "docs" / "training.md"
SPLIT = tiny_split()
SIZE = 4


def write_items(path: Path, ids: list[str] | None = None, size: int = SIZE) -> Path:
    ids = SPLIT.catalogue.item_ids[1:] if ids is None else ids
    np.savez(path, ids=np.asarray(ids), vectors=np.random.default_rng(0).normal(size=(len(ids), size)))
    return path


def write_users(path: Path, ids: list[str], vectors: np.ndarray) -> Path:
    np.savez(path, ids=np.asarray(ids), vectors=vectors)
    return path


def test_items_and_users_stand_at_their_ids(tmp_path: Path) -> None:
    """Whatever their order in the files; ids that the dataset does not have are left out."""
    ids = [*SPLIT.catalogue.item_ids[:0:-1], "of another shop"]
    items = write_items(tmp_path / "items.npz", ids)
    users = write_users(tmp_path / "users.npz", ["u3", "stranger"], np.eye(2, SIZE))
    backbone = import_backbone(SPLIT, ExternalSource(items=items, users=users))
    table = read_vectors(items)
    for number, item_id in enumerate(SPLIT.catalogue.item_ids):
        if number:
            np.testing.assert_allclose(backbone.item_vectors[number], table.vectors[ids.index(item_id)], rtol=1e-6)
    known = represent_all(backbone, [np.array([1, 2])], users=np.array([4]))
    assert known.tolist() == [[1, 0, 0, 0]]


def test_strangers_are_where_users_of_such_a_history_are(tmp_path: Path) -> None:
    """Users who are B times the mean of their history's vectors: a stranger is B times its own."""
    source = ExternalSource(items=write_items(tmp_path / "items.npz"))
    plain = import_backbone(SPLIT, source)
    means = represent_all(plain, SPLIT.train).numpy()
    assert torch.equal(represent_all(plain, SPLIT.train, users=1 + np.arange(len(SPLIT))), torch.from_numpy(means))
    np.testing.assert_allclose(means[0], plain.item_vectors[torch.from_numpy(SPLIT.train[0])].mean(dim=0), atol=1e-6)
    mapping = np.random.default_rng(1).normal(size=(SIZE, SIZE))
    users = write_users(tmp_path / "users.npz", list(SPLIT.user_ids), means @ mapping.T)
    backbone = import_backbone(SPLIT, ExternalSource(items=source.items, users=users))
    stranger = np.array([5, 1, 9])
    expected = mapping @ plain.item_vectors[torch.from_numpy(stranger)].mean(dim=0).numpy()
    np.testing.assert_allclose(represent_all(backbone, [stranger])[0], expected, atol=0.02)


def test_only_items_with_a_vector_have_a_place(tmp_path: Path) -> None:
    """Of items without interactions some may have one: the library knew them from elsewhere."""
    ids = [name for name, trained in zip(SPLIT.catalogue.item_ids, SPLIT.catalogue.trained, strict=True) if trained]
    unseen = int(np.flatnonzero(~SPLIT.catalogue.trained)[1])
    ids.append(SPLIT.catalogue.item_ids[unseen])
    backbone = import_backbone(SPLIT, ExternalSource(items=write_items(tmp_path / "items.npz", ids)))
    trained = torch.from_numpy(SPLIT.catalogue.trained)
    expected = trained.clone()
    expected[unseen] = True
    assert torch.equal(backbone.places(trained), expected)


@pytest.mark.parametrize("suffix", ["npz", "parquet", "safetensors"])
def test_all_formats_say_the_same(suffix: str, tmp_path: Path) -> None:
    ids, vectors = ["b", "a"], np.asarray([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    path = tmp_path / f"items.{suffix}"
    match suffix:
        case "npz":
            np.savez(path, ids=np.asarray(ids), vectors=vectors)
        case "parquet":
            pl.DataFrame({"ids": ids, "vectors": vectors.tolist()}).write_parquet(path)
        case "safetensors":
            save_file({"vectors": vectors}, path, metadata={"ids": json.dumps(ids)})
    read = read_vectors(path)
    assert list(read.ids) == ids
    np.testing.assert_array_equal(read.vectors, vectors)
    rows, found = read.rows_for(["a", "c"])
    assert rows.tolist() == [[3, 4], [0, 0]]
    assert found.tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ids": ["a", "a"], "vectors": np.zeros((2, 2))}, "an id stands there twice"),
        ({"ids": ["a"], "vectors": np.zeros((2, 2))}, r"1 ids do not fit vectors of shape \(2, 2\)"),
        ({"ids": ["a"], "vectors": np.full((1, 2), np.nan)}, "a vector is not finite"),
        ({"names": ["a"], "vectors": np.zeros((1, 2))}, "it has no 'ids"),
        ({"ids": np.asarray([{}], dtype=object), "vectors": np.zeros((1, 2))}, "cannot be read"),
        ({"ids": ["a"], "vectors": np.full((1, 2), 1e300)}, "a vector is not finite in 32 bits"),
        ({"ids": ["a"], "vectors": np.ones((1, 2)) + 1j}, "vectors are of complex128"),
        ({"ids": ["a"], "vectors": np.asarray([["x", "y"]])}, "vectors are of <U1"),
        ({"ids": ["a"], "vectors": np.zeros((1, 2))}, "all vectors are zeros"),
        ({"ids": ["a"], "vectors": np.zeros((1, 0))}, r"1 ids do not fit vectors of shape \(1, 0\)"),
        ({"ids": [], "vectors": np.zeros((0, 2))}, r"0 ids do not fit vectors of shape \(0, 2\)"),
        ({"ids": np.asarray([b"a"]), "vectors": np.ones((1, 2))}, "'ids' are not names in one row"),
        ({"ids": [["a"]], "vectors": np.ones((1, 2))}, "'ids' are not names in one row"),
    ],
)
def test_files_that_say_nothing_are_refused(content: dict[str, object], message: str, tmp_path: Path) -> None:
    """Pickled ids too."""
    np.savez(tmp_path / "items.npz", **content)
    with pytest.raises(ConfigError, match=f"items.npz.*{message}"):
        read_vectors(tmp_path / "items.npz")


@pytest.mark.parametrize("content", ["no vectors", ""])
@pytest.mark.parametrize("name", ["items.npz", "items.csv", "items.parquet", "items.safetensors"])
def test_files_that_are_none_are_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=re.escape(name)):
        read_vectors(tmp_path / name)


def test_what_does_not_fit_the_dataset_is_refused(tmp_path: Path) -> None:
    """A trained item without a vector, users of another size or of nobody, two ways of knowing users."""
    items = write_items(tmp_path / "items.npz")
    few = write_items(tmp_path / "few.npz", ["i1", "i2"])
    narrow = write_users(tmp_path / "narrow.npz", ["u1"], np.ones((1, 2)))
    strangers = write_users(tmp_path / "strangers.npz", ["x"], np.ones((1, SIZE)))
    with pytest.raises(ConfigError, match=r"few.npz: no vectors of 25 items .* such as 'i3'"):
        import_backbone(SPLIT, ExternalSource(items=few))
    with pytest.raises(ConfigError, match=r"narrow.npz: vectors of 2 numbers, but those of items have 4"):
        import_backbone(SPLIT, ExternalSource(items=items, users=narrow))
    with pytest.raises(ConfigError, match=r"strangers.npz: none of its 1 user ids, such as 'x', is in the dataset"):
        import_backbone(SPLIT, ExternalSource(items=items, users=strangers))
    with pytest.raises(ConfigError, match="give 'users' or 'encoder'"):
        ExternalSource.of({"items": items, "users": narrow, "encoder": items})
    said = r"^backbone 'external': 'items': Field required; unknown key 'item', did you mean 'items'\?$"
    with pytest.raises(ConfigError, match=said):
        ExternalSource.of({"item": items})
    missing = BackboneTrainingConfig(kind="external", settings={"items": str(tmp_path / "gone.npz")})
    with pytest.raises(ConfigError, match=r"gone\.npz"):
        external_inputs(missing)


def test_a_refit_needs_no_vectors_of_what_was_held_out(tmp_path: Path) -> None:
    """Another library had not met these items; in a fit all that it could learn from must have one."""
    few = write_items(tmp_path / "few.npz", list(SPLIT.catalogue.item_ids[1:20]))
    backbone = import_backbone(SPLIT, ExternalSource(items=few, complete=False))
    assert backbone.placed.tolist() == [False, *[True] * 19, *[False] * (len(SPLIT.catalogue) - 19)]
    strange = write_items(tmp_path / "strange.npz", ["x"])
    with pytest.raises(ConfigError, match=r"strange.npz: no vectors of .* the file has ids such as 'x'"):
        import_backbone(SPLIT, ExternalSource(items=strange, complete=False))


class Padded(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return vectors.mean(dim=1)


class Wide(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return torch.cat([vectors[:, -1], vectors[:, -1]], dim=1)


class Broken(torch.nn.Module):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors[:, -1]


class Impatient(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return vectors[:, -1] if vectors.shape[1] <= 4 else vectors[:, -1] / torch.zeros(1)


class Whole(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return vectors[:, -1].long()


class Pair(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ARG002
        return vectors[:, -1], vectors[:, -1]


class Few(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        assert len(vectors) <= 2, "two at most"
        return vectors[:, -1]


class Forgetful(torch.nn.Module):
    """Reads padding as it reads items, and has forgotten it after many."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = torch.nn.GRU(SIZE, SIZE, batch_first=True)

    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return self.gru(vectors)[0][:, -1]


class Double(torch.nn.Module):
    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return vectors[:, -1].double()


def test_a_program_may_answer_in_another_precision(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Double()), tmp_path / "encoder.pt")
    items = write_items(tmp_path / "items.npz")
    backbone = import_backbone(SPLIT, ExternalSource(items=items, encoder=tmp_path / "encoder.pt"))
    said = represent_all(backbone, [np.array([1, 2])])
    torch.testing.assert_close(said[0], backbone.item_vectors[2])


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Impatient, "not finite, for 50 items"),
        (Whole, r"gives \(33, 4\) torch.int64, not \(33, 4\) numbers with a point"),
        (Pair, "gives tuple, not"),
        (Few, "cannot be used, where TorchScript or ONNX is wanted"),
        (Padded, "depends on padding or on other users"),
        (Forgetful, "depends on padding or on other users"),
        (Wide, r"gives \(33, 8\) torch.float32, not \(33, 4\)"),
        (Broken, "the program cannot be used"),
        (None, "the program cannot be used"),
    ],
)
def test_programs_that_break_the_port_are_refused(
    program: type[torch.nn.Module] | None, message: str, tmp_path: Path
) -> None:
    """Before anything is trained on what they say."""
    encoder = tmp_path / "encoder.pt"
    if program is None:
        encoder.write_bytes(b"no program")
    else:
        torch.jit.save(torch.jit.script(program()), encoder)
    with pytest.raises(ConfigError, match=f"encoder.pt.*{message}"):
        import_backbone(SPLIT, ExternalSource(items=write_items(tmp_path / "items.npz"), encoder=encoder))


def test_onnx_reads_histories(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(onnx_sums().SerializeToString())
    items = write_items(tmp_path / "items.npz")
    backbone = import_backbone(SPLIT, ExternalSource(items=items, encoder=tmp_path / "encoder.onnx"))
    (said,) = represent_all(backbone, [np.array([1, 2])])
    torch.testing.assert_close(said, backbone.item_vectors[1] + backbone.item_vectors[2])
    (same,) = represent_all(copy.deepcopy(backbone), [np.array([1, 2])])
    torch.testing.assert_close(same, said)


def test_an_empty_program_is_none(tmp_path: Path) -> None:
    (tmp_path / "encoder.pt").touch()
    with pytest.raises(ConfigError, match=r"encoder.pt: it is empty"):
        import_backbone(SPLIT, ExternalSource(items=write_items(tmp_path / "i.npz"), encoder=tmp_path / "encoder.pt"))


def test_another_file_is_another_backbone(tmp_path: Path) -> None:
    """A stage's fingerprint holds the files' content; other kinds have none."""
    items = write_items(tmp_path / "items.npz")
    config = BackboneTrainingConfig(kind="external", settings={"items": str(items)})
    before = external_inputs(config)
    write_items(items, size=3)
    assert list(before) == ["backbone items"]
    assert external_inputs(config) != before
    assert external_inputs(BackboneTrainingConfig()) == {}


def documented(name: str) -> str:
    """A Python example of the docs, by its first line."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if block.startswith(f"# {name}"))
    return found


@pytest.mark.parametrize(
    ("programs", "way"),
    [
        (["vectors.py"], {"users": "users.npz"}),
        (["vectors.py", "reader.py"], {"encoder": "encoder.pt"}),
        (["vectors.py", "reader.py", "exported.py"], {"encoder": "encoder.onnx"}),
    ],
    ids=["vectors", "TorchScript", "ONNX"],
)
def test_the_documented_examples_find_what_there_is(
    programs: list[str], way: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as they stand, on a world where everybody likes one of eight colours: imported, they rank as they should.

    Of the 43 items that a user did not take, one is of the colour: it is drawn in 19 of 43 cases, and as good, so that
    .78 is the most; chance is .05, and popularity alone is no better.
    """
    split = colours()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    split.training_frame().write_parquet("train.parquet")
    for name in programs:
        Path(name).write_text(documented(name), encoding="utf-8")
        runpy.run_path(name, run_name="__main__")
    config = BackboneTrainingConfig(kind="external", settings={"items": "items.npz", **way})
    run = StageRun(tmp_path / "run", config, 0, external_inputs(config), Console(quiet=True))
    backbone = train_backbone(split, config, run)
    assert isinstance(backbone, External)
    assert run.metrics["validation"]["ndcg@10"] > 0
    ranking, candidates = FullRanking.of(split, Holdout.TEST), draw_candidates(split, Holdout.TEST)
    users = represent_all(backbone, ranking.histories, users=1 + ranking.users)
    hits = hit_at(positive_ranks(candidate_logits(users, backbone.item_vectors, candidates.items)), 1)
    assert hits.mean() > 0.5


def colours() -> SequenceSplit:
    """Eight colours of six items; users take five of one."""
    rng = np.random.default_rng(0)
    taken = [1 + rng.integers(8) * 6 + rng.permutation(6)[:5] for _ in range(300)]
    counts = np.bincount(np.concatenate([items[:3] for items in taken]), minlength=49)[1:]
    names = [f"item {number}" for number in range(1, 49)]
    catalogue = Catalogue(names, names, [""] * 48, [()] * 48, counts)
    held_out = np.asarray(taken)[:, 3:]
    ids = [f"user {number}" for number in range(300)]
    return SequenceSplit(ids, catalogue, [items[:3] for items in taken], held_out[:, 0], held_out[:, 1])
