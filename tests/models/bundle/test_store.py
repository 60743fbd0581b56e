"""The bundle: written at once or not at all, and refused if a single byte is not as it was written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment.words import WordEncoder
from models.backbones import create_backbone
from models.bundle import store
from models.bundle.manifest import MANIFEST, LLMRecord, Origin, load_manifest
from models.bundle.signal_tables import HALF_LIVES
from models.bundle.store import CURRENT, is_intact, load_bundle, resolve_bundle, write_bundle
from models.domain import DOMAINS
from models.errors import BundleError
from models.histories import UserHistories
from models.prompts.template import PromptConfig
from models.rankers.base import Audience
from models.rankers.of_model import SECOND, STAGE1_ITEM, STAGE1_TEXT, signals_of
from tests.models.backbones.test_program import onnx_sums
from tests.tiny import CF_SIZE, tiny_blends, tiny_contents, tiny_head, tiny_split, tiny_title_projector


def save_text_encoder(directory: Path) -> None:
    directory.mkdir()
    (directory / "modules.json").write_text("[]")


def export(home: Path, seed: int = 0, hit: float = 0.5, kind: str = "sasrec", words: WordEncoder | None = None) -> Path:
    earlier = UserHistories(["u3"], [[29, 30]])
    contents = replace(tiny_contents(tiny_split(), seed=seed, kind=kind), earlier=earlier, words=words)
    return write_bundle(
        home,
        contents,
        Origin(
            name="tiny",
            prompt=PromptConfig(domain=DOMAINS["movie"]),
            llm=LLMRecord(name="tiny", fingerprint="f" * 64),
            text_encoder="none",
            blends=tiny_blends(),
            metrics={"hit@1": hit},
        ),
        save_text_encoder,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("home"))


def test_what_was_written_is_what_is_read(bundle: Path) -> None:
    """Tables, weights, histories, catalogue and index come back as they were."""
    split = tiny_split()
    written, read = tiny_contents(split), load_bundle(bundle).model
    for table in ("cf_vectors", "joint_item", "joint_text", "joint_genre"):
        assert torch.equal(getattr(read, table), getattr(written, table))
    for network in ("backbone", "projector"):
        expected = getattr(written, network).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in getattr(read, network).state_dict().items())
    assert read.catalogue.titles == written.catalogue.titles
    assert read.catalogue.categories == written.catalogue.categories
    assert read.catalogue.interactions.tolist() == written.catalogue.interactions.tolist()
    assert read.histories.of("u3").tolist() == split.full_history(3).tolist()
    assert read.earlier.of("u3").tolist() == [29, 30]
    assert sorted(read.seen("u3")) == sorted({29, 30, *split.full_history(3).tolist()})
    assert read.seen("u4").tolist() == split.full_history(4).tolist()
    query = written.cf_vectors[5:6].numpy()
    assert read.index.search(query, 5)[0].tolist() == written.index.search(query, 5)[0].tolist()
    assert load_bundle(bundle).manifest.metrics == {"hit@1": 0.5}


def test_a_hybrid_places_new_items_after_a_round_trip(tmp_path: Path) -> None:
    """Its adapter is in the bundle, and the manifest says by which text encoder."""
    bundle = load_bundle(export(tmp_path, kind="hybrid"))
    written = tiny_contents(tiny_split(), kind="hybrid").backbone
    texts = torch.randn(2, 384)
    assert torch.equal(bundle.model.backbone.vectors_of_texts(texts), written.vectors_of_texts(texts))
    assert torch.equal(bundle.model.backbone.item_vectors, written.item_vectors)
    assert bundle.manifest.backbone.kind == "hybrid"
    assert bundle.manifest.backbone.config["text_encoder"] == "embedded"


def test_words_are_in_the_bundle_where_there_are_any(bundle: Path, tmp_path: Path) -> None:
    """Each file named in the manifest; a new item's text is encoded as it was in training."""
    words = WordEncoder(["blue", "red"], np.ones(2), np.eye(2, dtype=np.float32))
    path = export(tmp_path, words=words)
    read = load_bundle(path)
    assert read.model.words is not None
    assert np.array_equal(read.model.words.encode(["red red blue"]), words.encode(["red red blue"]))
    assert {"words.json", "words.safetensors"} <= set(read.manifest.files)
    assert load_bundle(bundle).model.words is None


def test_projections_into_titles_are_in_the_bundle_where_there_are_any(bundle: Path, tmp_path: Path) -> None:
    """With what they take of a title's likelihood. Bundles without any are read as before."""
    projector = tiny_title_projector()
    contents = replace(tiny_contents(tiny_split()), title_projector=projector)
    origin = Origin(**{name: getattr(load_manifest(bundle), name) for name in Origin.model_fields})
    read = load_bundle(write_bundle(tmp_path, contents, origin, save_text_encoder))
    assert "title_projector.safetensors" in read.manifest.files
    loaded = read.model.title_projector.state_dict()
    assert all(torch.equal(loaded[name], weights) for name, weights in projector.state_dict().items())
    assert load_bundle(bundle).model.title_projector is None


def test_a_second_backbone_is_in_the_bundle_where_there_is_one(bundle: Path, tmp_path: Path) -> None:
    """It ranks as it did, as a signal of its own. Bundles without one are read as before."""
    split = tiny_split()
    contents = replace(tiny_contents(split), second=tiny_contents(split, seed=1, kind="gru4rec").backbone)
    origin = Origin(**{name: getattr(load_manifest(bundle), name) for name in Origin.model_fields})
    read = load_bundle(write_bundle(tmp_path, contents, origin, save_text_encoder))
    assert "second.safetensors" in read.manifest.files
    assert read.manifest.second.kind == "gru4rec"
    users = Audience(["", ""], [split.train[0], split.train[1][:2]])
    candidates = np.array([[1, 2, 3, 0], [4, 5, 6, 7]])
    scores = []
    for model in (contents, read.model):
        (ranker,) = (each for each in signals_of(model) if each.id == SECOND)
        scores.append(ranker.compute(users, candidates))
    np.testing.assert_array_equal(scores[0], scores[1])
    history = torch.tensor([[*split.train[0]]])
    expected = contents.second.represent(history)[0] @ contents.second.item_vectors[[1, 2, 3]].T
    np.testing.assert_allclose(scores[0][0, :3], expected.numpy(), rtol=1e-4, atol=1e-5)
    without = load_bundle(bundle)
    assert (without.model.second, without.manifest.second) == (None, None)
    assert SECOND not in {each.id for each in signals_of(without.model)}


def test_a_program_that_cannot_be_run_is_told_of_at_loading(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the operator of a machine without ONNX Runtime, not to the first user."""
    split, program = tiny_split(), onnx_sums(size=CF_SIZE).SerializeToString()
    fields = {"num_items": len(split.catalogue), "embedding_size": CF_SIZE, "program_size": len(program)}
    backbone = create_backbone("external", fields).eval().requires_grad_(False)
    backbone.program = torch.frombuffer(bytearray(program), dtype=torch.uint8)
    origin = Origin(**{name: getattr(load_manifest(bundle), name) for name in Origin.model_fields})
    written = write_bundle(tmp_path, replace(tiny_contents(split), backbone=backbone), origin, save_text_encoder)
    (said,) = load_bundle(written).model.backbone.represent(torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(said, backbone.item_vectors[1] + backbone.item_vectors[2])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"backbone\.safetensors: .*pip install onnxruntime"):
        load_bundle(written)


def test_stage_1_and_ages_are_in_the_bundle_where_they_are_weighed(bundle: Path, tmp_path: Path) -> None:
    """What is decoded ranks as it did, `x_u . f_I_dec(e_i)`; bundles without these tables are read, too."""
    contents = tiny_contents(tiny_split())
    origin = Origin(**{name: getattr(load_manifest(bundle), name) for name in Origin.model_fields})
    bare = replace(contents, decoded_item=None, decoded_text=None, signals=replace(contents.signals, aged=None))
    whole, without = (
        load_bundle(write_bundle(tmp_path / name, model, origin, save_text_encoder)).model
        for name, model in (("whole", contents), ("bare", bare))
    )
    history, candidates = np.array([5, 3, 9]), np.array([[1, 2, 3, 0]])
    expected = contents.user_vectors([history])[0] @ contents.decoded_item[[1, 2, 3]].T
    (ranker,) = (each for each in signals_of(whole) if each.id == STAGE1_ITEM)
    scores = ranker.compute(Audience([""], [history]), candidates)[0]
    np.testing.assert_allclose(scores[:3], expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole.signals.aged, contents.signals.aged)
    left_out = {each.id for each in signals_of(whole)} - {each.id for each in signals_of(without)}
    assert left_out == {STAGE1_ITEM, STAGE1_TEXT, *HALF_LIVES}


def test_a_head_is_in_the_bundle_where_there_is_one(bundle: Path, tmp_path: Path) -> None:
    """Named in the manifest; it makes the same vectors of states. Bundles without one are read as before."""
    head, states = tiny_head(), torch.randn(3, 32)
    contents = replace(tiny_contents(tiny_split()), user_head=head)
    origin = Origin(**{name: getattr(load_manifest(bundle), name) for name in Origin.model_fields})
    read = load_bundle(write_bundle(tmp_path, contents, origin, save_text_encoder))
    assert "user_head.safetensors" in read.manifest.files
    assert torch.equal(read.model.user_head(states), head(states))
    assert torch.equal(read.model.encoded_user(states[:1].numpy()), head(states[:1])[0])
    without = load_bundle(bundle).model
    assert without.user_head is None
    with pytest.raises(BundleError, match="no head"):
        without.encoded_user(states[:1].numpy())


def test_a_bundle_for_other_genres_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that takes fewer genres does not pair them with the wrong tokens."""
    monkeypatch.setattr("models.catalogue.MAX_GENRES", 1)
    with pytest.raises(BundleError, match="other genres"):
        load_bundle(bundle)


def test_a_flipped_byte_in_any_file_is_refused_with_its_name(bundle: Path, tmp_path: Path) -> None:
    """First, middle and last byte of every file, the manifest included."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert {path.name for path in files} >= {MANIFEST, "items.parquet", "users.parquet", "seen.parquet", "modules.json"}
    load_bundle(copy)
    for path in files:
        original = path.read_bytes()
        for position in {0, len(original) // 2, len(original) - 1}:
            damaged = bytearray(original)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(BundleError, match=path.relative_to(copy).as_posix()):
                load_bundle(copy)
        path.write_bytes(original)
    load_bundle(copy)


def test_every_byte_of_the_manifest_counts(bundle: Path, tmp_path: Path) -> None:
    """No byte of `manifest.json` can change unnoticed, be it a digit of a date."""
    shutil.copy(bundle / MANIFEST, tmp_path / MANIFEST)
    original = (tmp_path / MANIFEST).read_bytes()
    for position in range(len(original)):
        damaged = bytearray(original)
        damaged[position] ^= 1
        (tmp_path / MANIFEST).write_bytes(damaged)
        with pytest.raises(BundleError, match=MANIFEST):
            load_manifest(tmp_path)


def test_every_file_can_be_read_by_another_user(bundle: Path) -> None:
    """The service does not run as the one who trained."""
    assert {path.stat().st_mode & 0o777 for path in bundle.rglob("*") if path.is_file()} == {0o644}


def test_a_missing_file_is_named(bundle: Path, tmp_path: Path) -> None:
    """Such as after an incomplete copy."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "items.faiss").unlink()
    with pytest.raises(BundleError, match=r"items\.faiss: missing"):
        load_bundle(copy)


def test_a_folder_without_a_bundle_says_what_to_run(tmp_path: Path) -> None:
    """The first thing that a new user meets."""
    with pytest.raises(BundleError, match="allmrec-train fit"):
        resolve_bundle(tmp_path)


def test_another_llm_is_refused(bundle: Path) -> None:
    """A bundle's projections mean nothing to an LLM that they were not trained for."""
    loaded = load_bundle(bundle)
    loaded.check_llm("f" * 64, "tiny", "any")
    with pytest.raises(BundleError, match="aligned with LLM 'tiny'"):
        loaded.check_llm("0" * 64, "other", "any")


def test_equal_files_with_other_metrics_are_another_version(tmp_path: Path) -> None:
    """Even within the second that the version's name tells."""
    first, second = export(tmp_path, hit=0.5), export(tmp_path, hit=0.6)
    assert first != second
    assert load_bundle(tmp_path).manifest.metrics == {"hit@1": 0.6}


def test_a_new_version_becomes_current_and_the_old_one_stays(tmp_path: Path) -> None:
    """Rolling back is pointing `current` at the version before."""
    first = export(tmp_path, seed=0)
    second = export(tmp_path, seed=1)
    assert resolve_bundle(tmp_path) == second
    assert load_bundle(first).version == first.name
    assert load_bundle(tmp_path).version == second.name


def test_a_failing_export_leaves_no_trace(tmp_path: Path) -> None:
    """The old bundle stays current, and the draft is gone."""
    first = export(tmp_path)
    before = sorted(os.listdir(tmp_path))

    def fail(_directory: Path) -> None:
        raise OSError("no space left on device")

    contents = tiny_contents(tiny_split(), seed=1)
    with pytest.raises(OSError, match="no space"):
        write_bundle(
            tmp_path,
            contents,
            Origin(
                name="tiny",
                prompt=PromptConfig(),
                llm=LLMRecord(name="tiny", fingerprint="f"),
                text_encoder="none",
                blends=tiny_blends(),
                metrics={},
            ),
            fail,
        )
    assert sorted(os.listdir(tmp_path)) == before
    assert resolve_bundle(tmp_path) == first


def test_a_killed_export_leaves_the_old_bundle_in_place(tmp_path: Path) -> None:
    """SIGKILL while files are being written: the old version is current and whole, no other has appeared."""
    first = export(tmp_path)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.models.bundle import test_store\n"
        "def stall(directory):\n"
        "    directory.mkdir()\n"
        "    (directory / 'modules.json').write_text('[')\n"
        "    time.sleep(600)\n"
        "test_store.save_text_encoder = stall\n"
        "test_store.export(Path(sys.argv[1]), seed=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".writing-*/text_encoder/modules.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert resolve_bundle(tmp_path) == first
    assert load_bundle(tmp_path).version == first.name
    visible = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert visible == {first.name, CURRENT}
    second = export(tmp_path, seed=2)
    assert load_bundle(tmp_path).version == second.name


def test_the_manifest_is_plain_json(bundle: Path) -> None:
    """Nothing in it needs this project to be read."""
    content = json.loads((bundle / MANIFEST).read_text())
    assert content["schema_version"] == 5
    assert content["prompt"]["domain"] == {"noun": "movie", "verb": "watch", "past": "watched"}
    assert set(content["files"]) == {
        path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file() and path.name != MANIFEST
    }


def test_a_manifest_that_leaves_out_what_has_a_default_is_read(bundle: Path) -> None:
    """Its checksum is of what it has, not of what would be written; a changed one is still refused."""
    path = bundle / MANIFEST
    content = json.loads(path.read_text())
    del content["blends"]["genres"], content["checksum"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    content["checksum"] = hashlib.sha256(canonical).hexdigest()
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True))
    assert load_manifest(bundle).blends.genres is None
    path.write_text(path.read_text().replace('"movie"', '"moviE"'))
    with pytest.raises(BundleError, match="checksum"):
        load_manifest(bundle)


def test_a_damaged_version_of_the_same_name_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are named by second and content: what is made again within a second has the name of before."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr(store, "datetime", Clock)
    first = export(tmp_path)
    (first / "projector.safetensors").write_bytes(b"damaged")
    assert not is_intact(first)
    assert export(tmp_path) == first
    assert is_intact(first)
