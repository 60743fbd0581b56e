"""All encoders, in every use, on every catalogue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from models.errors import ConfigError
from training.data.sequences import Sequences
from training.data.splits import Holdout
from training.llm2rec.corpus import Domain
from training.llm2rec.encoder import read_record
from training.llm2rec.report import MARKDOWN_FILE, Row, make_row, write_report
from training.llm2rec.trials import TrialConfig, Trials, known_uses


def compare(
    domains: Sequence[Domain],
    encoders: Mapping[str, str],
    uses: Sequence[str],
    config: TrialConfig,
    directory: Path,
    console: Console | None = None,
    seeds: int = 1,
) -> Path:
    """Train recommenders for each, and write the report anew after each.

    Args:
        domains: the catalogues.
        encoders: what `TextEncoder` takes, by label; the others are set against the first.
        uses: of the vectors; see `known_uses`.
        config: the same for all.
        directory: of recommenders and report; what is done there is not done again.
        console: for progress.
        seeds: of each recommender, so many trainings.

    Returns:
        The report in Markdown; the same as JSON stands beside it.

    Raises:
        ConfigError: a use is unknown, or an encoder cannot be loaded.
        Interrupted: by Ctrl-C; the same call goes on.
    """
    if unknown := [use for use in uses if use not in known_uses()]:
        raise ConfigError(f"use '{unknown[0]}' is unknown: choose among {', '.join(known_uses())}")
    rows: list[Row] = []
    settings = {"config": config.model_dump(mode="json"), "encoders": dict(encoders), "seeds": seeds}
    for domain in domains:
        trials = Trials(domain, _fingerprint(domain), config, directory / domain.name, console)
        cold = trials.groups(Holdout.TEST)["cold"]
        for use in uses:
            first = None
            for label, encoder in encoders.items():
                ranks = trials.ranks(label, encoder, use, seeds)
                names = {
                    "dataset": domain.name,
                    "use": use,
                    "encoder": label,
                    "in_domain": learned_from(encoder, domain),
                }
                rows.append(make_row(ranks, first, cold, names))
                first = first or ranks
                write_report(rows, settings, directory)
    return directory / MARKDOWN_FILE


def learned_from(encoder: str, domain: Domain) -> bool | None:
    """Whether LLM2Rec trained an encoder on a catalogue; None where nothing says so: on one of the same name but with
    other titles, which may be an earlier state of it, or by an encoder that is not LLM2Rec's.
    """
    record = read_record(encoder)
    if record is None:
        return None
    if not record.stages:
        return False
    if domain.titles_fingerprint in record.domains.values():
        return True
    return None if domain.name in record.domains else False


def _fingerprint(domain: Domain) -> str:
    """SHA-256 of a catalogue's texts and of all that its users did."""
    catalogue, split = domain.split.catalogue, domain.split
    digest = hashlib.sha256(json.dumps([catalogue.titles, catalogue.descriptions, catalogue.categories]).encode())
    flat = Sequences.of(split.train)
    for table in (flat.items, flat.lengths, split.validation, split.test):
        digest.update(np.asarray(table, dtype=np.int64).tobytes())
    return digest.hexdigest()
