"""A catalogue, a backbone and an LLM small enough to build in every test that needs the whole chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from models.alignment.projection import TitleProjector, TokenProjector
from models.alignment.user_head import UserHead
from models.backbones import create_backbone
from models.bundle.blend import Blend, Blends, GenreBlends, Lift, SignalWeight
from models.bundle.catalogue_model import CatalogueModel
from models.bundle.index import ItemIndex
from models.catalogue import Catalogue
from models.histories import UserHistories
from models.llm.checkpoint import fingerprint
from models.llm.law import ExactReader
from models.llm.loading import LanguageModel
from models.llm.token_interface import TokenInterface
from models.rankers.of_model import WAYS
from models.recommending.genres import GenreSignals
from training.allmrec.signals import SignalsConfig, build_signals
from training.data.sequences import Sequences
from training.data.splits import SequenceSplit

UNK, PAD, END = "<unk>", "<pad>", "</s>"
TOKEN_SIZE = 32
CF_SIZE = 8
JOINT_SIZE = 12
FIRST_SECOND, WEEK_SECONDS = 1_500_000_000, 604_800


def tiny_llm(interface: bool = False, seed: int = 0) -> LanguageModel:
    """A random two-layer OPT with a byte-level tokenizer; with an interface of 8 and 4 coordinates on request."""
    torch.manual_seed(seed)
    tokenizer = Tokenizer(BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=320,
        special_tokens=[UNK, PAD, END],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(['This user has watched "Title 1", "Title 2". The recommendation is "'], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNK, pad_token=PAD, bos_token=END, eos_token=END
    )
    config = OPTConfig(
        vocab_size=320,
        hidden_size=TOKEN_SIZE,
        word_embed_proj_dim=TOKEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=1024,
        dropout=0.0,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
    )
    model = OPTForCausalLM(config).eval().requires_grad_(False)
    basis = torch.linalg.qr(torch.randn(TOKEN_SIZE, TOKEN_SIZE))[0]
    convention = TokenInterface(
        torch.randn(3, TOKEN_SIZE), basis[:8], basis[8:16], basis[16:20], basis[20], basis[21], coupling=0.25
    )
    return LanguageModel(
        name="tiny",
        model=model,
        tokenizer=fast,
        fingerprint=fingerprint(config.to_dict(), model.state_dict().items()),
        interface=convention if interface else None,
    )


def save_tiny_llm(directory: Path) -> str:
    """The folder of `tiny_llm`, as one by path."""
    loaded = tiny_llm()
    loaded.model.save_pretrained(directory)
    loaded.tokenizer.save_pretrained(directory)
    return str(directory)


def tiny_split(users: int = 40, items: int = 30, unseen: int = 3, seed: int = 0) -> SequenceSplit:
    """Users who watch 4 to 9 different items, one a week; the last `unseen` items are held-out targets at most."""
    rng = np.random.default_rng(seed)
    train, validation, test = [], [], []
    for _ in range(users):
        length = int(rng.integers(4, 10))
        watched = 1 + rng.permutation(items - unseen)[:length]
        if rng.random() < 0.3:
            watched[-1] = items - int(rng.integers(unseen))
        train.append(watched[:-2])
        validation.append(watched[-2])
        test.append(watched[-1])
    counts = np.bincount(np.concatenate(train), minlength=items + 1)[1:]
    catalogue = Catalogue(
        item_ids=[f"i{number}" for number in range(1, items + 1)],
        titles=[f"Title {number}" for number in range(1, items + 1)],
        descriptions=[""] * items,
        categories=[("even",) if number % 2 == 0 else ("odd",) for number in range(1, items + 1)],
        interactions=counts,
    )
    names = [f"u{number}" for number in range(users)]
    weekly = Sequences.of(FIRST_SECOND + WEEK_SECONDS * np.arange(len(watched) + 2) for watched in train)
    return SequenceSplit(names, catalogue, train, np.asarray(validation), np.asarray(test), weekly)


def sequel_split(users: int = 60, items: int = 30) -> SequenceSplit:
    """Users who watch first parts only, and at last the second parts of two that they watched."""
    split = tiny_split(users, items)
    train = [np.unique(watched - (watched + 1) % 2) for watched in split.train]
    catalogue = Catalogue(
        item_ids=split.catalogue.item_ids[1:],
        titles=[f"{chr(65 + number // 2)}{chr(97 + number // 2)}{number}" for number in range(items)],
        descriptions=[""] * items,
        categories=[()] * items,
        interactions=np.bincount(np.concatenate(train), minlength=items + 1)[1:],
    )
    validation, test = (np.asarray([watched[place] + 1 for watched in train]) for place in (0, -1))
    return SequenceSplit(split.user_ids, catalogue, train, validation, test)


def tiny_contents(
    split: SequenceSplit, token_size: int = TOKEN_SIZE, seed: int = 0, kind: str = "sasrec"
) -> CatalogueModel:
    """Random tables and networks for the items of `split`, with a backbone of some kind."""
    torch.manual_seed(seed)
    items = len(split.catalogue)
    backbone = create_backbone(kind, {"num_items": items, "embedding_size": CF_SIZE, "max_length": 10, "dropout": 0.0})
    backbone = backbone.eval().requires_grad_(False)
    cf_vectors = backbone.item_vectors.detach().clone()
    joint_item = torch.sigmoid(cf_vectors @ torch.randn(CF_SIZE, JOINT_SIZE) * 3)
    joint_text = torch.sigmoid(cf_vectors @ torch.randn(CF_SIZE, JOINT_SIZE) * 3)
    return CatalogueModel(
        catalogue=split.catalogue,
        histories=UserHistories(split.user_ids, [split.full_history(user) for user in range(len(split))]),
        backbone=backbone,
        cf_vectors=cf_vectors,
        joint_item=joint_item,
        joint_text=joint_text,
        joint_genre=split.catalogue.genre_centroids(joint_item),
        projector=TokenProjector(CF_SIZE, JOINT_SIZE, token_size),
        index=ItemIndex.build(cf_vectors.numpy()),
        alignment={"decoder.weight": torch.randn(CF_SIZE, JOINT_SIZE)},
        signals=build_signals(split, torch.randn(items + 1, 6).numpy(), SignalsConfig(neighbours=5)),
        decoded_item=torch.roll(cf_vectors, 1, dims=0),
        decoded_text=torch.roll(cf_vectors, 2, dims=0),
    )


def tiny_head(state_size: int = TOKEN_SIZE, user_size: int = CF_SIZE, seed: int = 0) -> UserHead:
    """A random head for the states of an LLM."""
    torch.manual_seed(seed)
    head = UserHead(state_size, 16, user_size)
    head.standardise(torch.randn(50, state_size) * 2 + 1)
    return head.eval().requires_grad_(False)


def tiny_title_projector(
    token_size: int = TOKEN_SIZE, user_size: int = CF_SIZE, joint_size: int = JOINT_SIZE
) -> TitleProjector:
    """Random projections into lists of titles, which take half of what is likely anyway."""
    torch.manual_seed(0)
    projector = TitleProjector(user_size, joint_size, token_size)
    projector.prior_share.data.fill_(0.5)
    return projector.eval().requires_grad_(False)


def tiny_blends(
    certain: bool = True, llm: Sequence[str] = ("allmrec",), local: Sequence[str] = ("cf", "words_best")
) -> Blends:
    """A blend of signals without an LLM, and one with the LLM's signals beside them, whose lift is certain or not."""
    low = 0.01 if certain else -0.01
    lift = Lift(ndcg=(0.02, low, 0.03), log_likelihood=(0.02, low, 0.03))
    signals = [
        SignalWeight(
            id=name,
            title=name,
            centred=name in WAYS,
            mean=0.0,
            scale=1.0,
            weight=1.0,
            scarcity_weight=0.5,
            lift=lift,
        )
        for name in (*local, *llm)
    ]
    without = Blend(signals=tuple(signals[: len(local)]), cold_below=2.0)
    with_llm = without.model_copy(update={"signals": tuple(signals)})
    return Blends(blend=without, llm=with_llm, llm_lift=lift, genres=tiny_genre_blends())


def tiny_genre_blends() -> GenreBlends:
    """Every signal weighs the same."""
    signals = tuple(
        SignalWeight(id=name, title=title, centred=True, mean=0.0, scale=1.0, weight=1.0, scarcity_weight=0.0)
        for name, title in GenreSignals.TITLES.items()
    )
    local = tuple(signal for signal in signals if signal.id in GenreSignals.LOCAL)
    return GenreBlends(blend=Blend(signals=local, cold_below=0.0), llm=Blend(signals=signals, cold_below=0.0))


@torch.inference_mode()
def law_logits(
    reader: ExactReader,
    users_E_D: torch.Tensor,
    joint_N_2J: torch.Tensor,
    histories: Sequence[np.ndarray],
    items_E_C: np.ndarray,
    series_E_C: np.ndarray,
) -> np.ndarray:
    """(E, C) logits of candidates `items_E_C`.

    Args:
        reader: reads the tokens.
        users_E_D: x_u.
        joint_N_2J: joint embeddings of all items, by number.
        histories: E arrays of the items shown.
        items_E_C: item numbers.
        series_E_C: which candidates are of a series that the history holds.
    """
    items_N_Y = reader.items(joint_N_2J)
    users_E_Y1 = reader.users_of(users_E_D, items_N_Y, histories)
    candidates_E_C_Y = items_N_Y[torch.from_numpy(items_E_C).to(joint_N_2J.device)]
    return reader.logits(users_E_Y1, candidates_E_C_Y, torch.from_numpy(series_E_C).to(users_E_Y1)).cpu().numpy()
