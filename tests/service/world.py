"""A tiny world to serve: a random OPT with a tokenizer of its own, thirty items, and a bundle of them. Takes seconds.

Its LLM knows nothing, so tests say what the service does with an LLM's answers, not whether they are good.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from fastapi import FastAPI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from models.alignment.projection import TokenProjector
from models.backbones import BACKBONES, create_backbone
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.bundle.manifest import LLMRecord, Origin
from models.bundle.signal_tables import SignalTables
from models.bundle.store import write_bundle
from models.catalogue import Catalogue
from models.domain import DOMAINS
from models.engines.base import LLMEngine
from models.errors import EngineError, OverloadedError
from models.histories import UserHistories
from models.llm.loading import load_llm, load_tokenizer
from models.prompts.anchor import reading_of
from models.prompts.layout import Prompt
from models.prompts.template import PromptConfig
from models.rankers.of_model import ENCODER, INJECTED, SECOND, TITLES
from models.scoring.choices import Branching
from service.app import EngineFactory, create_app, create_engine
from service.settings import Settings
from tests.device import DEVICE
from tests.tiny import tiny_blends, tiny_head, tiny_title_projector
from training.allmrec.signals import SignalsConfig, build_signals
from training.data.splits import SequenceSplit

ITEMS = 30
WARM = 24
USER_SIZE, JOINT_SIZE = 8, 12
GENRES = ("Drama", "Comedy", "Thriller", "Science Fiction")
LONG_USER, EARLIER = "u19", (25, 26, 27)
"""A user who met these items before the history that the bundle keeps."""
WORDS = ("red", "silent", "winter", "ocean", "broken", "golden", "night", "river", "last", "stone")


@dataclass(frozen=True)
class World:
    """Where things lie, and ids to use.

    Attributes:
        bundle: a bundle home.
        llm: path of the LLM it was aligned with.
        user_id: a user known in training, with a history of ten items.
    """

    bundle: Path
    llm: Path
    user_id: str = "u0"
    item_ids: tuple[str, ...] = tuple(f"i{number}" for number in range(1, ITEMS + 1))
    settings: dict[str, Any] = field(default_factory=dict)

    def settings_for(self, directory: Path, **changes: Any) -> Settings:
        """Settings to serve this world with; whatever a service writes goes into `directory`."""
        values = {
            "bundle": self.bundle,
            "llm": str(self.llm),
            "redis_dir": directory / "redis",
            "log_level": "error",
            "timeout_ms": 20_000,
            "torch_threads": 1,
            "engine_process": False,  # seconds of imports for each service
            "device": DEVICE,
        }
        return Settings(_env_file=None, **{**values, **changes})  # type: ignore[call-arg]


def make_llm(directory: Path) -> Path:
    """A random OPT of a few thousand weights, with a byte-level BPE tokenizer trained on the spot."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [f'{a} {b} "{genre}", because' for a in WORDS for b in WORDS for genre in GENRES]
    tokenizer.train_from_iterator(corpus, trainer)
    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(fast),
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    OPTForCausalLM(config).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def make_contents(token_size: int, seed: int = 0, kind: str = "sasrec") -> CatalogueModel:
    """Thirty items in four genres, six of them cold, and twenty users; all networks random, the backbone of a kind."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    titles = [f"{a} {b}" for a in WORDS for b in WORDS if a != b][:ITEMS]
    interactions = np.concatenate([random.integers(1, 50, WARM), np.zeros(ITEMS - WARM, dtype=int)])
    catalogue = Catalogue(
        item_ids=[f"i{number}" for number in range(1, ITEMS + 1)],
        titles=titles,
        descriptions=[f"About {title}." for title in titles],
        categories=[(GENRES[number % 4],) for number in range(ITEMS)],
        interactions=interactions,
    )
    histories = [random.permutation(WARM)[:length] + 1 for length in [10, *random.integers(1, 12, 19)]]
    config = {"num_items": ITEMS, "embedding_size": USER_SIZE, "max_length": 10}
    sizes = {"num_users": len(histories)} if BACKBONES[kind][0].reads_users else {}
    backbone = create_backbone(kind, config | sizes).eval()
    for weight in backbone.parameters() if sizes else ():
        torch.nn.init.normal_(weight)
    cf_vectors = backbone.item_vectors.detach().clone()
    cf_vectors[WARM + 1 :] = torch.randn(ITEMS - WARM, USER_SIZE) * cf_vectors[1:WARM].std()
    joint = torch.randn(ITEMS + 1, JOINT_SIZE)
    joint[0] = 0
    return CatalogueModel(
        catalogue=catalogue,
        histories=UserHistories([f"u{number}" for number in range(20)], histories),
        backbone=backbone,
        cf_vectors=cf_vectors,
        joint_item=joint,
        joint_text=joint,
        joint_genre=catalogue.genre_centroids(joint),
        projector=TokenProjector(USER_SIZE, JOINT_SIZE, token_size),
        index=ItemIndex.build(cf_vectors.numpy()),
        alignment={"weight": torch.zeros(1)},
        signals=make_signals(catalogue, histories),
        earlier=UserHistories([LONG_USER], [EARLIER]),
    )


def make_signals(catalogue: Catalogue, histories: list[np.ndarray]) -> SignalTables:
    """What training would make of histories and random text vectors."""
    nobody = np.zeros(len(histories), dtype=np.int64)
    split = SequenceSplit([str(user) for user in range(len(histories))], catalogue, histories, nobody, nobody)
    return build_signals(split, torch.randn(len(catalogue) + 1, 6).numpy(), SignalsConfig(neighbours=5))


def make_world(
    directory: Path,
    kind: str = "sasrec",
    llm_path: Path | None = None,
    llm_signals: Sequence[str] = ("allmrec",),
    second: str | None = None,
) -> World:
    """Write a bundle with a kind of backbone, or two, and an LLM unless given; the blend weighs `llm_signals`."""
    llm_path = llm_path or make_llm(directory / "llm")
    llm = load_llm(str(llm_path))
    contents = make_contents(llm.token_size, kind=kind)
    local = ["cf", "words_best"]
    if second is not None:
        contents, local = replace(contents, second=make_contents(llm.token_size, 1, second).backbone), [*local, SECOND]
    if {TITLES, INJECTED} & {*llm_signals}:
        contents = replace(contents, title_log_probs=np.linspace(-1.0, -9.0, ITEMS + 1, dtype=np.float32))
    if INJECTED in llm_signals:
        projector = tiny_title_projector(llm.token_size, USER_SIZE, contents.joint_item.shape[1])
        contents = replace(contents, title_projector=projector)
    if ENCODER in llm_signals:
        contents = replace(contents, user_head=tiny_head(llm.token_size, USER_SIZE))
    home = directory / "bundles" / "tiny"
    write_bundle(
        home,
        contents,
        Origin(
            name="tiny",
            prompt=PromptConfig(domain=DOMAINS["movie"]),
            llm=LLMRecord(name=str(llm_path), fingerprint=llm.fingerprint, reading=reading_of(llm.tokenizer)),
            text_encoder="none",
            blends=tiny_blends(llm=llm_signals, local=local),
            metrics={},
        ),
        lambda folder: folder.mkdir(),
    )
    return World(home, llm_path)


class FakeEngine:
    """An `LLMEngine` that does as it is told.

    It likes choices in the order of the alphabet of their tokens' numbers: branch logits fall with the child's place.

    Attributes:
        seconds: how long it takes for an answer, and for a piece of text.
        failure: raised instead of answering.
        texts: what it writes, piece by piece, call by call.
        cancelled: how many calls were cancelled.
        calls: how many calls were made.
    """

    def __init__(self, llm: str, fingerprint: str) -> None:
        self.tokenizer = load_tokenizer(llm)
        self.token_size = 32
        self.context_length = 1024
        self.depth = 64
        self.fingerprint = fingerprint
        self.healthy = True
        self.seconds = 0.0
        self.failure: Exception | None = None
        self.texts: Iterator[list[str]] = cycle([[" it", " is good", "."]])
        self.calls = 0
        self.cancelled = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def score(self, _: Prompt, trie: Branching, due: float | None = None) -> list[np.ndarray]:  # noqa: ARG002
        """Falling logits, after `seconds`, or `failure`."""
        await self._work()
        return [-np.arange(len(branch.children), dtype=np.float32) for branch in trie.branches]

    async def encode(self, _: Prompt, places: np.ndarray, due: float | None = None) -> np.ndarray:  # noqa: ARG002
        """Rising states, after `seconds`, or `failure`."""
        await self._work()
        return np.tile(np.arange(self.token_size, dtype=np.float32), (len(places), 1))

    async def generate(self, *_: Any) -> AsyncIterator[str]:
        """The next of `texts`, each piece after `seconds`."""
        for piece in next(self.texts):
            await self._work()
            yield piece

    async def _work(self) -> None:
        self.calls += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure


def fake_engine(world: World) -> FakeEngine:
    """A fake engine that passes for the world's LLM."""
    return FakeEngine(str(world.llm), load_llm(str(world.llm)).fingerprint)


def overloaded() -> OverloadedError:
    """What a full engine raises."""
    return OverloadedError("256 requests already wait")


def broken() -> EngineError:
    """What a broken engine raises."""
    return EngineError("the LLM failed")


@asynccontextmanager
async def serving(
    settings: Settings, engine: LLMEngine | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    """A client of a service that is ready, in this process and without a socket."""
    factory: EngineFactory = create_engine if engine is None else lambda _settings, _llm: engine
    failures: list[BaseException] = []
    record: Callable[[BaseException], None] = failures.append
    app = create_app(settings, engine_factory=factory, on_failure=record)
    async with app.router.lifespan_context(app):
        await app.state.starting
        if failures:
            raise failures[0]
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client, app
