"""Which texts are alike is said by the encoder that the recipe names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from models.alignment.text_encoder import TextEncoder, catalogue_texts
from tests.tiny_encoder import write_tiny_encoder
from training.allmrec.pipeline import Pipeline
from training.allmrec.recipe import load_recipe
from training.allmrec.signals import build_signals
from training.data.demo.generate import DemoConfig, generate


def test_signals_are_made_by_the_encoder_of_the_recipe(tmp_path: Path) -> None:
    """The tables are those of its vectors, cut to so many tokens."""
    generate(DemoConfig(users=60, items=100, seed=0)).save(tmp_path / "data")
    encoder = write_tiny_encoder(tmp_path, ["title", "categories", "the", "of", "drama", "comedy"])
    settings = [f"signals.text_encoder={encoder}", "signals.max_text_tokens=12", "signals.word_directions=0"]
    recipe = load_recipe("demo", settings)
    pipeline = Pipeline(tmp_path / "data", recipe, tmp_path / "run", Console(quiet=True))
    made = pipeline.signals
    text_encoder = TextEncoder(encoder, 12)
    vectors = text_encoder.encode(text_encoder.tokenize(catalogue_texts(pipeline.split.catalogue))).numpy()
    vectors[0] = 0.0
    expected = build_signals(pipeline.split, vectors, recipe.signals)
    assert np.array_equal(made.neighbours, expected.neighbours)
