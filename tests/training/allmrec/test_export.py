"""Export: what the service gets to see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.alignment.networks import Alignment, AlignmentConfig
from models.alignment.placement import Placement
from models.alignment.text_encoder import TextEncoder
from models.bundle.manifest import LLMRecord, Origin
from models.bundle.store import load_bundle
from models.domain import DOMAINS
from models.prompts.template import PromptConfig
from tests.tiny import CF_SIZE, JOINT_SIZE, TOKEN_SIZE, tiny_blends, tiny_contents, tiny_llm, tiny_split
from tests.tiny_encoder import write_tiny_encoder
from training.allmrec.export import HISTORY_ITEMS, assemble, export
from training.allmrec.stage1.aligned import Aligned
from training.data.splits import SequenceSplit


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    directory = tmp_path / "somewhere-private"
    directory.mkdir()
    return TextEncoder(write_tiny_encoder(directory, ["title", ":", "1", "2"]))


def aligned(split: SequenceSplit, encoder: TextEncoder) -> Aligned:
    contents = tiny_contents(split)
    sizes = AlignmentConfig(cf_size=CF_SIZE, text_size=encoder.size, joint_size=JOINT_SIZE)
    return Aligned(
        backbone=contents.backbone,
        alignment=Alignment(sizes),
        text_encoder=encoder,
        text_vectors=torch.zeros(len(split.catalogue) + 1, encoder.size),
        placement=Placement(
            joint_item=contents.joint_item,
            joint_text=contents.joint_text,
            cf_vectors=contents.cf_vectors,
            decoded_item=contents.cf_vectors,
            decoded_text=contents.cf_vectors,
        ),
    )


def test_what_was_held_out_is_history_to_those_who_are_served(encoder: TextEncoder) -> None:
    """Training, validation and test items, in this order; a user with two interactions has them both."""
    split = tiny_split()
    contents = assemble(split, aligned(split, encoder), tiny_contents(split).signals, TOKEN_SIZE)
    for row, user_id in enumerate(split.user_ids):
        expected = [*split.train[row], split.validation[row], split.test[row]]
        assert contents.histories.of(user_id).tolist() == expected
    assert contents.projector.token_size == TOKEN_SIZE
    assert len(contents.index) == len(split.catalogue)


def test_the_llm_is_told_e_and_q_side_by_side(encoder: TextEncoder) -> None:
    """[e_i, q_i] for an item, [q_i, q_i] for its text alone, and for a genre the weighted mean of its items."""
    split = tiny_split()
    stage1 = aligned(split, encoder)
    contents = assemble(split, stage1, tiny_contents(split).signals, TOKEN_SIZE)
    assert torch.equal(
        contents.joint_item, torch.cat([stage1.placement.joint_item, stage1.placement.joint_text], dim=1)
    )
    assert torch.equal(
        contents.joint_text, torch.cat([stage1.placement.joint_text, stage1.placement.joint_text], dim=1)
    )
    items = split.catalogue.genres["odd"]
    weights = split.catalogue.interactions[items] + 1.0
    expected = (contents.joint_item[items].numpy() * weights[:, None]).sum(axis=0) / weights.sum()
    row = list(split.catalogue.genres).index("odd")
    np.testing.assert_allclose(contents.joint_genre[row].numpy(), expected, rtol=1e-4)


def test_only_the_latest_of_a_long_history_are_kept(encoder: TextEncoder) -> None:
    """The last 50, which is what the backbone reads."""
    split = tiny_split(items=90)
    long = SequenceSplit(["u"], split.catalogue, [np.arange(1, 71)], validation=np.array([71]), test=np.array([72]))
    contents = assemble(long, aligned(split, encoder), tiny_contents(split).signals, TOKEN_SIZE)
    assert HISTORY_ITEMS == 50
    assert contents.histories.of("u").tolist() == list(range(23, 73))


def test_everything_a_user_met_is_seen(encoder: TextEncoder) -> None:
    """Before the last 50 too, each item once; who met no more than that takes no place for it."""
    split = tiny_split(items=90)
    met = np.concatenate([np.arange(1, 71), [5, 30]])
    users = SequenceSplit(
        ["long", "short"],
        split.catalogue,
        [met, np.arange(1, 40)],
        validation=np.array([71, 0]),
        test=np.array([72, 0]),
    )
    contents = assemble(users, aligned(split, encoder), tiny_contents(split).signals, TOKEN_SIZE)
    kept = [*range(25, 71), 5, 30, 71, 72]
    assert contents.histories.of("long").tolist() == kept
    assert contents.earlier.user_ids() == ["long"]
    assert contents.earlier.of("long").tolist() == [1, 2, 3, 4, *range(6, 25)]
    assert sorted(set(contents.seen("long").tolist())) == list(range(1, 73))


def test_the_bundle_says_what_it_was_made_of_and_not_where(encoder: TextEncoder, tmp_path: Path) -> None:
    """It loads, carries prompt, LLM and metrics, and no file in it names a folder of the machine it was made on."""
    split, llm = tiny_split(), tiny_llm()
    contents = assemble(split, aligned(split, encoder), tiny_contents(split).signals, TOKEN_SIZE)
    prompt = PromptConfig(domain=DOMAINS["game"], history_items=5)
    record = LLMRecord(name="tiny", fingerprint=llm.fingerprint)
    metrics = {"stage2": {"hit@1": 0.25}}
    origin = Origin(name="tiny", prompt=prompt, llm=record, text_encoder="none", blends=tiny_blends(), metrics=metrics)
    path = export(tmp_path / "home", contents, origin, encoder)
    bundle = load_bundle(tmp_path / "home")
    assert bundle.path == path
    assert bundle.manifest.prompt == prompt
    assert bundle.manifest.metrics == metrics
    bundle.check_llm(llm.fingerprint, "tiny", "any: bundles of before have none")
    private = str(tmp_path).encode()
    files = [file for file in path.rglob("*") if file.is_file()]
    assert [file for file in files if private in file.read_bytes()] == []
    again = TextEncoder(str(path / "text_encoder"))
    tokens = encoder.tokenize(["title 1", "title 2"])
    assert torch.allclose(again.encode(again.tokenize(["title 1", "title 2"])), encoder.encode(tokens), atol=1e-6)
    assert bundle.model.decoded_item is bundle.model.decoded_text is bundle.model.signals.aged is None
    modules = json.loads((path / "text_encoder" / "modules.json").read_text())
    assert [module["idx"] for module in modules] == [0, 1, 2]
