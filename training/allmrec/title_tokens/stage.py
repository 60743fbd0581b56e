"""The stage `title_tokens`: users and items are injected into lists of titles, the LLM frozen (ADR 22).

How likely a title follows a history says nothing of what others bought. So the backbone's user and stage 1's items
are added to tokens of the list, by projections that begin at nothing: the start is the plain list. They are trained
for the target among candidates.

Axes: E validation users, C candidates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from models.alignment.projection import TitleProjector
from models.composer import PromptComposer
from models.engines.base import LLMEngine
from models.engines.remembering import remembering
from models.engines.transformers import in_process
from models.llm.forward import embed_tokens
from models.llm.loading import LanguageModel
from models.rankers.base import Ranker
from models.rankers.collaborative import candidate_logits
from models.rankers.title_likelihood import InjectedTitleRanker, TitleLikelihoodRanker
from training.allmrec.logit import fit_logit
from training.allmrec.stage2.approach import sample_users
from training.allmrec.stage2.examples import Examples
from training.allmrec.stage2.inputs import Stage2Inputs
from training.allmrec.stage2.stage import new_projector, sampler_of
from training.allmrec.stage2.teachers import collaborative_teacher
from training.allmrec.stage2.warm_start import fit_temperature
from training.allmrec.title_tokens.config import Start, TitleTokensConfig
from training.allmrec.title_tokens.loss import TitleTokensLoss
from training.data.splits import Holdout
from training.evaluation.held_out import HeldOut
from training.evaluation.metrics import mean_metrics
from training.runs.context import RunContext
from training.runs.distributed import processes
from training.runs.loop import Outcome, Task, seed_everything
from training.runs.stage_run import StageRun

PROJECTOR_FILE = "title_projector.safetensors"
LABEL = "title tokens"
PENALTY = 1e-4
"""Of how a list is read; so little that it only keeps the fit from running away."""
SMALLEST_SCALE = 0.01


def train_title_tokens(inputs: Stage2Inputs, config: TitleTokensConfig, run: StageRun, answers: Path) -> TitleProjector:
    """Run the stage, or load its result if it is done.

    Args:
        inputs: what stage 1 left, with log P(title) of all items in its model, and the LLM.
        config: the stage's config, of which `run` was made.
        run: the stage's directory. Gets `title_projector.safetensors`.
        answers: a file that keeps what the LLM said of plain lists.

    Raises:
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if not run.is_done:
        run.start()
        seed_everything(config.seed)
        projector = new_projector(inputs, TitleProjector)
        start, outcome = fit_title_tokens(inputs, projector, config, run, answers)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in projector.state_dict().items()}
        run.alone(lambda: save_file(weights, run.directory / PROJECTOR_FILE))
        run.write_curve(outcome.curve, LABEL)
        run.finish({"start": start.model_dump(), **outcome.summary})
    projector = new_projector(inputs, TitleProjector)
    projector.load_state_dict(load_file(run.directory / PROJECTOR_FILE))
    return projector.eval().requires_grad_(False)


def fit_title_tokens(
    inputs: Stage2Inputs, projector: TitleProjector, config: TitleTokensConfig, run: RunContext, answers: Path | None
) -> tuple[Start, Outcome]:
    """Train `projector`; returns how the plain list is read, and how training went."""
    model = replace(inputs.model, title_projector=projector)
    composer, llm = inputs.composer(model), inputs.llm
    held_out = HeldOut.of(inputs.split, Holdout.VALIDATION, config.seed, config.validation_users)
    held_out = held_out.take(held_out.groups["new"])
    start = config.chosen or processes().alone(lambda: _start(inputs, composer, held_out, answers))
    start_plainly(projector, inputs, composer, start, config.seed)
    if config.chosen is not None and not config.chosen.steps:
        return start, Outcome()

    def validate() -> dict[str, float]:
        return mean_metrics(asyncio.run(_scores(InjectedTitleRanker, llm, composer, held_out)))

    told = inputs.of_examples
    teacher = collaborative_teacher(told.model, told.texts, start.temperature)
    loss = TitleTokensLoss(told, projector.requires_grad_(True), composer, config, teacher)
    shown = inputs.prompt.title_list.history_items
    examples = config.examples.model_copy(update={"history_items": shown})
    sampler = sampler_of(told, composer.lists.lengths, examples, config.seed)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=config.learning_rate, weight_decay=0.0)
    validated = validate if config.chosen is None and len(held_out) else None
    task = Task(projector, optimizer, sampler.batches, loss, validated, Examples.part)
    # The plain list is always among what is chosen from, whatever a recipe says of the loop.
    loop = config.loop.model_copy(update={"validate_first": validated is not None})
    outcome = run.train(task, loop, LABEL)
    projector.requires_grad_(False)
    return start, outcome


def start_plainly(
    projector: TitleProjector, inputs: Stage2Inputs, composer: PromptComposer, start: Start, seed: int
) -> None:
    """Let `projector` inject what makes no difference.

    Args:
        projector: of any weights.
        inputs: the data, and the LLM.
        composer: says in whose places tokens are injected.
        start: how the plain list is read.
        seed: of the users by whose spread inputs are standardised.
    """
    model, device = inputs.model, inputs.model.cf_vectors.device
    trained = torch.from_numpy(np.flatnonzero(model.catalogue.trained)).to(device)
    with torch.no_grad():
        projector.user.standardise(sample_users(inputs, seed))
        projector.item.standardise(model.joint_item[trained])
        slots = composer.lists.slots
        tokens = torch.tensor(list(slots.values()), device=inputs.llm.model.device)
        stand = dict(zip(slots, embed_tokens(inputs.llm.model, tokens).to(device), strict=True))
        projector.start_plain(stand, start.prior_share, start.scale)


def _start(inputs: Stage2Inputs, composer: PromptComposer, held_out: HeldOut, answers: Path | None) -> Start:
    """How plain lists are read best, and how sure the backbone is."""
    model, items_E_C = inputs.model, held_out.candidates.items
    if not len(held_out):
        return Start(prior_share=1.0, scale=1.0, temperature=1.0)
    users_E_D = model.user_vectors(held_out.users.histories, held_out.users.user_ids)
    temperature = fit_temperature(candidate_logits(users_E_D, model.cf_vectors, items_E_C))
    likely_E_C = asyncio.run(_scores(TitleLikelihoodRanker, inputs.llm, composer, held_out, answers))
    scale, share = read_plainly(likely_E_C, model.title_log_probs[items_E_C])
    return Start(prior_share=share, scale=scale, temperature=temperature)


def read_plainly(likely_E_C: np.ndarray, prior_E_C: np.ndarray) -> tuple[float, float]:
    """The scale a and the share s at which `a * (likely - s * prior)` predicts the positives in column 0 best.

    Args:
        likely_E_C: log P(title | history), -inf at padding.
        prior_E_C: log P(title).

    Returns:
        a and s; where a list says nothing for the positives a small scale, and all of the prior is taken.
    """
    real_E_C = np.isfinite(likely_E_C)
    features = np.stack([np.where(real_E_C, likely_E_C, 0.0), np.where(real_E_C, prior_E_C, 0.0)], axis=2)
    weights = fit_logit(features, real_E_C, np.ones(len(features)), PENALTY)
    scale = float(weights[0])
    return (scale, -float(weights[1]) / scale) if scale > SMALLEST_SCALE else (SMALLEST_SCALE, 1.0)


async def _scores(
    make: Callable[[LLMEngine, PromptComposer], Ranker],
    llm: LanguageModel,
    composer: PromptComposer,
    held_out: HeldOut,
    answers: Path | None = None,
) -> np.ndarray:
    async with in_process(llm) as engine, remembering(engine, answers, llm.precision) as remembers:
        return await make(remembers, composer).score(held_out.users, held_out.candidates.items)
