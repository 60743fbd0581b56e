"""What the tests of pre-training share."""

import pytest

from models.llm.loading import load_tokenizer
from training.pretraining.architecture import Architecture, build_interface
from training.pretraining.circuit.circuit import Circuit
from training.pretraining.config import PretrainConfig
from training.pretraining.initialisation import special_tokens
from training.pretraining.mixture import Mixture
from training.pretraining.pretrain import initial_model_of
from training.pretraining.prompts import PromptFactory
from training.runs.loop import LoopConfig

SHORT = Mixture(candidates=(10, 10), title_tokens=1, history=0, genres=0.0, explanations=0.0)
"""Prompts that ask for the ranking alone."""


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture(scope="module")
def interface():
    return build_interface(Architecture(), 0)


@pytest.fixture(scope="module")
def factory(tokenizer, interface):
    return PromptFactory(tokenizer, interface, 1152, titles=200)


def circuit_of(config, tokenizer, interface):
    return Circuit(config.architecture, interface, special_tokens(tokenizer), config.gains, config.seed)


@pytest.fixture(scope="module")
def constructed(tokenizer, interface):
    return initial_model_of(PretrainConfig(), tokenizer, interface).eval()


def small(**changes):
    return PretrainConfig(
        architecture=Architecture(context_length=400),
        mixture=SHORT,
        titles=100,
        prompts_per_epoch=16,
        validation_prompts=16,
        batch_tokens=1024,
        loop=LoopConfig(max_steps=3, validate_every=10, monitor="closeness", clip_norm=1.0),
        **changes,
    )
