"""Every backbone keeps the port's promises, and SASRec computes what its paper says."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.backbones import (
    BACKBONES,
    Backbone,
    create_backbone,
    load_backbone,
    pad_histories,
    represent_all,
    save_backbone,
)
from models.backbones.sasrec import SASRec, SASRecConfig
from models.errors import ConfigError
from tests.models.backbones.test_program import onnx_sums

NUM_ITEMS = 12
NUM_USERS = 3


class Reader(torch.nn.Module):
    """A program of somebody else: the mean of a history and its last item."""

    def forward(self, vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return vectors.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1) + torch.tanh(vectors[:, -1])


def torchscript() -> bytes:
    """`Reader` as a file."""
    stored = io.BytesIO()
    torch.jit.save(torch.jit.script(Reader()), stored)
    return stored.getvalue()


def with_program(backbone: Backbone, stored: bytes) -> Backbone:
    """The same, with a program instead of vectors of users."""
    program = torch.frombuffer(bytearray(stored), dtype=torch.uint8)
    made = create_backbone("external", {**vars(backbone.config), "num_users": 0, "program_size": len(program)})
    made.load_state_dict({**backbone.state_dict(), "users.weight": torch.zeros(1, 6), "program": program})
    return made


@pytest.fixture(params=[*sorted(BACKBONES), "hybrid with its texts", "external with a program", "external with ONNX"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    kind, *texts = request.param.split(" with ")
    sizes = {"num_users": NUM_USERS} if BACKBONES[kind][0].reads_users else {}
    made = create_backbone(kind, {"num_items": NUM_ITEMS, "embedding_size": 6, "max_length": 5, **sizes})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        made.item_vectors[0] = 0.0
    if kind == "external" and texts:
        made = with_program(made, onnx_sums(size=6).SerializeToString() if texts == ["ONNX"] else torchscript())
    elif texts:
        made.read_texts(torch.randn(NUM_ITEMS + 1, 384) / 20, torch.arange(NUM_ITEMS + 1) < 9)
    return made.eval().requires_grad_(False)


def test_item_vectors_have_a_zero_padding_row(backbone: Backbone) -> None:
    """E is (N+1, d) and its row 0 is zero."""
    assert backbone.item_vectors.shape == (NUM_ITEMS + 1, 6)
    assert not backbone.item_vectors[0].any()
    assert (backbone.embedding_size, backbone.num_items, backbone.max_length) == (6, NUM_ITEMS, 5)


def test_a_fresh_backbone_has_a_zero_padding_row() -> None:
    """Initialisation leaves the padding row at zero and the others not."""
    for kind in BACKBONES:
        vectors = create_backbone(kind, {"num_items": 3}).item_vectors
        assert not vectors[0].any()
        assert vectors[1:].abs().sum(dim=1).min() > 0


def test_padding_on_the_left_changes_nothing(backbone: Backbone) -> None:
    """[3, 7] and [0, 0, 0, 3, 7] are the same history."""
    short = backbone.represent(torch.tensor([[3, 7]]))
    padded = backbone.represent(torch.tensor([[0, 0, 0, 3, 7]]))
    torch.testing.assert_close(short, padded)


def test_a_batch_is_its_rows(backbone: Backbone) -> None:
    """A user's vector does not depend on who shares the batch."""
    rows = torch.tensor([[0, 0, 4], [1, 2, 3], [0, 5, 6]])
    together = backbone.represent(rows)
    apart = torch.cat([backbone.represent(row[None]) for row in rows])
    torch.testing.assert_close(together, apart)


def test_only_the_latest_items_are_read(backbone: Backbone) -> None:
    """Items older than max_length = 5 are ignored; the fifth latest is not."""
    long = backbone.represent(torch.tensor([[9, 8, 1, 2, 3, 4, 5]]))
    torch.testing.assert_close(long, backbone.represent(torch.tensor([[1, 2, 3, 4, 5]])))
    assert not torch.allclose(long, backbone.represent(torch.tensor([[6, 2, 3, 4, 5]])))


def test_outputs_do_not_see_the_future(backbone: Backbone) -> None:
    """What follows a position does not change its output; what precedes it does."""
    outputs = backbone.outputs(torch.tensor([[1, 2, 3, 4]]))
    later = backbone.outputs(torch.tensor([[1, 2, 9, 9]]))
    torch.testing.assert_close(outputs[:, :2], later[:, :2])
    assert not torch.allclose(outputs[:, 3], backbone.outputs(torch.tensor([[9, 2, 3, 4]]))[:, 3])


def test_representation_is_the_last_output(backbone: Backbone) -> None:
    """x_u is the output after the latest item."""
    history = torch.tensor([[0, 2, 3, 4]])
    torch.testing.assert_close(backbone.represent(history), backbone.outputs(history)[:, -1])


def test_padding_has_zero_outputs(backbone: Backbone) -> None:
    """An empty history is the zero vector, not a NaN."""
    assert not backbone.represent(torch.zeros(2, 4, dtype=torch.int64)).any()
    assert not backbone.outputs(torch.tensor([[0, 0, 3]]))[:, :2].any()


def test_items_can_be_read_from_another_table(backbone: Backbone) -> None:
    """Under an override with item 3's vector in rows 12 and 13, items 12 and 13 read as item 3, even beyond N."""
    table = torch.cat([backbone.item_vectors, backbone.item_vectors[3:4]])
    table[12] = table[3]
    expected = backbone.represent(torch.tensor([[1, 3, 3]]))
    torch.testing.assert_close(backbone.represent(torch.tensor([[1, 12, 13]]), table), expected)
    assert not torch.allclose(backbone.represent(torch.tensor([[1, 12, 12]])), expected)


def test_represent_all_is_represent_row_by_row(backbone: Backbone) -> None:
    """Batching by length gives every user's vector at its own row, the empty history included."""
    histories = [np.array(items, dtype=np.int64) for items in ([4, 5, 6], [], [7], [1, 2, 3, 4, 5, 6, 7], [2, 2])]
    together = represent_all(backbone, histories, batch_size=2)
    for row, items in enumerate(histories):
        history = torch.from_numpy(items) if len(items) else torch.zeros(1, dtype=torch.int64)
        torch.testing.assert_close(together[row], backbone.represent(history[None])[0])


def test_some_vectors_are_rows_of_all(backbone: Backbone) -> None:
    """Gathered in any order; where items have no training interactions too."""
    some = torch.tensor([7, 0, 12, 1])
    torch.testing.assert_close(backbone.vectors_of(some), backbone.item_vectors[some])


def test_texts_have_a_place_where_they_are_read(backbone: Backbone) -> None:
    """(M, d), or None; an item of no text is nowhere."""
    placed = backbone.vectors_of_texts(torch.stack([torch.zeros(384), torch.ones(384)]))
    if backbone.reads_texts:
        assert placed.shape == (2, 6)
        assert placed.any(dim=1).tolist() == [False, True]
    else:
        assert placed is None


def test_a_user_is_the_history_unless_the_backbone_reads_users(backbone: Backbone) -> None:
    """User 2 stands apart from a stranger of the same history, and needs one, only where users are read.

    A program knows everybody by the history.
    """
    histories = torch.tensor([[0, 0, 0], [0, 3, 4], [5, 3, 4]])
    strangers, known = backbone.represent(histories), backbone.represent(histories, users_B=torch.tensor([2, 2, 2]))
    torch.testing.assert_close(backbone.represent(histories, users_B=torch.zeros(3, dtype=torch.int64)), strangers)
    assert not known[0].any()
    reads_users = backbone.reads_users and getattr(backbone.config, "num_users", 0) > 0
    assert torch.allclose(known, strangers) is not reads_users
    everyone = represent_all(backbone, [np.array([3]), np.array([7, 8])], users=np.array([2, 0]))
    torch.testing.assert_close(everyone[0], backbone.represent(torch.tensor([[3]]), users_B=torch.tensor([2]))[0])
    torch.testing.assert_close(everyone[1], backbone.represent(torch.tensor([[7, 8]]))[0])


def test_places_are_of_trained_items_or_of_all(backbone: Backbone) -> None:
    """Items without training interactions have a vector that means something only by their texts."""
    trained = torch.arange(NUM_ITEMS + 1) % 2 == 1
    placed = backbone.places(trained)
    everywhere = backbone.reads_texts or backbone.kind == "external"
    assert placed[1:].all() if everywhere else torch.equal(placed, trained)


def test_saved_and_loaded_is_the_same(backbone: Backbone, tmp_path: object) -> None:
    """A backbone survives a round trip through its folder, frozen and in eval mode."""
    save_backbone(backbone, tmp_path)
    loaded = load_backbone(tmp_path)
    assert loaded.config == backbone.config
    assert loaded.kind == backbone.kind
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    history = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.represent(history), backbone.represent(history))


def test_pad_histories_keeps_the_latest_on_the_right() -> None:
    """Rows are cut to max_length = 3 from the left and padded on the left."""
    padded = pad_histories([np.array([1, 2, 3, 4]), np.array([5]), np.array([], dtype=np.int64)], 3)
    assert padded.tolist() == [[2, 3, 4], [0, 0, 5], [0, 0, 0]]
    assert pad_histories([np.array([5])], 3).tolist() == [[5]]


def test_an_unknown_kind_is_refused_with_the_choices() -> None:
    """The error names what exists."""
    with pytest.raises(ConfigError, match=r"'als' is unknown: choose one of .*sasrec"):
        create_backbone("als", {"num_items": 3})


@pytest.mark.parametrize("settings", [{"blokcs": 2}, {"heads": 4, "embedding_size": 6}, {"dropout": 1.0}])
def test_settings_that_do_not_fit_are_refused(settings: dict[str, float]) -> None:
    """A misspelt field, heads that do not divide the size, dropout of everything."""
    with pytest.raises(ConfigError, match="sasrec"):
        create_backbone("sasrec", {"num_items": 3, **settings})


@pytest.mark.parametrize("damage", ["missing", "truncated", "other_shape", "no_kind"])
def test_a_damaged_folder_is_refused(damage: str, tmp_path: object) -> None:
    """Whatever is wrong with the files, the error names the folder."""
    save_backbone(create_backbone("sasrec", {"num_items": 3}), tmp_path)
    weights = tmp_path / "backbone.safetensors"
    match damage:
        case "missing":
            weights.unlink()
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-9])
        case "other_shape":
            save_file({**load_file(weights), "items.weight": torch.zeros(2, 2)}, weights)
        case "no_kind":
            (tmp_path / "backbone.json").write_text(json.dumps({"config": {"num_items": 3}}))
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_backbone(tmp_path)


def test_sasrec_equals_a_plain_computation() -> None:
    """Position by position, in NumPy, without masks, batches or padding: the published network, two heads."""
    torch.manual_seed(1)
    model = SASRec(SASRecConfig(num_items=9, embedding_size=8, max_length=6, heads=2, blocks=2)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    weights = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}
    sequence = [4, 2, 9, 2]
    expected = _plain_sasrec(weights, sequence, size=8, heads=2, blocks=2)
    with torch.no_grad():
        outputs = model.double().outputs(torch.tensor([[0, 0, *sequence]]))[0, 2:]
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-10)


def _plain_sasrec(
    weights: dict[str, np.ndarray], sequence: list[int], size: int, heads: int, blocks: int
) -> np.ndarray:
    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = (x - x.mean()) / math.sqrt(x.var() + 1e-8)
        return centred * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    last = len(sequence) - 1
    states = [
        weights["items.weight"][item] * math.sqrt(size) + weights["positions.weight"][last - place]
        for place, item in enumerate(sequence)
    ]
    width = size // heads
    for block in (f"blocks.{index}" for index in range(blocks)):
        new = []
        for place in range(len(sequence)):
            normed = norm(states[place], f"{block}.attention_norm")
            query = linear(normed, f"{block}.query")
            attended = []
            for head in range(heads):
                span = slice(head * width, (head + 1) * width)
                keys = [linear(states[seen], f"{block}.key_value")[:size][span] for seen in range(place + 1)]
                values = [linear(states[seen], f"{block}.key_value")[size:][span] for seen in range(place + 1)]
                logits = np.array([query[span] @ key for key in keys]) / math.sqrt(width)
                shares = np.exp(logits) / np.exp(logits).sum()
                attended.append(sum(share * value for share, value in zip(shares, values, strict=True)))
            x = norm(normed + linear(np.concatenate(attended), f"{block}.output"), f"{block}.forward_norm")
            hidden = np.maximum(linear(x, f"{block}.feed_forward.0"), 0.0)
            new.append(x + linear(hidden, f"{block}.feed_forward.3"))
        states = new
    return np.stack([norm(state, "norm") for state in states])
