"""What is wrong with a config, in a line."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError, model_validator

from models.config import Config, explained, keys_at


class Loop(Config):
    minutes: float = 1.0


class Part(Config):
    size: int = Field(1, gt=0)
    loop: Loop = Loop()


class Whole(Config):
    part: Part | None = None
    several: dict[str, Part] = Field(default_factory=dict)
    seed: int = 0

    @model_validator(mode="after")
    def _odd(self) -> Whole:
        if self.seed == 13:
            raise ValueError("13 is no seed")
        return self


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"part": {"size": 0}}, "'part.size': Input should be greater than 0"),
        ({"part": {"sise": 1}}, "unknown key 'part.sise', did you mean 'size'?"),
        ({"part": {"minuts": 1}}, "unknown key 'part.minuts', did you mean 'minutes'?"),
        ({"seed": 13}, "the recipe: 13 is no seed"),
        ({"part": {"size": 0}, "xyz": 1}, "'part.size': Input should be greater than 0; unknown key 'xyz'"),
    ],
)
def test_faults_are_told_in_a_line(content: dict, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(content)
    assert explained(caught.value, Whole, "the recipe") == said


def test_keys_of_sections() -> None:
    """Those that may be left out, too; where there is no section there are none."""
    assert keys_at(Whole, []) == ["part", "several", "seed"]
    assert keys_at(Whole, ["part"]) == ["size", "loop"]
    assert keys_at(Whole, ["part", "loop"]) == ["minutes"]
    assert keys_at(Whole, ["seed", "x"]) == keys_at(Whole, ["unheard"]) == []
