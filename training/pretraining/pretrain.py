"""The stage that makes the embedded LLM: construct it, then train it on synthetic worlds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from models.config import Config
from models.errors import ConfigError
from models.llm.loading import LanguageModel
from models.llm.token_interface import TokenInterface
from models.prompts.titles import encode_plain
from training.pretraining.architecture import Architecture, build_interface, build_model
from training.pretraining.circuit import Circuit, Gains, wake
from training.pretraining.evaluate import bucketed, measure
from training.pretraining.objective import Objective
from training.pretraining.prompts import Example, Mixture, PromptFactory, collate
from training.runs.loop import LoopConfig, Task, epoch_rng, seed_everything
from training.runs.stage_run import StageRun


class PretrainConfig(Config):
    """The stage `pretrain-lm`.

    Attributes:
        architecture: sizes.
        gains: strengths of the constructed initialisation.
        constructed: begin with the constructed initialisation; with transformers' own otherwise.
        mixture: what is trained on.
        titles: stock of grammar titles.
        prompts_per_epoch: an epoch's prompts; every epoch draws new ones.
        batch_tokens: most tokens in a batch, padding included.
        learning_rate: of AdamW. Four times more undoes the constructed circuit in a minute.
        feed_forward_rate: how much faster the feed-forward layers learn, which nothing is constructed in.
        betas: of AdamW.
        weight_decay: of AdamW.
        vocabulary_weight: see `Objective`.
        order_weight: see `Objective`.
        text_weight: see `Objective`.
        validation_prompts: prompts to measure the share of Bayes on.
        loop: when to stop, validate and save.
        seed: of everything random but the interface.
        interface_seed: of the convention for injected tokens. Bundles depend on it.
    """

    architecture: Architecture = Architecture()
    gains: Gains = Gains()
    constructed: bool = True
    mixture: Mixture = Mixture()
    titles: int = Field(20_000, ge=10)
    prompts_per_epoch: int = Field(512, gt=0)
    batch_tokens: int = Field(4096, gt=0)
    learning_rate: float = Field(5e-5, gt=0)
    feed_forward_rate: float = Field(6.0, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.01, ge=0)
    vocabulary_weight: float = Field(0.05, ge=0)
    order_weight: float = Field(0.3, ge=0)
    text_weight: float = Field(0.05, ge=0)
    validation_prompts: int = Field(300, gt=0)
    loop: LoopConfig = LoopConfig(
        max_steps=6_000, validate_every=10, monitor="closeness", decay_from=0.3, warmup=0.01, clip_norm=1.0
    )
    seed: int = 0
    interface_seed: int = 0

    @model_validator(mode="after")
    def _can_be_validated(self) -> PretrainConfig:
        if max(self.mixture.explanations, self.mixture.answers) == 1:
            raise ValueError(
                "mixture.explanations and mixture.answers must leave prompts whose ranking can be measured"
            )
        return self


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
    model = initial_model(config, tokenizer, interface)
    if start_from is not None:
        model.load_state_dict(dict(start_from))
        wake(model, config.seed)
    factory = PromptFactory(tokenizer, interface, config.architecture.context_length, config.seed, config.titles)
    objective = Objective(model, config.vocabulary_weight, config.order_weight, config.text_weight)
    validation = draw(factory, config.mixture, config.validation_prompts, config.seed + 1)

    def batches(epoch: int) -> list[list[Example]]:
        rng = epoch_rng(config.seed, epoch)
        examples = [factory.draw(rng, config.mixture) for _ in range(config.prompts_per_epoch)]
        grouped = bucketed(examples, config.batch_tokens)
        return [grouped[index] for index in rng.permutation(len(grouped))]

    def validate() -> dict[str, float]:
        result = measure(model, validation)
        overall, text = result["all"], result.get("explanations", {})
        return {
            "share": overall["share"],
            "closeness": 1.0 - overall["kl"] / overall["uniform_kl"],
            "rank": overall["rank"],
            **({"text": text["token_accuracy"]} if text else {}),
        }

    optimizer = torch.optim.AdamW(
        _rates(model, config), config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )
    task = Task(model, optimizer, batches, lambda examples: objective(collate(examples)), validate)
    outcome = run.train(task, config.loop, "pretrain-lm")
    save(model, tokenizer, interface, run.directory / "llm")
    fresh = draw(factory, config.mixture, config.validation_prompts, config.seed + 2)
    metrics = measure(model, fresh)
    run.write_curve(outcome.curve, "pretrain-lm")
    prompts = int(outcome.epochs * config.prompts_per_epoch)
    run.finish({"steps": outcome.steps, "prompts": prompts, "minutes": outcome.minutes, "fresh": metrics})
    return metrics


def _rates(model: Any, config: PretrainConfig) -> list[dict[str, Any]]:
    """The parameters in groups of one learning rate."""
    fast = [parameter for name, parameter in model.named_parameters() if ".fc" in name]
    rest = [parameter for name, parameter in model.named_parameters() if ".fc" not in name]
    return [{"params": rest}, {"params": fast, "lr": config.feed_forward_rate * config.learning_rate}]


def initial_model(config: PretrainConfig, tokenizer: Any, interface: TokenInterface) -> Any:
    """The model before training."""
    torch.manual_seed(config.seed)
    model = build_model(config.architecture, tokenizer)
    if config.constructed:
        circuit_of(config, tokenizer, interface).write(model)
        wake(model, config.seed)
    return model


def circuit_of(config: PretrainConfig, tokenizer: Any, interface: TokenInterface) -> Circuit:
    """The constructed initialisation for `tokenizer`."""
    (open_quote,), (close_quote,) = encode_plain(tokenizer, [' "', '"'])
    return Circuit(
        config.architecture,
        interface,
        open_quote,
        close_quote,
        int(tokenizer.bos_token_id),
        wording_tokens(tokenizer),
        config.gains,
        config.seed,
    )


def wording_tokens(tokenizer: Any) -> set[int]:
    """The tokens of the wording common to all domains: what is said again in every prompt tells nothing apart."""
    texts = [
        " is a user representation. in the previous. Recommend one next. The recommendation is for this user to",
        " from the following title set, genre set, Name the favorite genre of this user. The favorite genre is,",
        " This user has next because",
    ]
    return {token for ids in encode_plain(tokenizer, texts) for token in ids}


def draw(factory: PromptFactory, mixture: Mixture, count: int, seed: int) -> list[Example]:
    """`count` examples, the same for the same seed, and none that training sees: its generators have no third word."""
    rng = np.random.default_rng([seed, 0, 1])
    return [factory.draw(rng, mixture) for _ in range(count)]


def average(start: LanguageModel, goal: LanguageModel, share: float) -> Any:
    """The model whose weights lie `share` of the way from those of `start` to those of `goal`, in fp32.

    If `goal` was trained on from `start`, this keeps much of what either does better (WiSE-FT, Wortsman et al. 2022,
    section 3).

    Raises:
        ConfigError: they differ in architecture or tokenizer.
    """
    for what, ours, theirs in (
        ("architectures", _architecture(start), _architecture(goal)),
        ("tokenizers", start.tokenizer.backend_tokenizer.to_str(), goal.tokenizer.backend_tokenizer.to_str()),
    ):
        if ours != theirs:
            raise ConfigError(f"LLMs '{start.name}' and '{goal.name}' have different {what}: no mean makes sense")
    ours, theirs = start.model.state_dict(), goal.model.state_dict()
    model = copy.deepcopy(start.model).float()
    model.load_state_dict({name: (1 - share) * ours[name].float() + share * theirs[name].float() for name in ours})
    return model


_NOT_ARCHITECTURE = ("dtype", "_name_or_path", "transformers_version")


def _architecture(llm: LanguageModel) -> dict[str, Any]:
    config: dict[str, Any] = llm.model.config.to_dict()
    return {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}


def save(model: Any, tokenizer: Any, interface: TokenInterface, directory: Path) -> None:
    """Write the LLM as transformers and vLLM load it, in bf16, with its tokenizer and interface."""
    directory.mkdir(parents=True, exist_ok=True)
    shipped = type(model)(model.config)
    shipped.load_state_dict(model.state_dict())
    shipped.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.init_kwargs.pop("local_files_only", None)  # how it was loaded, not what it is
    tokenizer.save_pretrained(directory)
    interface.save(directory)
