"""Stage 2: teach F_U and F_I to speak to the frozen LLM (A-LLMRec section 4.2.4).

Only the projections and the slot types are trained. A prompt lists the user's last items and 20 candidates, the true
next item among them; the loss is taken on the tokens that tell the candidates apart, or on the whole title as in
the paper.

Axes: B prompts, C candidates, M branching nodes of all prompts, D CF size, J joint size, T injected tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

from models.backbones import represent_all
from models.bundle import BundleContents
from models.catalogue import PADDING_ITEM
from models.choices import ChoiceTrie
from models.composer import PromptComposer
from models.config import Config
from models.llm.interface import TokenInterface
from models.llm.loading import EMBEDDED, LanguageModel
from models.llm.opt import OPTScorer
from models.llm.packing import PackedBatch, hidden_states, node_logits, pack
from models.prompt import PromptConfig, PromptLayout, PromptTemplate, TitleTokens
from training.backbone import score_candidates, some
from training.data.splits import Candidates, Holdout, SequenceSplit
from training.examples import ExampleConfig, Examples, ExampleSampler
from training.genres import GenreConfig, fit_genres
from training.loop import LoopConfig, Outcome, Task, seed_everything, train
from training.metrics import mean_metrics
from training.pretraining.forward import PackedReader
from training.ranking import rank_with_llm
from training.run import StageRun
from training.series import in_series, series_table
from training.warmstart import (
    ExactReader,
    Similarities,
    WarmStartConfig,
    fit_coordinates,
    fit_history_weights,
    fit_similarities,
    fit_temperature,
    history_similarity,
    plain_start,
    warm_start,
)

PROJECTOR_FILE = "projector.safetensors"
GENRES_FILE = "genres.safetensors"
WARM_USERS = 20_000
WEIGHT_USERS = 5_000


@dataclass(frozen=True)
class ItemTexts:
    """What stage 1 makes of the items' texts.

    Attributes:
        embedded: (N+1, T) Q, the text encoder's output.
        decoded: (N+1, D) the same in CF space, by the joint space.
    """

    embedded: torch.Tensor
    decoded: torch.Tensor


class Loss(StrEnum):
    """What stage 2 is trained for."""

    CHOICE = "choice"
    """-log P(target) under decoding constrained to the candidates: exactly what serving computes."""
    TITLE = "title"
    """Cross-entropy of the target title's tokens over the whole vocabulary, as in the paper."""


class Stage2Config(Config):
    """The stage `stage2`.

    Attributes:
        llm: "embedded", a hub name or a path.
        device: where the LLM and the projections run.
        dtype: of the LLM's weights.
        training_dtype: of the LLM's forward and backward pass in training; validation keeps to `dtype`.
        examples: what the prompts contain.
        loss: on what.
        distillation: share of the choice loss that asks for a teacher's distribution over the candidates instead of
            the target: what the tokens of the warm start say, or, for an LLM without an interface, the CF backbone.
        learning_rate: of AdamW.
        betas: of AdamW.
        validation_users: at most this many users are validated on.
        warm_start: how the projections are fitted to the LLM's interface, where it has one.
        genres: how the genres' embeddings are fitted, likewise.
        loop: when to stop, validate and save.
        seed: of everything random.
    """

    llm: str = EMBEDDED
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    training_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    examples: ExampleConfig = ExampleConfig()
    loss: Loss = Loss.CHOICE
    distillation: float = Field(0.0, ge=0, le=1)
    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    validation_users: int = Field(256, gt=0)
    warm_start: WarmStartConfig = WarmStartConfig()
    genres: GenreConfig = GenreConfig()
    loop: LoopConfig = LoopConfig(epochs=5, validate_first=True, clip_norm=1.0, warmup=0.02, decay_from=0.0)
    seed: int = 0


Teacher = Callable[[torch.Tensor, Sequence[torch.Tensor], Sequence[torch.Tensor]], list[np.ndarray]]
"""Of x_u (B, D) and, per prompt, the rows of the items told and of the C candidates: (C,) distributions.

Rows are those of the item tables, and from N + 1 on of the text tables.
"""


class Stage2Loss:
    """A batch of examples to its loss.

    Args:
        split: the data.
        contents: tables, backbone and the projector to train.
        llm: frozen.
        template: builds the prompts.
        titles: of all items.
        config: of the stage.
        teach: gives the distributions for distillation.
    """

    def __init__(
        self,
        split: SequenceSplit,
        contents: BundleContents,
        llm: LanguageModel,
        template: PromptTemplate,
        titles: TitleTokens,
        config: Stage2Config,
        teach: Teacher,
    ) -> None:
        self._train, self._contents, self._llm = split.train, contents, llm
        self._template, self._titles, self._config = template, titles, config
        self._teach = teach
        self._reader = _Reader(llm.model, getattr(torch, config.training_dtype))
        # Item i by its text is row i + N + 1.
        self._joint = torch.cat([contents.joint_item, contents.joint_text])
        self._text_offset = len(contents.joint_item)

    def __call__(self, batch: Examples) -> torch.Tensor:
        """The mean loss of `batch`."""
        candidates = [items[items != PADDING_ITEM] for items in batch.items]
        histories = [self._train[user][:end] for user, end in zip(batch.users, batch.ends, strict=True)]
        told = [history[max(0, len(history) - self._config.examples.history_items) :] for history in histories]
        layouts = [
            self._template.recommend(self._titles.of(history), self._titles.of(items))
            for history, items in zip(told, candidates, strict=True)
        ]
        tries = [ChoiceTrie(layout.choices, self._template.end_token) for layout in layouts]
        users_B_D = represent_all(self._contents.backbone, histories, self._contents.cf_vectors)
        limit = self._config.examples.history_items
        told_rows = [
            self._rows(items, flags[limit - len(items) : limit])
            for items, flags in zip(told, batch.as_text, strict=True)
        ]
        candidate_rows = [
            self._rows(items, flags[limit : limit + len(items)])
            for items, flags in zip(candidates, batch.as_text, strict=True)
        ]
        soft_T_D = self._contents.projector(
            layouts,
            users_B_D,
            [self._joint[rows] for rows in told_rows],
            [self._joint[rows] for rows in candidate_rows],
        )
        if self._config.loss is Loss.TITLE:
            return self._title_loss(layouts, batch.answers, soft_T_D)
        wanted = self._wanted(users_B_D, told_rows, candidate_rows, batch.answers)
        return self._choice_loss(layouts, tries, wanted, soft_T_D)

    def _rows(self, items: np.ndarray, as_text: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy(items + self._text_offset * as_text)
        return rows.to(self._joint.device)

    def _wanted(
        self,
        users_B_D: torch.Tensor,
        told: Sequence[torch.Tensor],
        candidates: Sequence[torch.Tensor],
        answers: np.ndarray,
    ) -> list[np.ndarray]:
        """Per prompt (C,) the distribution asked for: the target, or in part what the teacher says."""
        share = self._config.distillation
        wanted = [np.eye(len(rows))[answer] for rows, answer in zip(candidates, answers, strict=True)]
        if share == 0:
            return wanted
        taught = self._teach(users_B_D, told, candidates)
        return [(1 - share) * target + share * probs for target, probs in zip(wanted, taught, strict=True)]

    def _choice_loss(
        self,
        layouts: Sequence[PromptLayout],
        tries: Sequence[ChoiceTrie],
        wanted: Sequence[np.ndarray],
        soft_T_D: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy between the distribution asked for and the constrained decoder's, node by node."""
        batch = _packed(layouts, tries).to(soft_T_D.device)
        hidden_M_D = self._reader(batch, soft_T_D, batch.node_rows, batch.node_columns)
        log_probs_M_C = node_logits(self._llm.model, hidden_M_D, batch.children_M_C).log_softmax(dim=1)
        mass_M_C = node_masses(tries, wanted, log_probs_M_C.shape).to(log_probs_M_C.device)
        return -(mass_M_C * log_probs_M_C.masked_fill(mass_M_C == 0, 0.0)).sum() / len(layouts)

    def _title_loss(self, layouts: Sequence[PromptLayout], answers: np.ndarray, soft_T_D: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the target's tokens and the closing quote, over the whole vocabulary."""
        titles = [
            [*layout.choices[answer], self._template.end_token] for layout, answer in zip(layouts, answers, strict=True)
        ]
        prompts = [
            PromptLayout(
                np.concatenate([layout.token_ids, np.asarray(title[:-1], dtype=np.int64)]),
                layout.soft_positions,
                layout.slot_kinds,
                layout.slot_ordinals,
                layout.choices,
            )
            for layout, title in zip(layouts, titles, strict=True)
        ]
        no_tries = [ChoiceTrie([title], self._template.end_token) for title in titles]
        batch = _packed(prompts, no_tries).to(soft_T_D.device)
        rows = [row for row, title in enumerate(titles) for _ in title]
        columns = [
            len(layout.token_ids) - 1 + depth
            for layout, title in zip(layouts, titles, strict=True)
            for depth in range(len(title))
        ]
        targets = torch.tensor([token for title in titles for token in title], device=soft_T_D.device)
        hidden_N_D = self._reader(batch, soft_T_D, *torch.tensor([rows, columns], device=soft_T_D.device))
        head = self._llm.model.get_output_embeddings()
        logits = head(hidden_N_D.to(head.weight.dtype))
        return nn.functional.cross_entropy(logits.float(), targets, reduction="sum") / len(layouts)


@torch.no_grad()
def collaborative_teacher(contents: BundleContents, texts: ItemTexts, temperature: float) -> Teacher:
    """The CF backbone at a temperature: what it says of the vectors that the injected tokens stand for."""
    vectors = torch.cat([contents.cf_vectors, texts.decoded])

    def teach(
        users_B_D: torch.Tensor, _: Sequence[torch.Tensor], candidates: Sequence[torch.Tensor]
    ) -> list[np.ndarray]:
        logits = [vectors[rows] @ user_D / temperature for user_D, rows in zip(users_B_D, candidates, strict=True)]
        return [row.double().softmax(dim=0).cpu().numpy() for row in logits]

    return teach


@torch.no_grad()
def token_teacher(contents: BundleContents, titles: TitleTokens, interface: TokenInterface) -> Teacher:
    """What the tokens of the projector as it is now, and the titles, say by the LLM's law."""
    reader = ExactReader(copy.deepcopy(contents.projector), interface.to(contents.joint_item.device))
    joint = torch.cat([contents.joint_item, contents.joint_text])
    items_N_K = reader.items(joint)

    @torch.no_grad()
    def teach(
        users_B_D: torch.Tensor, told: Sequence[torch.Tensor], candidates: Sequence[torch.Tensor]
    ) -> list[np.ndarray]:
        users_B_L = reader.users_of(users_B_D, items_N_K, [rows.cpu().numpy() for rows in told])
        taught = []
        for user_L, told_H, rows_C in zip(users_B_L, told, candidates, strict=True):
            series_C = torch.from_numpy(in_series(titles_of(told_H), titles_of(rows_C))).to(user_L)
            (logits_C,) = reader.logits(user_L[None], items_N_K[rows_C], series_C[None])
            taught.append(logits_C.double().softmax(dim=0).cpu().numpy())
        return taught

    def titles_of(rows: torch.Tensor) -> list[list[int]]:
        return titles.of((rows % len(contents.joint_item)).tolist())

    return teach


class _Reader:
    """The frozen LLM's last hidden states at given positions, for training: in its own precision, and fast on a CPU."""

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self._model = model if model.dtype == dtype else copy.deepcopy(model).to(dtype)
        fast = model.device.type == "cpu" and OPTScorer.supports(model)
        self._packed = PackedReader(self._model) if fast else None

    def __call__(
        self, batch: PackedBatch, soft_T_D: torch.Tensor, rows_N: torch.Tensor, columns_N: torch.Tensor
    ) -> torch.Tensor:
        """(N, D') at packed positions `rows_N`, `columns_N`."""
        if self._packed is not None:
            return self._packed(batch, soft_T_D, rows_N, columns_N)
        return hidden_states(self._model, batch, soft_T_D)[rows_N, columns_N]


def node_masses(tries: Sequence[ChoiceTrie], wanted: Sequence[np.ndarray], shape: Sequence[int]) -> torch.Tensor:
    """(M, C) the probability mass that goes through every child of every branching node.

    Args:
        tries: of the prompts.
        wanted: per prompt (K,) the distribution over its choices.
        shape: (M, C), nodes in the order in which a packed batch lists them.
    """
    mass_M_C = np.zeros(tuple(shape), dtype=np.float32)
    first = 0
    for trie, probabilities in zip(tries, wanted, strict=True):
        for probability, steps in zip(probabilities, trie.steps, strict=True):
            for branch, child in steps:
                mass_M_C[first + branch, child] += probability
        first += len(trie.branches)
    return torch.from_numpy(mass_M_C)


def train_stage2(
    split: SequenceSplit,
    contents: BundleContents,
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
    contents: BundleContents,
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
    candidates = some(split.candidates(Holdout.VALIDATION, config.seed), config.validation_users)
    histories = [split.history(int(user), Holdout.VALIDATION) for user in candidates.users]
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    temperature = fit_temperature(score_candidates(users_E_D, contents.cf_vectors, candidates))
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
    contents: BundleContents,
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
    warm = torch.from_numpy(np.flatnonzero(contents.catalogue.warm)).to(contents.cf_vectors.device)
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
    contents: BundleContents,
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
    candidates = some(split.candidates(Holdout.VALIDATION, config.seed), WEIGHT_USERS)
    histories = [split.history(int(user), Holdout.VALIDATION) for user in candidates.users]
    new = [positive not in history for positive, history in zip(candidates.items[:, 0], histories, strict=True)]
    candidates = Candidates(candidates.users[new], candidates.items[new])
    histories = [history for history, is_new in zip(histories, new, strict=True) if is_new]
    if not histories:
        return 0.0, 0.0
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    told = [history[max(0, len(history) - config.examples.history_items) :] for history in histories]
    cf_scores = [score_candidates(users_E_D, vectors, candidates) for vectors in (contents.cf_vectors, texts.decoded)]
    likeness_E_C = history_similarity(similarities, interface, texts.embedded, told, candidates.items)
    series_E_C = series_table(titles, told, candidates.items)
    cf_logits = [scores / temperature for scores in cf_scores]
    return fit_history_weights(cf_logits, likeness_E_C, series_E_C, config.warm_start)


def _packed(layouts: Sequence[PromptLayout], tries: Sequence[ChoiceTrie]) -> PackedBatch:
    return pack([layout.token_ids for layout in layouts], [layout.soft_positions for layout in layouts], tries)
