"""Favourite genres (A-LLMRec, Figures 4 and 5): chosen among all by their exact probabilities, and written freely.

The prompt is that of explanations. Who writes need not keep to the genres that it lists: it counts as an answer if a
genre stands in it, and as right if the first one is the genre that most items of the user's history have.

Axes: E users, G genres.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, ValidationError

from models.composer import PromptComposer
from models.config import Config
from models.engines.base import LLMEngine
from models.engines.transformers import in_process
from models.errors import DataError
from models.files import written_atomically
from models.llm.loading import LanguageModel
from models.prompts.layout import Injection
from models.rankers.llm import answer, each
from models.threads import one_thread
from training.allmrec.genres import MOST_COMMON, GenreQuiz
from training.baselines.bench import Bench
from training.baselines.tallrec import tuned_llm
from training.evaluation.metrics import Estimate, share_among
from training.evaluation.report import interval, markdown_head, markdown_row
from training.experiments.run import ANSWERS, Ground
from training.experiments.scenarios import OVERALL
from training.experiments.tables import ALLMREC, LLM_ONLY, TALLREC

FIGURES: dict[str, tuple[str, ...]] = {
    "figure4": (LLM_ONLY.title, ALLMREC.title),
    "figure5": (LLM_ONLY.title, TALLREC.title, ALLMREC.title),
}
"""Who is asked, by the paper's numbering."""
WRITTEN_TOKENS = 16
STOP = '"'
EXAMPLES = 3
FEWEST_GENRES = 2


class GenreAnswers(Config):
    """What one system said of each user.

    Attributes:
        chosen: the genre with the highest probability.
        written: what it wrote.
    """

    chosen: list[str]
    written: list[str]


class GenreReport(Config):
    """A figure.

    Attributes:
        figure: its id.
        dataset: its name.
        seeds: how many.
        genres: names of all.
        users: who was asked about, seed after seed.
        favorites: of each of them.
        common: the favourite that most users have, whom nothing was asked about.
        answers: by system.
        chosen: how often that was right, by system; with what the most common favourite would have.
        written: likewise.
        answered: how often any genre was named.
    """

    figure: str
    dataset: str
    seeds: int
    genres: list[str]
    users: list[str]
    favorites: list[str]
    common: list[str]
    answers: dict[str, GenreAnswers]
    chosen: dict[str, Estimate] = Field(default_factory=dict)
    written: dict[str, Estimate] = Field(default_factory=dict)
    answered: dict[str, Estimate] = Field(default_factory=dict)


def run_figure(figure: str, ground: Ground, seeds: int) -> GenreReport:
    """Ask about favourite genres.

    Raises:
        DataError: the dataset has no genres, or nobody has a favourite.
    """
    said: dict[str, GenreAnswers] = {}
    users: list[str] = []
    favorites: list[str] = []
    common: list[str] = []
    for seed in range(seeds):
        bench = ground.bench(ALLMREC, OVERALL, seed)
        quiz = _quiz(bench)
        genres = list(bench.split.catalogue.genres)
        users += list(quiz.user_ids)
        favorites += [genres[favorite] for favorite in quiz.favorites]
        common += [genres[np.bincount(quiz.taught).argmax()]] * len(quiz.favorites)
        for name in FIGURES[figure]:
            ground.console.print(f"{figure}, seed {seed}: {name}", highlight=False, style="bold")
            found = _kept(name, bench, quiz, ground.home / ANSWERS)
            before = said.get(name, GenreAnswers(chosen=[], written=[]))
            said[name] = GenreAnswers(chosen=before.chosen + found.chosen, written=before.written + found.written)
    head: dict[str, Any] = {"figure": figure, "dataset": ground.name, "seeds": seeds, "genres": genres}
    return recompute(GenreReport(**head, users=users, favorites=favorites, common=common, answers=said))


def _quiz(bench: Bench) -> GenreQuiz:
    quiz = GenreQuiz.of(bench.split, bench.recipe.evaluation.llm_users, bench.recipe.seed)
    genres = len(bench.split.catalogue.genres)
    if genres < FEWEST_GENRES or quiz.is_empty:
        raise DataError(
            f"{bench.dataset.info.name} has {genres} genres and {len(quiz.favorites)} users with a favourite: favourite"
            " genres need items with categories"
        )
    return quiz


def _kept(name: str, bench: Bench, quiz: GenreQuiz, home: Path) -> GenreAnswers:
    """What a system says, asked once: kept under all that it follows from, for both figures."""
    whole = name == ALLMREC.title
    made_from = bench.identities(ALLMREC.system, rests_on_llm=True) if whole else bench.llm.identity
    told = [name, bench.recipe.model_dump_json(), bench.fingerprint, *made_from.items(), *quiz.user_ids]
    path = home / f"genres-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]}.json"
    try:
        return GenreAnswers.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        found = _asked(name, bench, quiz)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as partial:
        partial.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return found


def _asked(name: str, bench: Bench, quiz: GenreQuiz) -> GenreAnswers:
    injection = Injection.ALL if name == ALLMREC.title else Injection.NONE
    llm = tuned_llm(bench) if name == TALLREC.title else bench.llm
    composer = PromptComposer(bench.model, bench.prompt, llm.tokenizer, llm.context_length)
    with one_thread():
        return asyncio.run(_answers(llm, composer, quiz, injection))


async def _answers(llm: LanguageModel, composer: PromptComposer, quiz: GenreQuiz, injection: Injection) -> GenreAnswers:
    users_E_D: torch.Tensor = composer.model.user_vectors(quiz.histories, quiz.user_ids)
    chosen, written = [""] * len(quiz.histories), [""] * len(quiz.histories)
    async with in_process(llm) as engine:

        async def ask(row: int) -> None:
            question = composer.favorite_genre(users_E_D[row], quiz.histories[row].tolist(), injection=injection)
            chosen[row] = composer.genres[int((await answer(engine, question)).argmax())]
            written[row] = await _written(engine, question.prompt)

        await each(ask, range(len(quiz.histories)))
    return GenreAnswers(chosen=chosen, written=written)


async def _written(engine: LLMEngine, prompt: Any) -> str:
    return "".join([piece async for piece in engine.generate(prompt, WRITTEN_TOKENS, (STOP,))]).removesuffix(STOP)


def named(text: str, genres: Sequence[str]) -> str | None:
    """The genre that `text` names first, of two at the same place the longer one; None if it names none."""
    places = {genre: _place(text.lower(), genre.lower()) for genre in genres}
    found = [genre for genre, place in places.items() if place is not None]
    return min(found, key=lambda genre: (places[genre], -len(genre)), default=None)


def _place(text: str, genre: str) -> int | None:
    """Where a genre stands first as a word of its own, or as several of it; in scripts without capitals, which may have
    no spaces, anywhere."""
    for found in re.finditer(f"{re.escape(genre)}(?:e?s)?", text):
        edges = text[: found.start()][-1:], text[found.end() :][:1]
        if not any(edge.upper() != edge.lower() or edge.isdigit() for edge in edges):
            return found.start()
    return None


def recompute(report: GenreReport) -> GenreReport:
    """The same report with its figures worked out from the answers in it."""
    favorites, users = np.asarray(report.favorites), np.asarray(report.users)
    chosen = {name: np.asarray(said.chosen) == favorites for name, said in report.answers.items()}
    names = {
        name: np.asarray([named(text, report.genres) or "" for text in said.written])
        for name, said in report.answers.items()
    }
    hits = {MOST_COMMON: np.asarray(report.common) == favorites, **chosen}
    return report.model_copy(
        update={
            "chosen": {name: share_among(right, users) for name, right in hits.items()},
            "written": {name: share_among(found == favorites, users) for name, found in names.items()},
            "answered": {name: share_among(found != "", users) for name, found in names.items()},
        }
    )


def write_figure(report: GenreReport, directory: Path) -> Path:
    """Write `<figure>.json`, `.md` and `.png` into `directory`; returns the path of the second."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{report.figure}.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    path = directory / f"{report.figure}.md"
    path.write_text(markdown(report), encoding="utf-8")
    plot(report, directory / f"{report.figure}.png")
    return path


def markdown(report: GenreReport) -> str:
    """Shares with intervals, and what was written of the first users."""
    lines = [
        f"## {report.figure.replace('figure', 'Figure ')}: Favourite genre ({report.dataset})",
        "",
        f"{report.seeds} seed{'s' * (report.seeds > 1)}, {len(report.favorites)} users, {len(report.genres)} genres.",
        "",
        *markdown_head("System", ["chosen, right", "written, right", "written, any genre"]),
    ]
    for name, share in report.chosen.items():
        others = [_shown(table, name) for table in (report.written, report.answered)]
        lines.append(markdown_row(name, [interval(share), *others]))
    lines += ["", "What was written of the first users:", "", *markdown_head("Favourite", list(report.answers))]
    for row, favorite in enumerate(report.favorites[:EXAMPLES]):
        texts = [said.written[row].replace("|", "/").replace("\n", " ") for said in report.answers.values()]
        lines.append(markdown_row(favorite, [f"`{text}`" if text.strip() else "-" for text in texts]))
    return "\n".join(lines) + "\n"


def plot(report: GenreReport, path: Path) -> None:
    """How often each was right, chosen and written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 1 + 0.4 * len(report.chosen)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, table) in zip(
        figure.subplots(1, 2, sharey=True), {"chosen": report.chosen, "written": report.written}.items(), strict=True
    ):
        axes.barh(list(table), [share.mean for share in table.values()], color="tab:blue")
        axes.set(title=f"{title}, right", xlim=(0, 1))
    figure.savefig(path, dpi=120)


def _shown(table: Mapping[str, Estimate], name: str) -> str:
    return interval(table[name]) if name in table else "-"
