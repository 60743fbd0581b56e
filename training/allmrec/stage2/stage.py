"""Stage 2: teach F_U and F_I to speak to the frozen LLM (A-LLMRec section 4.2.4).

Only the projections and the slot types are trained. A prompt lists the user's last items and 20 candidates, the true
next item among them; the loss is taken on the tokens that tell the candidates apart, or on the whole title as in
the paper.

Axes: B prompts, C candidates, M branching nodes of all prompts, D CF size, J joint size, S injected tokens.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from models.alignment.projection import TokenProjector
from models.bundle.catalogue_model import CatalogueModel
from models.catalogue import PADDING_ITEM
from models.engines.transformers import in_process
from models.rankers.collaborative import candidate_logits
from models.rankers.llm import LLMRanker
from training.allmrec.stage2.approach import approach_of
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.examples import ExampleConfig, Examples, ExampleSampler
from training.allmrec.stage2.inputs import Stage2Inputs
from training.allmrec.stage2.loss import Stage2Loss
from training.allmrec.stage2.negatives import best_of
from training.allmrec.stage2.rehearsal import BATCH_TOKENS
from training.allmrec.stage2.warm_start import fit_temperature
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.runs.context import RunContext
from training.runs.loop import Outcome, Task, seed_everything
from training.runs.stage_run import StageRun

Projector = TypeVar("Projector", bound=TokenProjector)

PROJECTOR_FILE = "projector.safetensors"
GENRES_FILE = "genres.safetensors"


def train_stage2(inputs: Stage2Inputs, config: Stage2Config, run: StageRun) -> CatalogueModel:
    """Run the stage, or load its result if it is done.

    Args:
        inputs: what stage 1 left, and the LLM.
        config: the stage's config, of which `run` was made.
        run: the stage's directory. Gets `projector.safetensors` and `genres.safetensors`.

    Returns:
        The model with trained projections, and with what the LLM is told of genres.

    Raises:
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if config.random_joint:
        inputs = replace(inputs, model=with_random_joint(inputs.model, config.seed))
    if not run.is_done:
        run.start()
        seed_everything(config.seed)
        model, start, outcome = fit_projector(inputs, config, run)
        run.alone(lambda: _save(inputs, model, config, run))
        run.write_curve(outcome.curve, "stage 2")
        run.finish({"start": start, **outcome.summary})
    device = inputs.model.cf_vectors.device
    projector = new_projector(inputs, TokenProjector)
    projector.load_state_dict(load_file(run.directory / PROJECTOR_FILE))
    return replace(
        inputs.model,
        projector=projector.eval().requires_grad_(False),
        joint_genre=load_file(run.directory / GENRES_FILE)["joint_genre"].to(device),
    )


def with_random_joint(model: CatalogueModel, seed: int) -> CatalogueModel:
    """The model with random numbers for joint embeddings, as even as sigmoids are (Table 9, row 4)."""
    drawn_N_2J = torch.rand(model.joint_item.shape, generator=torch.Generator().manual_seed(seed))
    drawn_N_2J[PADDING_ITEM] = 0.0
    drawn_N_2J = drawn_N_2J.to(model.joint_item)
    return replace(model, joint_item=drawn_N_2J, joint_text=drawn_N_2J)


def _save(inputs: Stage2Inputs, model: CatalogueModel, config: Stage2Config, run: StageRun) -> None:
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.projector.state_dict().items()}
    save_file(weights, run.directory / PROJECTOR_FILE)
    genres = approach_of(inputs.llm).genres(inputs, model, config)
    save_file({"joint_genre": genres.cpu().contiguous()}, run.directory / GENRES_FILE)


def new_projector(inputs: Stage2Inputs, kind: type[Projector]) -> Projector:
    """F_U and F_I with fresh weights."""
    model = inputs.model
    sizes = model.cf_vectors.shape[1], model.joint_item.shape[1], inputs.llm.token_size
    return kind(*sizes).to(model.cf_vectors.device)


def fit_projector(
    inputs: Stage2Inputs, config: Stage2Config, run: RunContext
) -> tuple[CatalogueModel, dict[str, float], Outcome]:
    """Train F_U and F_I; returns the model with them, the start's metrics and how training went."""
    approach = approach_of(inputs.llm)
    model = replace(inputs.model, projector=new_projector(inputs, TokenProjector))
    inputs = replace(inputs, model=model)
    held_out = HeldOut.of(inputs.split, Holdout.VALIDATION, config.seed, config.validation_users)
    temperature = _temperature(model, held_out) if config.chosen is None else config.chosen.temperature
    start = {"temperature": temperature, **approach.start(inputs, config, temperature)}

    composer, told = inputs.composer(model), inputs.of_examples
    lengths = composer.titles.lengths
    longer = sampler_of(told, lengths, _longer(config.examples), config.seed)
    rehearsed = approach.rehearse(told, composer, longer, config, run, temperature)
    start |= {f"rehearsal_{name}": value for name, value in _rehearsal(rehearsed).items()}
    loss = Stage2Loss(told, composer, config, approach.teacher(told, composer.titles, temperature))
    sampler = sampler_of(told, lengths, config.examples, config.seed)

    def validate() -> dict[str, float]:
        return mean_metrics(asyncio.run(score()))

    async def score() -> np.ndarray:
        async with in_process(inputs.llm) as engine:
            ranker = LLMRanker("allmrec", "A-LLMRec", engine, composer, injection=config.injection)
            return await ranker.score(held_out.users, held_out.candidates.items)

    if config.chosen is not None and not config.chosen.steps:
        return model, start, Outcome()
    projector = model.projector.requires_grad_(True)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.0)
    validated = validate if config.chosen is None else None
    task = Task(projector, optimizer, sampler.batches, loss, validated, Examples.part)
    outcome = run.train(task, config.loop, "stage 2")
    projector.requires_grad_(False)
    return model, start, outcome


def _longer(examples: ExampleConfig) -> ExampleConfig:
    """With as many prompts a step as the law reads at once."""
    return examples.model_copy(update={"batch_tokens": BATCH_TOKENS})


def _rehearsal(outcome: Outcome) -> dict[str, float]:
    """For `metrics.json`: how many steps are kept, and how good they are."""
    kept = outcome.best_step if outcome.best else outcome.steps
    return {"steps": float(kept), "minutes": outcome.minutes, **outcome.best} if outcome.steps else {}


def sampler_of(told: Stage2Inputs, title_lengths: np.ndarray, examples: ExampleConfig, seed: int) -> ExampleSampler:
    """Draws examples.

    Args:
        told: the data, and the tables as the examples have them.
        title_lengths: (N+1,) tokens of every title.
        examples: what they contain.
        seed: of all that is random.
    """
    split = told.split
    fitted = split if told.held_back is None else told.held_back.split
    negatives, retrieve = examples.negatives, None
    if negatives.retrieved:
        retrieve = best_of(told.model, split, fitted.catalogue.trained, negatives.among)
    cut_short = None if told.held_back is None else fitted
    return ExampleSampler(split, examples, title_lengths, seed, cut_short, retrieve)


def _temperature(model: CatalogueModel, held_out: HeldOut) -> float:
    users_E_D = model.user_vectors(held_out.users.histories, held_out.users.user_ids)
    return fit_temperature(candidate_logits(users_E_D, model.cf_vectors, held_out.candidates.items))
