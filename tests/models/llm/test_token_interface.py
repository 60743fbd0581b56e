"""The convention for injected tokens: what it writes it reads, and nothing else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import ConfigError
from models.llm.token_interface import INTERFACE_FILE, TokenInterface
from training.pretraining.architecture import Architecture, build_interface


@pytest.fixture
def interface() -> TokenInterface:
    return build_interface(Architecture(), seed=0)


def test_it_comes_back_as_it_was(interface: TokenInterface, tmp_path: Path) -> None:
    """Saved and loaded, also to the device it is on, it is the same; another seed's is not."""
    interface.save(tmp_path)
    loaded = TokenInterface.load(tmp_path)
    assert loaded is not None
    assert loaded.is_close(interface)
    assert loaded.fingerprint == interface.to("cpu").fingerprint
    assert not loaded.is_close(build_interface(Architecture(), seed=1))


def test_no_file_is_no_interface(tmp_path: Path) -> None:
    """As other LLMs have none."""
    assert TokenInterface.load(tmp_path) is None


def test_a_file_of_another_release_is_refused(interface: TokenInterface, tmp_path: Path) -> None:
    """The error names what is missing; what is not known does no harm."""
    interface.save(tmp_path)
    tensors = load_file(tmp_path / INTERFACE_FILE)
    save_file(tensors | {"later_axis": torch.zeros(3)}, tmp_path / INTERFACE_FILE)
    assert TokenInterface.load(tmp_path) is not None
    del tensors["series_axis"]
    save_file(tensors, tmp_path / INTERFACE_FILE)
    with pytest.raises(ConfigError, match="no series_axis: made by another release"):
        TokenInterface.load(tmp_path)


def test_signals_lie_apart(interface: TokenInterface) -> None:
    """What one kind of coordinate says, no other of the same token says; types are apart from all."""
    item = torch.cat([interface.item_basis, interface.similarity_basis, interface.popularity_axis[None]])
    user = torch.cat([interface.user_basis, interface.series_axis[None]])
    for basis in (item, user):
        gram = basis @ basis.T
        assert (gram - gram.diag().diag()).abs().max() < 1e-5
        assert (basis @ interface.slot_types.T).abs().max() < 1e-5
