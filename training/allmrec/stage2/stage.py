"""Stage 2: teach F_U and F_I to speak to the frozen LLM (A-LLMRec section 4.2.4).

Only the projections and the slot types are trained. A prompt lists the user's last items and 20 candidates, the true
next item among them; the loss is taken on the tokens that tell the candidates apart, or on the whole title as in
the paper.

Axes: B prompts, C candidates, M branching nodes of all prompts, D CF size, J joint size, T injected tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from models.backbones import represent_all
from models.bundle.catalogue_model import CatalogueModel
from models.composer import PromptComposer
from models.llm.law import series_table
from models.llm.loading import LanguageModel
from models.llm.token_interface import TokenInterface
from models.prompts.template import PromptConfig
from models.prompts.titles import TitleTokens
from models.rankers.collaborative import candidate_logits
from training.allmrec.genres import fit_genres
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.examples import ExampleSampler
from training.allmrec.stage2.loss import Stage2Loss
from training.allmrec.stage2.teachers import ItemTexts, collaborative_teacher, token_teacher
from training.allmrec.stage2.warm_start import (
    Similarities,
    fit_coordinates,
    fit_history_weights,
    fit_similarities,
    fit_temperature,
    history_similarity,
    plain_start,
    warm_start,
)
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import Candidates, draw_candidates
from training.evaluation.llm_scores import rank_with_llm
from training.evaluation.metrics import mean_metrics
from training.runs.loop import Outcome, Task, seed_everything, train
from training.runs.stage_run import StageRun

PROJECTOR_FILE = "projector.safetensors"
GENRES_FILE = "genres.safetensors"
WARM_USERS = 20_000
WEIGHT_USERS = 5_000


def train_stage2(
    split: SequenceSplit,
    contents: CatalogueModel,
    texts: ItemTexts,
    llm: LanguageModel,
    prompt: PromptConfig,
    config: Stage2Config,
    run: StageRun,
    console: Console | None = None,
) -> None:
    """Run the stage on `contents.projector` and `contents.joint_genre`, or load its result into them if it is done.

    Args:
        split: the data.
        contents: what stage 1 left; its projector is trained in place.
        texts: of all items.
        llm: the frozen LLM.
        prompt: the prompts, as they will be served.
        config: the stage's config, of which `run` was made.
        run: the stage's directory. Gets `projector.safetensors` and `genres.safetensors`.
        console: where progress is shown.

    Raises:
        Interrupted: by Ctrl-C; the same call goes on.
    """
    projector = contents.projector
    if run.is_done:
        projector.load_state_dict(load_file(run.directory / PROJECTOR_FILE))
        contents.joint_genre.copy_(load_file(run.directory / GENRES_FILE)["joint_genre"])
        return
    run.start()
    seed_everything(config.seed)
    start, outcome = fit_projector(split, contents, texts, llm, prompt, config, run.checkpoint, console)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in projector.state_dict().items()},
        run.directory / PROJECTOR_FILE,
    )
    if llm.interface is not None:
        contents.joint_genre.copy_(fit_genres(split, contents, llm.interface, prompt.history_items, config.genres))
    save_file({"joint_genre": contents.joint_genre.cpu().contiguous()}, run.directory / GENRES_FILE)
    run.write_curve(outcome.curve, "stage 2")
    run.finish(
        {
            "start": start,
            "validation": outcome.best,
            "best_step": outcome.best_step,
            "steps": outcome.steps,
            "epochs": outcome.epochs,
            "minutes": outcome.minutes,
            "ended_by": outcome.ended_by,
        }
    )


def fit_projector(
    split: SequenceSplit,
    contents: CatalogueModel,
    texts: ItemTexts,
    llm: LanguageModel,
    prompt: PromptConfig,
    config: Stage2Config,
    checkpoint: Path,
    console: Console | None = None,
) -> tuple[dict[str, Any], Outcome]:
    """Train `contents.projector` in place; returns the start's metrics and how training went."""
    projector = contents.projector.requires_grad_(True)
    composer = PromptComposer(contents, prompt, llm.tokenizer, llm.context_length)
    candidates = draw_candidates(split, Holdout.VALIDATION, config.seed).at_most(config.validation_users)
    histories = [split.history(int(user), Holdout.VALIDATION) for user in candidates.users]
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    temperature = fit_temperature(candidate_logits(users_E_D, contents.cf_vectors, candidates.items))
    start = {"temperature": temperature, **_start(split, contents, texts, llm, composer.titles, config, temperature)}
    teach = (
        collaborative_teacher(contents, texts, temperature)
        if llm.interface is None
        else token_teacher(contents, composer.titles, llm.interface)
    )

    titles = composer.titles
    loss = Stage2Loss(split, contents, llm, composer.template, titles, config, teach)
    title_lengths = np.asarray([len(titles[item]) for item in range(len(titles))])
    sampler = ExampleSampler(split, config.examples, title_lengths, config.seed)

    def validate() -> dict[str, float]:
        return mean_metrics(rank_with_llm(llm, composer, users_E_D, histories, candidates))

    optimizer = torch.optim.AdamW(projector.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=0.0)
    task = Task(projector, optimizer, sampler.batches, loss, validate)
    outcome = train(task, config.loop, checkpoint, "stage 2", console)
    projector.requires_grad_(False)
    return start, outcome


def _start(
    split: SequenceSplit,
    contents: CatalogueModel,
    texts: ItemTexts,
    llm: LanguageModel,
    titles: TitleTokens,
    config: Stage2Config,
    temperature: float,
) -> dict[str, float]:
    """Initialise the projector: from the LLM's interface, or plainly if it has none."""
    rng = np.random.default_rng(config.seed)
    chosen = rng.permutation(len(split))[:WARM_USERS]
    histories = [items[: rng.integers(1, len(items) + 1)] for items in (split.train[user] for user in chosen)]
    users_U_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    warm = torch.from_numpy(np.flatnonzero(contents.catalogue.trained)).to(contents.cf_vectors.device)
    if llm.interface is None:
        plain_start(contents.projector, llm.model.get_input_embeddings().weight, users_U_D, contents.joint_item[warm])
        return {}
    interface = llm.interface.to(users_U_D.device)
    coordinates = fit_coordinates(users_U_D, contents.cf_vectors[warm], interface, temperature, config.seed)
    similarities = fit_similarities(texts.embedded[warm], interface)
    similarity, series = _history_weights(split, contents, texts, titles, similarities, interface, config, temperature)
    tables = [
        (contents.joint_item[1:], contents.cf_vectors[1:], texts.embedded[1:]),
        (contents.joint_text[1:], texts.decoded[1:], texts.embedded[1:]),
    ]
    errors = warm_start(
        contents.projector,
        interface,
        coordinates,
        similarities.scaled(similarity),
        series,
        users_U_D,
        tables,
        config.warm_start,
        config.seed,
    )
    return {"similarity_weight": similarity, "series_weight": series, **errors}


def _history_weights(
    split: SequenceSplit,
    contents: CatalogueModel,
    texts: ItemTexts,
    titles: TitleTokens,
    similarities: Similarities,
    interface: TokenInterface,
    config: Stage2Config,
    temperature: float,
) -> tuple[float, float]:
    """The weights of similarity and series beside the tokens' CF logits that predict the validation items best.

    Users who met theirs before are left out: no negative is an item of the history, so these would be recognised by it.
    """
    if not config.warm_start.similarity and not config.warm_start.series:
        return 0.0, 0.0
    candidates = draw_candidates(split, Holdout.VALIDATION, config.seed).at_most(WEIGHT_USERS)
    histories = [split.history(int(user), Holdout.VALIDATION) for user in candidates.users]
    new = [positive not in history for positive, history in zip(candidates.items[:, 0], histories, strict=True)]
    candidates = Candidates(candidates.users[new], candidates.items[new])
    histories = [history for history, is_new in zip(histories, new, strict=True) if is_new]
    if not histories:
        return 0.0, 0.0
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    told = [history[max(0, len(history) - config.examples.history_items) :] for history in histories]
    cf_scores = [
        candidate_logits(users_E_D, vectors, candidates.items) for vectors in (contents.cf_vectors, texts.decoded)
    ]
    likeness_E_C = history_similarity(similarities, interface, texts.embedded, told, candidates.items)
    series_E_C = series_table(titles, told, candidates.items)
    cf_logits = [scores / temperature for scores in cf_scores]
    return fit_history_weights(cf_logits, likeness_E_C, series_E_C, config.warm_start)
