"""The stage that makes the embedded LLM: construct it, then train it on synthetic preferences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from models.llm.token_interface import TokenInterface
from training.pretraining.architecture import build_interface
from training.pretraining.batch import bucketed, collate
from training.pretraining.config import PretrainConfig
from training.pretraining.evaluate import measure
from training.pretraining.example import Example
from training.pretraining.initialisation import initial_model, initialise_idle_attention
from training.pretraining.mixture import Mixture
from training.pretraining.objective import Objective
from training.pretraining.prompts import PromptFactory
from training.pretraining.saving import save
from training.runs.loop import Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun


def pretrain(
    config: PretrainConfig,
    tokenizer: Any,
    run: StageRun,
    start_from: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Run the stage; the LLM is in the run's directory `llm` afterwards.

    Args:
        config: the stage's config, of which `run` was made.
        tokenizer: a trained tokenizer.
        run: the stage's directory.
        start_from: weights to go on from instead of the initialisation.

    Returns:
        The final metrics of `measure` on fresh prompts.
    """
    run.start()
    seed_everything(config.seed)
    interface = build_interface(config.architecture, config.interface_seed)
    model = initial_model_of(config, tokenizer, interface)
    if start_from is not None:
        model.load_state_dict(dict(start_from))
        initialise_idle_attention(model, config.seed)
    factory = PromptFactory(tokenizer, interface, config.architecture.context_length, config.seed, config.titles)
    outcome = run.train(_task(model, factory, config), config.loop, "pretrain-lm")
    run.alone(lambda: save(model, tokenizer, interface, run.directory / "llm"))
    fresh = draw(factory, config.mixture, config.validation_prompts, config.seed + 2)
    metrics = run.alone(lambda: measure(model, fresh))
    run.write_curve(outcome.curve, "pretrain-lm")
    prompts = int(outcome.epochs * config.prompts_per_epoch)
    run.finish({"steps": outcome.steps, "prompts": prompts, "minutes": outcome.minutes, "fresh": metrics})
    return metrics


def initial_model_of(config: PretrainConfig, tokenizer: Any, interface: TokenInterface) -> Any:
    """The model before training."""
    gains = config.gains if config.constructed else None
    return initial_model(config.architecture, gains, tokenizer, interface, config.seed)


def draw(factory: PromptFactory, mixture: Mixture, count: int, seed: int) -> list[Example]:
    """`count` examples, the same for the same seed, and none that training sees: its generators have no third word."""
    rng = np.random.default_rng([seed, 0, 1])
    return [factory.draw(rng, mixture) for _ in range(count)]


def _task(model: Any, factory: PromptFactory, config: PretrainConfig) -> Task[list[Example]]:
    """What is trained, on what."""
    objective = Objective(model, config.vocabulary_weight, config.order_weight, config.text_weight)
    validation = draw(factory, config.mixture, config.validation_prompts, config.seed + 1)

    def batches(epoch: int) -> list[list[Example]]:
        rng = epoch_rng(config.seed, epoch)
        examples = [factory.draw(rng, config.mixture) for _ in range(config.prompts_per_epoch)]
        grouped = bucketed(examples, config.batch_tokens)
        return [grouped[index] for index in rng.permutation(len(grouped))]

    optimizer = torch.optim.AdamW(
        _rates(model, config), config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    return Task(
        model,
        optimizer,
        batches,
        loss=lambda examples: objective(collate(examples)),
        validate=lambda: _validation_metrics(measure(model, validation)),
        part=_part,
    )


def _part(examples: list[Example], index: int, count: int) -> tuple[list[Example] | None, float]:
    """As `Task.part`: every `count`-th."""
    part = examples[index::count]
    return part or None, len(part) / len(examples)


def _validation_metrics(measures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What a run is watched by; `closeness` is how much of the way from a uniform guess to the truth is gone."""
    overall, text = measures["all"], measures.get("explanations", {})
    return {
        "share": overall["share"],
        "closeness": 1.0 - overall["kl"] / overall["uniform_kl"],
        "rank": overall["rank"],
        **({"text": text["token_accuracy"]} if text else {}),
    }


def _rates(model: Any, config: PretrainConfig) -> list[dict[str, Any]]:
    """The parameters in groups of one learning rate."""
    fast = [parameter for name, parameter in model.named_parameters() if ".fc" in name]
    rest = [parameter for name, parameter in model.named_parameters() if ".fc" not in name]
    return [{"params": rest}, {"params": fast, "lr": config.feed_forward_rate * config.learning_rate}]
