"""The papers' tables: who is compared, in which scenarios, by which figure. What was published is in `published.toml`.

To add one, list it in `TABLES`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from training.experiments.scenarios import FOREIGN, OVERALL, Scenario, cold_users, few_shot

PUBLISHED_FILE = Path(__file__).parent / "published.toml"

Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By row, column and dataset."""


@dataclass(frozen=True)
class Row:
    """Who takes part.

    Attributes:
        title: in the table.
        system: id of a system.
        settings: of the recipe, that make this row what it is.
        metrics: the only ones that mean anything of it; all if none are named.
    """

    title: str
    system: str
    settings: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """What is reported.

    Attributes:
        title: in the table.
        scenario: under which.
        group: of whose positives.
        metric: by which figure.
    """

    title: str
    scenario: Scenario = OVERALL
    group: str = "overall"
    metric: str = "hit@1"


@dataclass(frozen=True)
class Table:
    """One of the papers'.

    Attributes:
        id: as the papers number it.
        title: for people.
        rows: who takes part.
        columns: what is reported; the first decides the order of the picture.
        times: costs are what the table is about.
    """

    id: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    times: bool = False

    @cached_property
    def published(self) -> Published:
        """The paper's own figures; those of no column are costs."""
        found: Published = tomllib.loads(PUBLISHED_FILE.read_text(encoding="utf-8")).get(self.id, {})
        return found

    @property
    def scenarios(self) -> list[Scenario]:
        """Each once."""
        return list(dict.fromkeys(column.scenario for column in self.columns))

    @property
    def needs_target(self) -> bool:
        """Whether it takes a second dataset."""
        return any(scenario.foreign for scenario in self.scenarios)


def backbone(kind: str) -> tuple[str, ...]:
    """Settings for another backbone, of the paper's size; SASRec as the recipe has it, with whatever else that has."""
    if kind == "sasrec":
        return ('backbone.kind="sasrec"',)
    return ("backbone.presets=[]", f'backbone.kind="{kind}"', "backbone.settings={embedding_size=50,max_length=50}")


SASREC = Row("SASRec", "backbone", backbone("sasrec"))
MOREC = Row("MoRec", "morec")
CTRL = Row("CTRL", "ctrl")
RECFORMER = Row("RECFORMER", "recformer")
LLM_ONLY = Row("LLM-Only", "llm_only")
TALLREC = Row("TALLRec", "tallrec")
MLP_LLM = Row("MLP-LLM", "mlp_llm")
ALLMREC = Row("A-LLMRec", "allmrec")
ALLMREC_TEXT = Row("A-LLMRec (text encoder)", "allmrec_text")
OTHER_BACKBONES = {"NCF": "ncf", "NextItNet": "nextitnet", "GRU4Rec": "gru4rec"}
CF = tuple(Row(title, "backbone", backbone(kind)) for title, kind in OTHER_BACKBONES.items())

HIT, NDCG = Column("Hit@1"), Column("NDCG@10", metric="ndcg@10")

_TABLES = (
    Table(
        "table1",
        "Overall",
        (
            *CF,
            SASREC,
            MOREC,
            CTRL,
            RECFORMER,
            LLM_ONLY,
            Row("LLM-Only, as published", "llm_only_written", metrics=("hit@1",)),
            Row("LLM-Only, by likelihood", "llm_only_likely"),
            TALLREC,
            MLP_LLM,
            ALLMREC,
        ),
        (HIT, NDCG),
    ),
    Table(
        "table4",
        "Cold and warm items",
        (SASREC, MOREC, CTRL, RECFORMER, TALLREC, ALLMREC, ALLMREC_TEXT),
        (Column("Cold", group="cold"), Column("Warm", group="warm"), Column("Unseen", group="unseen")),
    ),
    Table(
        "table5",
        "Cold users: histories cut to their latest items",
        (SASREC, MOREC, RECFORMER, TALLREC, MLP_LLM, ALLMREC),
        tuple(Column(f"{items} known", cold_users(items)) for items in (3, 2, 1)),
    ),
    Table(
        "table6",
        "Few-shot: learned from K users",
        (SASREC, MOREC, TALLREC, ALLMREC, ALLMREC_TEXT),
        tuple(Column(f"K = {users}", few_shot(users)) for users in (256, 128)),
    ),
    Table(
        "table7",
        "Cross-domain: learned from one catalogue, asked about another",
        (SASREC, MOREC, RECFORMER, TALLREC, ALLMREC, ALLMREC_TEXT),
        (Column("Hit@1", FOREIGN),),
    ),
    Table(
        "table8",
        "Stage 1: what each loss is worth",
        (
            ALLMREC,
            Row("w/o L_matching", "allmrec", ("stage1.matching=0",)),
            Row(
                "w/o L_item_recon and L_text_recon",
                "allmrec",
                ("stage1.item_reconstruction=0", "stage1.text_reconstruction=0"),
            ),
            Row("w/o L_rec", "allmrec", ("stage1.recommendation=0", "stage1.text_recommendation=0")),
            Row("Freeze SBERT", "allmrec", ("stage1.freeze=true",)),
        ),
        (HIT, NDCG),
    ),
    Table(
        "table9",
        "Stage 2: what each token is worth",
        (
            ALLMREC,
            Row("w/o user representation", "allmrec", ('stage2.injection="items"',)),
            Row("w/o joint embedding", "allmrec", ('stage2.injection="user"',)),
            Row("with random joint embedding", "allmrec", ("stage2.random_joint=true",)),
        ),
        (HIT, NDCG),
    ),
    Table("table10", "Time and memory", (TALLREC, ALLMREC, Row("A-LLMRec_all", "allmrec_all")), (HIT,), times=True),
    Table(
        "table11",
        "Other backbones",
        tuple(
            row
            for title, kind in {"SASRec": "sasrec", **OTHER_BACKBONES}.items()
            for row in (
                Row(title, "backbone", backbone(kind)),
                Row(f"A-LLMRec ({title})", "allmrec", backbone(kind)),
            )
        ),
        (HIT, NDCG),
    ),
)

TABLES: dict[str, Table] = {table.id: table for table in _TABLES}
