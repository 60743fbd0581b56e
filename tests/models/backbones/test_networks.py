"""GRU4Rec, NextItNet and NCF compute what their papers say: item by item in NumPy, without batches or padding."""

from __future__ import annotations

import numpy as np
import torch

from models.backbones.base import Backbone
from models.backbones.gru4rec import GRU4Rec, GRU4RecConfig
from models.backbones.ncf import NCF, NCFConfig
from models.backbones.nextitnet import NextItNet, NextItNetConfig

SEQUENCE = [4, 2, 9, 2, 7]


def drawn(model: Backbone) -> tuple[Backbone, dict[str, np.ndarray]]:
    """The model in float64 with random weights, and these."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model = model.double().eval().requires_grad_(False)
    return model, {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_gru4rec_equals_a_plain_computation() -> None:
    """Two layers, gate by gate (Cho et al. 2014, as torch writes them), over sqrt(d) E; padding before is nothing."""
    model, weights = drawn(GRU4Rec(GRU4RecConfig(num_items=9, embedding_size=4, hidden_size=5, layers=2)))
    inputs = [2.0 * weights["items.weight"][item] for item in SEQUENCE]
    for layer in ("l0", "l1"):
        state, states = np.zeros(5), []
        for x in inputs:
            of_x = weights[f"gru.weight_ih_{layer}"] @ x + weights[f"gru.bias_ih_{layer}"]
            of_state = weights[f"gru.weight_hh_{layer}"] @ state + weights[f"gru.bias_hh_{layer}"]
            reset, update = sigmoid(of_x[:5] + of_state[:5]), sigmoid(of_x[5:10] + of_state[5:10])
            candidate = np.tanh(of_x[10:] + reset * of_state[10:])
            state = (1 - update) * candidate + update * state
            states.append(state)
        inputs = states
    expected = [weights["output.weight"] @ state + weights["output.bias"] for state in inputs]
    outputs = model.outputs(torch.tensor([[0, 0, *SEQUENCE]]))[0, 2:]
    np.testing.assert_allclose(outputs.numpy(), np.stack(expected), atol=1e-10)


def test_nextitnet_equals_a_plain_computation() -> None:
    """Kernels of 2, dilated by 1 and 2, then by 3 and 6: each position sees so far back, and zeros before the first.

    Items are read at sqrt(4) times their size.
    """
    config = NextItNetConfig(num_items=9, embedding_size=4, kernel_size=2, dilations=(1, 3))
    model, weights = drawn(NextItNet(config))
    states = [weights["items.weight"][item] * 2 for item in SEQUENCE]
    for block, dilation in enumerate((1, 3)):
        inner = states
        for place, width in enumerate((dilation, 2 * dilation)):
            name = f"blocks.{block}.convolutions.{place}"
            kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            norm = f"blocks.{block}.norms.{place}"
            new = []
            for at in range(len(SEQUENCE)):
                before = inner[at - width] if at >= width else np.zeros(4)
                x = kernel[:, :, 0] @ before + kernel[:, :, 1] @ inner[at] + bias
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-8) * weights[f"{norm}.weight"] + weights[f"{norm}.bias"]
                new.append(np.maximum(x, 0))
            inner = new
        states = [state + change for state, change in zip(states, inner, strict=True)]
    expected = [weights["output.weight"] @ state + weights["output.bias"] for state in states]
    outputs = model.outputs(torch.tensor([[0, 0, *SEQUENCE]]))[0, 2:]
    np.testing.assert_allclose(outputs.numpy(), np.stack(expected), atol=1e-10)


def plain_ncf() -> tuple[NCF, dict[str, np.ndarray], np.ndarray]:
    """A model for two users, its weights, and E by hand."""
    model, weights = drawn(NCF(NCFConfig(num_items=9, num_users=2, embedding_size=5, hidden_size=3)))
    assert isinstance(model, NCF)
    vectors = [
        np.concatenate([wide, tower(weights, "item_tower", deep)])
        for wide, deep in zip(weights["items.weight"], weights["deep_items.weight"], strict=True)
    ]
    vectors[0] = np.zeros(5)
    return model, weights, np.stack(vectors)


def tower(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    hidden = np.maximum(weights[f"{name}.0.weight"] @ x + weights[f"{name}.0.bias"], 0)
    return weights[f"{name}.3.weight"] @ hidden + weights[f"{name}.3.bias"]


def test_ncf_equals_a_plain_computation() -> None:
    """GMF's score h . (p * q) and that of the towers add up to the inner product of x_u and E_i."""
    model, weights, vectors = plain_ncf()
    np.testing.assert_allclose(model.item_vectors.numpy(), vectors, atol=1e-12)
    user = model.represent(torch.tensor([[4, 2]]), users_B=torch.tensor([2]))[0].numpy()
    generalised = weights["mixing"] @ (weights["users.weight"][2] * weights["items.weight"][7])
    user_deep = tower(weights, "user_tower", weights["deep_users.weight"][2])
    item_deep = tower(weights, "item_tower", weights["deep_items.weight"][7])
    np.testing.assert_allclose(user @ vectors[7], generalised + user_deep @ item_deep, atol=1e-12)


def test_ncf_knows_strangers_by_the_mean_of_their_history() -> None:
    """A mean E; so are users of whom training had nothing to learn, whose row is zeros."""
    model, weights, vectors = plain_ncf()
    history = torch.tensor([[0, 0, *SEQUENCE]])
    expected = weights["fold_in.weight"] @ vectors[SEQUENCE].mean(axis=0)
    np.testing.assert_allclose(model.represent(history)[0].numpy(), expected, atol=1e-12)
    model.users.weight[1] = 0
    unlearned = model.represent(history, users_B=torch.tensor([1]))
    np.testing.assert_allclose(unlearned[0].numpy(), expected, atol=1e-12)


def test_ncf_learns_to_fold_in_beside_its_own_vectors() -> None:
    """Strangers teach the map alone, known users everything but it; a share of them are strangers for a step."""
    torch.manual_seed(0)
    model = NCF(NCFConfig(num_items=9, num_users=500, embedding_size=6, user_dropout=0.3, dropout=0.0)).train()
    history = torch.tensor([SEQUENCE]).expand(500, -1)
    users = torch.arange(1, 501)
    outputs = model.outputs(history, users_B=users)[:, -1]
    assert model.users.weight.eq(0).all()
    stranger = model.outputs(history[:1])[0, -1]
    share = torch.isclose(outputs, stranger).all(dim=1).float().mean().item()
    assert abs(share - 0.3) < 0.1
    model.outputs(history[:1]).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is not None] == ["fold_in.weight"]
