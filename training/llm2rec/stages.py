"""LLM2Rec from an LLM and catalogues to an encoder: CSFT, MNTP, contrastive learning, each on what the last one left.

A stage begins by loading the LLM and adding to it what the stages before it learned, so that one which was
interrupted, or is run anew with other settings, begins exactly as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from models.devices import check_devices
from models.llm.checkpoint import fingerprint_checkpoint
from models.llm.loading import load_tokenizer, resolve
from training.llm2rec.config import (
    VARIANTS,
    ContrastiveConfig,
    CSFTConfig,
    LLM2RecConfig,
    MNTPConfig,
    Stage,
    TuningConfig,
)
from training.llm2rec.contrastive import Contrastive
from training.llm2rec.corpus import Corpus, Domain, item_texts
from training.llm2rec.csft import CSFT
from training.llm2rec.encoder import Record, write_encoder
from training.llm2rec.mntp import MNTP
from training.llm2rec.model import Tuning, load_model, see_both_ways
from training.llm2rec.start_token import with_start_token
from training.runs.loop import Task, seed_everything
from training.runs.stage_run import StageRun

WEIGHTS_FILE = "weights.safetensors"
ENCODER_FOLDER = "encoder"
Chain = tuple[Stage, ...]


class _Trained(Protocol):
    def task(self, model: Any, weights: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Task[Any]:
        """What the loop drives."""


class LLM2Rec:
    """A run: stages are in `stages/`, and every variant in a folder of its name, with its `encoder`.

    Args:
        domains: catalogues to learn from, mixed.
        config: how.
        directory: of the run; what is done there is not done again.
        console: for progress.

    Raises:
        ConfigError: the LLM's tokenizer cannot be loaded or used.
    """

    def __init__(
        self, domains: Sequence[Domain], config: LLM2RecConfig, directory: Path, console: Console | None = None
    ) -> None:
        check_devices([config.device])
        self.config, self.directory, self._console = config, directory, console
        self.tokenizer = with_start_token(load_tokenizer(config.llm))
        self.corpus = Corpus(domains, self.tokenizer, config)

    def encoder(self, variant: str = "llm2rec") -> Path:
        """The folder of the encoder, made if need be.

        Args:
            variant: a key of `VARIANTS`.

        Raises:
            ConfigError: the LLM is of a family that this cannot be done with.
            DataError: there is nothing to learn from.
            Interrupted: by Ctrl-C; the same call goes on.
        """
        chain = VARIANTS[variant]
        self.corpus.check(chain)
        done = [self._trained(chain[: place + 1]) for place in range(len(chain))]
        inputs = self._inputs | {"stages": " ".join(run.output for run in done)}
        run = StageRun(self.directory / variant, self.config, self.config.seed, inputs, self._console)
        if not run.is_done:
            run.start()
            if alike := self.corpus.alike:
                cut = f"cut at {self.config.max_text_tokens} tokens (max_text_tokens)"
                run.say(f"warning: {alike:,} items' texts are those of others once they are {cut}, and so are vectors")
            domain = self.corpus.domains[0]
            titles = {each.name: each.titles_fingerprint for each in self.corpus.domains}
            record = Record(llm=self.config.llm, stages=list(chain), domains=titles)
            run.alone(
                lambda: write_encoder(
                    self.model(chain),
                    self.tokenizer,
                    run.directory / ENCODER_FOLDER,
                    max_tokens=self.config.max_text_tokens,
                    record=record,
                    probes=item_texts(domain.split.catalogue, self.config.texts)[1:],
                )
            )
            run.finish({stage.value: each.metrics for stage, each in zip(chain, done, strict=True)})
        return run.directory / ENCODER_FOLDER

    def model(self, chain: Chain, dropout: float = 0.0) -> Any:
        """The causal LM after the stages of `chain`, all of them done, seeing both ways if one of them did."""
        model = load_model(self.config.llm, self.config.device, dropout)
        for place, stage in enumerate(chain):
            tuning = Tuning(model, self.config.of(stage).lora)
            tuning.weights.load_state_dict(load_file(self._run(chain[: place + 1]).directory / WEIGHTS_FILE))
            model = tuning.merge()
        if any(stage is not Stage.CSFT for stage in chain):
            see_both_ways(model)
        return model.requires_grad_(False)

    def _trained(self, chain: Chain) -> StageRun:
        """The folder of the last stage of `chain`, run if need be; those before it are done."""
        run, stage = self._run(chain), chain[-1]
        if run.is_done:
            run.say(f"llm2rec {'-'.join(chain)}: done before, unchanged")
            return run
        run.start()
        config = self.config.of(stage)
        seed_everything(self.config.seed)
        dropout = config.dropout if isinstance(config, ContrastiveConfig) else 0.0
        model = self.model(chain[:-1], dropout)
        if stage is not Stage.CSFT:
            see_both_ways(model)
        tuning = Tuning(model, config.lora)
        optimizer = torch.optim.AdamW(
            tuning.weights.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        task = self._stage(config).task(model, tuning.weights, optimizer)
        outcome = run.train(task, config.loop, f"llm2rec {'-'.join(chain)}")
        weights = {name: tensor.contiguous() for name, tensor in tuning.weights.state_dict().items()}
        run.alone(lambda: save_file(weights, run.directory / WEIGHTS_FILE))
        run.write_curve(outcome.curve, f"LLM2Rec, {stage.value}")
        run.finish(outcome.summary)
        return run

    def _stage(self, config: TuningConfig) -> _Trained:
        match config:
            case CSFTConfig():
                return CSFT(self.corpus, config, self.config.seed)
            case MNTPConfig():
                return MNTP(self.corpus, config, self.config.seed)
            case ContrastiveConfig():
                return Contrastive(self.corpus, config, self.config.seed)
        raise TypeError(type(config))

    def _run(self, chain: Chain) -> StageRun:
        before = {"before": self._run(chain[:-1]).output} if len(chain) > 1 else {}
        directory = self.directory / "stages" / "-".join(chain)
        return StageRun(directory, self.config.of(chain[-1]), self.config.seed, self._inputs | before, self._console)

    @cached_property
    def _inputs(self) -> dict[str, str]:
        llm = fingerprint_checkpoint(resolve(self.config.llm))
        cuts = f"{self.config.max_title_tokens} {self.config.max_text_tokens}"
        return {"llm": llm, "corpus": self.corpus.fingerprint, "cuts": cuts}
