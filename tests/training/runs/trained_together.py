"""What the test of several processes runs in each: every stage that trains, on worlds of a few users, in seconds.

`python -m tests.training.runs.trained_together FOLDER` leaves the stages in folders there.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from models.bundle.catalogue_model import CatalogueModel
from models.domain import DOMAINS
from models.llm.loading import load_tokenizer
from models.prompts.template import PromptConfig
from tests.tiny import save_tiny_llm, tiny_contents, tiny_llm, tiny_split
from tests.tiny_encoder import write_tiny_encoder
from tests.training.pretraining.conftest import small
from training.allmrec.stage1.config import Stage1Config
from training.allmrec.stage1.stage import train_stage1
from training.allmrec.stage2.config import Stage2Config
from training.allmrec.stage2.examples import ExampleConfig
from training.allmrec.stage2.inputs import ItemTexts, Stage2Inputs
from training.allmrec.stage2.stage import train_stage2
from training.allmrec.title_tokens.config import TitleTokensConfig
from training.allmrec.title_tokens.stage import train_title_tokens
from training.allmrec.tuned import TuningData
from training.backbones.config import BackboneTrainingConfig
from training.backbones.train import train_backbone
from training.llm2rec.config import LLM2RecConfig
from training.llm2rec.corpus import Domain
from training.llm2rec.stages import LLM2Rec
from training.pretraining.pretrain import pretrain
from training.runs.distributed import processes
from training.runs.loop import LoopConfig
from training.runs.stage_run import StageRun
from training.tuning.config import TunedLLMConfig
from training.tuning.tune import tune_llm

CONSOLE = Console(quiet=True)
TUNED_LOOP = LoopConfig(max_steps=4, validate_first=True)


def main(folder: Path) -> None:
    """Train everything."""
    torch.set_num_threads(1)
    split = tiny_split()
    for objective in ("bce", "sampled_softmax", "softmax"):
        settings = {"embedding_size": 8, "max_length": 10, "dropout": 0.0}
        backbone = BackboneTrainingConfig(
            settings=settings, objective=objective, negatives=9, batch_size=7, loop=LoopConfig(epochs=2)
        )
        run = StageRun(folder / objective, backbone, 0, {}, CONSOLE)
        trained = train_backbone(split, backbone, run)

    encoder = processes().alone(lambda: str(write_tiny_encoder(folder, ["title", *map(str, range(31))], dropout=0.0)))
    heads = LoopConfig(max_steps=4)
    stage1 = Stage1Config(text_encoder=encoder, joint_size=12, heads=heads, loop=heads, refit=heads)
    run = StageRun(folder / "stage1", stage1, 0, {}, CONSOLE)
    train_stage1(split, trained, stage1, run)

    train_on_prompts(folder)
    train_llm2rec(folder)
    train_tuned(folder)
    together = len(processes().gather(0))
    processes().alone(lambda: (folder / "processes").write_text(str(together)))


def train_on_prompts(folder: Path) -> None:
    """Stage 2, tokens in lists of titles and pre-training."""
    split, llm = tiny_split(), tiny_llm(interface=True)
    model: CatalogueModel = tiny_contents(split)
    texts = ItemTexts(torch.randn(31, 6, generator=torch.Generator().manual_seed(0)), model.cf_vectors)
    inputs = Stage2Inputs(split, model, texts, llm, PromptConfig(domain=DOMAINS["movie"], history_items=5))
    examples = ExampleConfig(candidates=5, history_items=5, batch_tokens=1500)
    stage2 = Stage2Config(examples=examples, validation_users=5, loop=LoopConfig(max_steps=4))
    run = StageRun(folder / "stage2", stage2, 0, {}, CONSOLE)
    train_stage2(inputs, stage2, run)

    told = replace(inputs, model=replace(model, title_log_probs=np.linspace(-9.0, -1.0, 31, dtype=np.float32)))
    titles = TitleTokensConfig(examples=examples, validation_users=5, loop=LoopConfig(max_steps=4, validate_first=True))
    run = StageRun(folder / "title_tokens", titles, 0, {}, CONSOLE)
    train_title_tokens(told, titles, run, folder / "answers.sqlite")

    pretraining = small()
    run = StageRun(folder / "pretrain", pretraining, 0, {}, CONSOLE)
    pretrain(pretraining, load_tokenizer("embedded"), run)


def train_llm2rec(folder: Path) -> None:
    """Its stages, with nine texts of a batch for two."""
    llm = folder / "llm"
    processes().alone(lambda: save_tiny_llm(llm))
    loop = {"max_steps": 4}
    config = LLM2RecConfig.model_validate(
        {
            "llm": str(llm),
            "max_title_tokens": 16,
            "max_text_tokens": 16,
            "csft": {"batch_tokens": 128, "lora": {"dropout": 0.0}, "loop": {**loop, "monitor": "log_likelihood"}},
            "mntp": {"batch_size": 9, "lora": {"dropout": 0.0}, "loop": loop},
            "contrastive": {"batch_size": 9, "dropout": 0.0, "lora": {"dropout": 0.0}, "loop": loop},
        }
    )
    LLM2Rec([Domain("tiny", tiny_split())], config, folder / "llm2rec", CONSOLE).encoder()


def train_tuned(folder: Path) -> None:
    """An LLM that ranks titles, with batches of five for two."""
    config = TunedLLMConfig(llm=str(folder / "llm"), negatives=4, batch_lists=5, validation_users=5, loop=TUNED_LOOP)
    tune_llm(tiny_split(), DOMAINS["movie"], config, TuningData("", "", "last"), folder / "tuned", CONSOLE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
