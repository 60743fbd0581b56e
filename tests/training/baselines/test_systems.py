"""Every system of the papers: the behaviour suite, and what each knows of another catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from models.composer import PromptComposer
from models.engines.base import LLMEngine
from models.engines.transformers import in_process
from models.errors import DataError
from models.llm.loading import LanguageModel
from models.prompts.template import PromptConfig
from models.prompts.titles import decode_plain
from models.rankers.base import Audience, Ranker
from tests.models.rankers.suite import RankerSuite, scored
from tests.tiny_encoder import retrain, write_tiny_encoder
from training import baselines
from training.allmrec.placing import blank_model
from training.allmrec.recipe import load_recipe
from training.baselines.bench import Bench
from training.baselines.llm_only import WrittenRanker
from training.baselines.port import SYSTEMS, Shop, find_systems, system
from training.data.dataset import Dataset
from training.data.splits import Holdout, SequenceSplit
from training.evaluation.held_out import HeldOut
from training.experiments.tables import TABLES
from training.runs.stage_run import StageRun

NAMES = sorted(find_systems(baselines))
FITTED: dict[str, object] = {}


class PerCall:
    """An engine that starts for every question: each test has an event loop of its own."""

    def __init__(self, llm: LanguageModel) -> None:
        self._llm, self.tokenizer = llm, llm.tokenizer

    async def score(self, *question: object) -> list[np.ndarray]:
        async with in_process(self._llm) as engine:
            return await engine.score(*question)

    async def generate(self, *question: object):
        async with in_process(self._llm) as engine:
            async for piece in engine.generate(*question):
                yield piece


def fitted(name: str, bench: Bench):
    """Each system once, for all tests."""
    if name not in FITTED:
        FITTED[name] = SYSTEMS[name].fit(bench)
    return FITTED[name]


def shop(bench: Bench, other: Dataset | None = None) -> Shop:
    engine: LLMEngine = PerCall(bench.llm)
    split = bench.split if other is None else SequenceSplit.from_dataset(other)
    return Shop(split.catalogue, bench.prompt, engine, foreign=other is not None)


@pytest.mark.parametrize(
    "name", ["ctrl", "llm_only_likely", "llm_only_written", "mlp_llm", "morec", "recformer", "tallrec"]
)
class TestEverySystem(RankerSuite):
    @pytest.fixture
    def ranker(self, name: str, bench: Bench) -> Ranker:
        return fitted(name, bench)(shop(bench))

    @pytest.fixture
    def held_out(self, bench: Bench) -> HeldOut:
        """Six users of the shop."""
        return HeldOut.of(bench.split, Holdout.TEST, users=6)


@pytest.mark.parametrize("name", NAMES)
def test_another_catalogue_is_ranked_by_what_is_known_of_it(name: str, bench: Bench, elsewhere: Path) -> None:
    """Numbers for its items, whatever they rest on; who can know nothing at all says so."""
    other = Dataset.load(elsewhere)
    held_out = HeldOut.of(SequenceSplit.from_dataset(other), Holdout.TEST, users=4)
    if name == "mlp_llm":
        with pytest.raises(DataError, match="another catalogue"):
            fitted(name, bench)(shop(bench, other))
        return
    ranker = fitted(name, bench)(shop(bench, other))
    assert np.isfinite(scored(ranker, held_out.users, held_out.candidates.items)).all()


@pytest.mark.anyio
async def test_who_writes_a_title_as_it_was_shown_hits(bench: Bench) -> None:
    """The prompt cuts long titles, and nobody could write the rest."""
    prompt = PromptConfig(max_title_tokens=2)
    engine = PerCall(bench.llm)
    asker = PromptComposer(blank_model(bench.split.catalogue, bench.llm.token_size), prompt, engine.tokenizer, 1024)
    candidates = np.array([[3, 5, 7], [3, 5, 7]])
    shown = decode_plain(engine.tokenizer, asker.titles[5])
    assert len(shown) < len(bench.split.catalogue.titles[5])

    async def generate(*_: object) -> AsyncIterator[str]:
        yield shown

    engine.generate = generate
    users = Audience(["a", "b"], [np.array([1]), np.array([2])])
    scores = await WrittenRanker(engine, asker).score(users, candidates)
    hits = [decode_plain(engine.tokenizer, asker.titles[item]) == shown for item in (3, 5, 7)]
    assert scores.tolist() == [[float(hit) for hit in hits]] * 2


def test_systems_have_names_of_their_own() -> None:
    """A second one of the same name is refused."""
    with pytest.raises(ValueError, match="two systems named 'morec'"):
        system("morec", "Another", takes="nothing")(lambda _: lambda _: None)


def test_a_stage_is_trained_once_and_its_cost_is_kept(bench: Bench) -> None:
    """Another bench of the same settings finds it done, and what it cost then."""
    fitted("allmrec", bench)
    again = Bench(bench.dataset_path, bench.recipe, bench.directory, bench.console)
    before = {path: path.stat().st_mtime_ns for path in bench.directory.glob("*/*/done")}
    assert again.cost.seconds == 0
    SYSTEMS["allmrec"].fit(again)
    assert {path: path.stat().st_mtime_ns for path in bench.directory.glob("*/*/done")} == before
    assert again.cost.seconds > 0
    assert again.cost.memory > 1


@pytest.mark.parametrize("kind", ["ncf", "nextitnet", "gru4rec"])
def test_other_backbones_rank_alone_and_under_the_llm(kind: str, bench: Bench) -> None:
    """Table 11: by settings alone. To NCF known users are more than their histories."""
    row = next(row for row in TABLES["table11"].rows if f'backbone.kind="{kind}"' in row.settings)
    recipe = load_recipe(str(bench.directory.parent / "recipe.toml"), row.settings)
    other = Bench(bench.dataset_path, recipe, bench.directory, bench.console)
    held_out = HeldOut.of(other.split, Holdout.TEST, users=6)
    strangers = Audience([""] * 6, held_out.users.histories)
    for name in ("backbone", "allmrec"):
        ranker = SYSTEMS[name].fit(other)(shop(other))
        known, unknown = (scored(ranker, users, held_out.candidates.items) for users in (held_out.users, strangers))
        assert np.isfinite(known).all()
        assert np.allclose(known, unknown, atol=1e-4) == (kind != "ncf")


@pytest.mark.parametrize("name", ["morec", "ctrl", "recformer"])
def test_a_text_encoder_that_was_trained_again_trains_who_reads_it(
    name: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same folder, under the same name: another stage."""
    encoder = write_tiny_encoder(tmp_path, ["title"])
    settings = {**bench.recipe.baselines, name: {**bench.recipe.baselines[name], "text_encoder": encoder}}
    recipe = bench.recipe.model_copy(update={"baselines": settings})
    other = Bench(bench.dataset_path, recipe, tmp_path / "home", bench.console)
    asked_for: list[Path] = []

    def train(run: StageRun) -> None:
        asked_for.append(run.directory)
        raise InterruptedError

    monkeypatch.setattr(StageRun, "start", train)
    for change in (lambda _: None, lambda _: None, retrain):
        change(encoder)
        with pytest.raises(InterruptedError):
            SYSTEMS[name].fit(other)
    assert asked_for[0] == asked_for[1] != asked_for[2]
