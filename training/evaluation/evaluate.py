"""The evaluation: every ranker on the same users and candidates, and retrieval by itself (A-LLMRec section 5).

Rankers order one positive and 19 sampled negatives; retrieval looks for the positive among all items. Items that the
CF backbone met only as negatives keep its own vectors in the backbone's row: what one would have without this project.

Axes: E users, C candidates of which the first is the positive, D CF size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from models.backbones import represent_all
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.composer import PromptComposer
from models.config import Config
from models.llm.law import interface_logits, series_table
from models.llm.loading import LanguageModel
from models.llm.token_interface import TokenInterface
from models.prompts.layout import Injection
from models.prompts.template import PromptConfig
from models.rankers.collaborative import candidate_logits
from training.allmrec.genres import genre_agreement
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.candidates import Candidates, draw_candidates
from training.evaluation.llm_scores import rank_with_llm
from training.evaluation.metrics import (
    Estimate,
    RankingReport,
    hit_at,
    paired_difference,
    positive_ranks,
    rank_correlation,
    report,
    share_estimate,
)

RECALLS = (20, 100)
SEARCH_ROWS = 1024

RANDOM = "Random"
POPULARITY = "Popularity"
STAGE1 = "Stage 1 (item encoder)"
STAGE1_TEXT = "Stage 1 (text encoder)"
LLM_ONLY = "LLM-Only"
WITHOUT_USER = "A-LLMRec without user token"
TOKENS = "Tokens, read exactly"
ALLMREC = "A-LLMRec"
ALLMREC_TEXT = "A-LLMRec (text encoder)"

LLM_VARIANTS: dict[str, tuple[Injection, bool]] = {
    LLM_ONLY: (Injection.NONE, False),
    WITHOUT_USER: (Injection.ITEMS, False),
    ALLMREC: (Injection.ALL, False),
    ALLMREC_TEXT: (Injection.ALL, True),
}


class EvaluationConfig(Config):
    """The stage `evaluate`.

    Attributes:
        users: at most this many users are ranked for, the same by all rankers.
        batch_tokens: prompt tokens, padding included, of one forward pass.
        resamples: of the bootstrap.
        seed: of the candidates, their order in the prompt, and the bootstrap.
    """

    users: int = Field(2000, gt=0)
    batch_tokens: int = Field(8192, gt=0)
    resamples: int = Field(2000, gt=0)
    seed: int = 0


class RankerReport(Config):
    """How one ranker did.

    Attributes:
        groups: `overall`, and by the positive: `warm`, `cold` (top and bottom 35 % by training interactions),
            `unseen` (no training interaction; part of `cold`) and `new` (the user did not meet it before; negatives
            never are of the history, so a positive that is can be told by it).
        differences: Hit@1 less the backbone's, user by user, for every group with users.
        rank_correlation: mean Spearman correlation with the backbone's order of the candidates.
        known_correlation: that over the candidates with training interactions: of the others the backbone's order says
            nothing.
        token_correlation: that with the order which the injected tokens say, if the LLM has an interface: the text
            encoder's for its variant, none for prompts without all tokens, the item encoder's for all others.
    """

    groups: dict[str, RankingReport]
    differences: dict[str, Estimate] = Field(default_factory=dict)
    rank_correlation: float
    known_correlation: float | None = None
    token_correlation: float | None = None


class EvaluationReport(Config):
    """`report.json`.

    Attributes:
        dataset: its name.
        llm: its name.
        items: N.
        users: users who have a test item.
        ranked_users: how many of them the rankers were compared on.
        seed: of the candidates.
        rankers: by name.
        all_users: the rankers that need no LLM on all users, by name and group.
        retrieval: share of positives among the first 20 and 100 of all items, by vectors, group and `recall@K`.
        genres: how often each way of guessing names the user's favourite genre.
    """

    dataset: str
    llm: str
    items: int
    users: int
    ranked_users: int
    seed: int
    rankers: dict[str, RankerReport]
    all_users: dict[str, dict[str, RankingReport]]
    retrieval: dict[str, dict[str, dict[str, Estimate]]]
    genres: dict[str, Estimate]


@dataclass(frozen=True)
class DecodedVectors:
    """Stage 1's joint embeddings decoded into CF space.

    Attributes:
        item: (N+1, D) f_I_dec(e_i), f_I_dec(q_i) for items that the backbone never saw.
        text: (N+1, D) f_I_dec(q_i) of all items.
    """

    item: torch.Tensor
    text: torch.Tensor


def evaluate(
    split: SequenceSplit,
    contents: CatalogueModel,
    decoded: DecodedVectors,
    llm: LanguageModel,
    prompt: PromptConfig,
    config: EvaluationConfig,
    dataset: str,
    console: Console | None = None,
    checkpoint: Path | None = None,
) -> EvaluationReport:
    """Evaluate on the test items of `split`.

    Args:
        split: the data.
        contents: the tables and networks.
        decoded: stage 1's vectors.
        llm: the LLM that stage 2 was trained with.
        prompt: the prompts that stage 2 was trained with.
        config: of the stage.
        dataset: its name.
        console: where progress is shown.
        checkpoint: file that keeps the scores of finished LLM variants, so that an interrupted evaluation goes on.
    """
    everyone = draw_candidates(split, Holdout.TEST, config.seed)
    collaborative = _collaborative(split, contents, decoded, everyone, config.seed)
    backbone_name = _backbone_name(contents)
    sample = everyone.at_most(config.users)
    rows = np.searchsorted(everyone.users, sample.users)
    scores = {name: values[rows] for name, values in collaborative.items()}
    composer = PromptComposer(contents, prompt, llm.tokenizer, llm.context_length)
    scores |= _llm_scores(split, contents, llm, composer, sample, config, console, checkpoint)
    tokens: dict[str, np.ndarray] = {}
    if llm.interface is not None:
        tokens = _token_scores(split, contents, llm.interface, composer, sample, [*scores, TOKENS])
        scores[TOKENS] = tokens[TOKENS]
    groups, all_groups = _groups(split, sample), _groups(split, everyone)
    reference = scores[backbone_name]
    known = np.where(split.catalogue.warm[sample.items], reference, -np.inf)
    return EvaluationReport(
        dataset=dataset,
        llm=llm.name,
        items=len(split.catalogue),
        users=len(everyone.users),
        ranked_users=len(sample.users),
        seed=config.seed,
        rankers={
            name: RankerReport(
                groups=report(values, groups, config.resamples, config.seed),
                differences=_differences(values, reference, groups, config),
                rank_correlation=rank_correlation(values, reference),
                known_correlation=rank_correlation(values, known),
                token_correlation=rank_correlation(values, tokens[name]) if name in tokens else None,
            )
            for name, values in scores.items()
        },
        all_users={
            name: report(values, all_groups, config.resamples, config.seed) for name, values in collaborative.items()
        },
        retrieval=_retrieval(split, contents, everyone, config),
        genres=_genres(split, contents, llm, composer, config, console),
    )


def _genres(
    split: SequenceSplit,
    contents: CatalogueModel,
    llm: LanguageModel,
    composer: PromptComposer,
    config: EvaluationConfig,
    console: Console | None,
) -> dict[str, Estimate]:
    with _progress(console) as progress:
        task = progress.add_task("favourite genres", total=None, visible=False)
        return genre_agreement(
            split,
            contents,
            llm,
            composer,
            config.users,
            config.batch_tokens,
            config.seed,
            report=lambda done, total: progress.update(task, advance=done, total=total, visible=True),
        )


def _progress(console: Console | None) -> Progress:
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _backbone_name(contents: CatalogueModel) -> str:
    return type(contents.backbone).__name__


def _groups(split: SequenceSplit, candidates: Candidates) -> dict[str, np.ndarray]:
    positives = candidates.items[:, 0]
    masks = {"warm": split.warm_items, "cold": split.cold_items, "unseen": ~split.catalogue.warm}
    groups = {name: mask[positives] for name, mask in masks.items()}
    histories = _histories(split, candidates)
    new = [positive not in history for positive, history in zip(positives, histories, strict=True)]
    return groups | {"new": np.asarray(new, dtype=bool)}


def _differences(
    scores_E_C: np.ndarray, reference_E_C: np.ndarray, groups: Mapping[str, np.ndarray], config: EvaluationConfig
) -> dict[str, Estimate]:
    """By group Hit@1 less that of the reference."""
    hits, others = (hit_at(positive_ranks(scores), 1) for scores in (scores_E_C, reference_E_C))
    masks = {"overall": np.ones(len(hits), dtype=bool), **groups}
    return {
        name: paired_difference(hits[mask], others[mask], config.resamples, config.seed)
        for name, mask in masks.items()
        if mask.any()
    }


def _histories(split: SequenceSplit, candidates: Candidates) -> list[np.ndarray]:
    return [split.history(int(user), Holdout.TEST) for user in candidates.users]


def _collaborative(
    split: SequenceSplit,
    contents: CatalogueModel,
    decoded: DecodedVectors,
    candidates: Candidates,
    seed: int,
) -> dict[str, np.ndarray]:
    """Scores (E, C) of the rankers that need no LLM."""
    rng = np.random.default_rng(seed)
    noise_E_C = rng.random(candidates.items.shape)
    backbone, histories = contents.backbone, _histories(split, candidates)
    own_E_D = represent_all(backbone, histories)
    users_E_D = represent_all(backbone, histories, contents.cf_vectors)
    # Counts are whole numbers, so the noise only breaks their ties.
    popularity_E_C = split.catalogue.interactions[candidates.items] + noise_E_C
    return {
        RANDOM: np.where(candidates.mask, noise_E_C, -np.inf),
        POPULARITY: np.where(candidates.mask, popularity_E_C, -np.inf),
        _backbone_name(contents): candidate_logits(own_E_D, backbone.item_vectors, candidates.items),
        STAGE1: candidate_logits(users_E_D, decoded.item, candidates.items),
        STAGE1_TEXT: candidate_logits(users_E_D, decoded.text, candidates.items),
    }


def _llm_scores(
    split: SequenceSplit,
    contents: CatalogueModel,
    llm: LanguageModel,
    composer: PromptComposer,
    candidates: Candidates,
    config: EvaluationConfig,
    console: Console | None,
    checkpoint: Path | None,
) -> dict[str, np.ndarray]:
    """Log-probabilities (E, C) of the LLM's variants."""
    histories = _histories(split, candidates)
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    scores = _load_scores(checkpoint)
    with _progress(console) as progress:
        task = progress.add_task("evaluation", total=len(LLM_VARIANTS) * len(histories))
        for name, (injection, text_only) in LLM_VARIANTS.items():
            progress.update(task, description=name)
            if name in scores:
                progress.advance(task, len(histories))
                continue
            scores[name] = rank_with_llm(
                llm,
                composer,
                users_E_D,
                histories,
                candidates,
                injection=injection,
                text_only=text_only,
                batch_tokens=config.batch_tokens,
                seed=config.seed,
                report=lambda done: progress.advance(task, done),
            )
            _save_scores(scores, checkpoint)
    return scores


def _token_scores(
    split: SequenceSplit,
    contents: CatalogueModel,
    interface: TokenInterface,
    composer: PromptComposer,
    candidates: Candidates,
    rankers: Sequence[str],
) -> dict[str, np.ndarray]:
    """By ranker the scores (E, C) that an LLM reading the injected tokens exactly would give."""
    histories = _histories(split, candidates)
    users_E_D = represent_all(contents.backbone, histories, contents.cf_vectors)
    limit = composer.template.config.history_items
    told = [history[max(0, len(history) - limit) :] for history in histories]
    series_E_C = series_table(composer.titles, told, candidates.items)
    interface = interface.to(users_E_D.device)
    by_item, by_text = (
        np.where(
            candidates.mask,
            interface_logits(contents.projector, interface, users_E_D, table, told, candidates.items, series_E_C),
            -np.inf,
        )
        for table in (contents.joint_item, contents.joint_text)
    )
    not_told = (LLM_ONLY, WITHOUT_USER)
    return {name: by_text if name == ALLMREC_TEXT else by_item for name in rankers if name not in not_told}


def _load_scores(checkpoint: Path | None) -> dict[str, np.ndarray]:
    if checkpoint is None or not checkpoint.is_file():
        return {}
    return {name: scores.numpy() for name, scores in torch.load(checkpoint, weights_only=True).items()}


def _save_scores(scores: Mapping[str, np.ndarray], checkpoint: Path | None) -> None:
    if checkpoint is None:
        return
    partial = checkpoint.with_suffix(".partial")
    torch.save({name: torch.from_numpy(values) for name, values in scores.items()}, partial)
    partial.replace(checkpoint)


def _retrieval(
    split: SequenceSplit, contents: CatalogueModel, candidates: Candidates, config: EvaluationConfig
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Recall among all items, with the backbone's own vectors and with the bundle's index."""
    backbone, histories = contents.backbone, _histories(split, candidates)
    positives = candidates.items[:, 0]
    own = ItemIndex.build(backbone.item_vectors.detach().cpu().numpy())
    searches = {
        _backbone_name(contents): (own, represent_all(backbone, histories)),
        "Bundle index": (contents.index, represent_all(backbone, histories, contents.cf_vectors)),
    }
    groups = {"overall": np.ones(len(positives), dtype=bool), **_groups(split, candidates)}
    result = {}
    for name, (index, users_E_D) in searches.items():
        ranks = _retrieval_ranks(index, users_E_D.cpu().numpy(), histories, positives)
        result[name] = {group: _recalls(ranks[mask], config) for group, mask in groups.items() if mask.any()}
    return result


def _retrieval_ranks(
    index: ItemIndex, users_E_D: np.ndarray, histories: list[np.ndarray], positives: np.ndarray
) -> np.ndarray:
    """(E,) the positive's rank among the items that the user does not know yet; infinite if beyond the last cutoff."""
    ranks = np.full(len(positives), np.inf)
    for start in range(0, len(positives), SEARCH_ROWS):
        rows = range(start, min(start + SEARCH_ROWS, len(positives)))
        known = max(len(histories[row]) for row in rows)
        found_B_K, _ = index.search(users_E_D[start : rows.stop], min(len(index), max(RECALLS) + known))
        for row, found in zip(rows, found_B_K, strict=True):
            # A positive that the user met before counts as new, as it does among the candidates.
            new = found[~np.isin(found, histories[row]) | (found == positives[row])]
            place = np.flatnonzero(new == positives[row])
            if len(place):
                ranks[row] = place[0] + 1
    return ranks


def _recalls(ranks: np.ndarray, config: EvaluationConfig) -> dict[str, Estimate]:
    return {f"recall@{cutoff}": share_estimate(ranks <= cutoff, config.resamples, config.seed) for cutoff in RECALLS}


def summary(evaluation: EvaluationReport) -> Mapping[str, object]:
    """What a bundle's manifest carries: Hit@1 and NDCG@10 of every ranker by group, and the recall of the index."""
    return {
        "dataset": evaluation.dataset,
        "ranked_users": evaluation.ranked_users,
        "rankers": {
            name: {
                group: {metric: round(found.metrics[metric].mean, 4) for metric in ("hit@1", "ndcg@10")}
                for group, found in ranker.groups.items()
                if found.users
            }
            for name, ranker in evaluation.rankers.items()
        },
        "retrieval": {
            group: {metric: round(estimate.mean, 4) for metric, estimate in recalls.items()}
            for group, recalls in evaluation.retrieval["Bundle index"].items()
        },
    }
