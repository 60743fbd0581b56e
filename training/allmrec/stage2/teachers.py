"""Whose distributions over the candidates stage 2 can be taught by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.bundle.catalogue_model import CatalogueModel
from models.llm.law import ExactReader, in_series
from models.llm.token_interface import TokenInterface
from models.prompts.titles import TitleTokens
from training.allmrec.stage2.inputs import ItemTexts

Teacher = Callable[[torch.Tensor, Sequence[torch.Tensor], Sequence[torch.Tensor]], list[np.ndarray]]
"""Of x_u (B, D) and, per prompt, the rows of the items shown and of the C candidates: (C,) distributions.

Rows are those of the item tables, and from N + 1 on of the text tables.
"""


@torch.no_grad()
def collaborative_teacher(model: CatalogueModel, texts: ItemTexts, temperature: float) -> Teacher:
    """The CF backbone at a temperature: what it says of the vectors that the injected tokens stand for."""
    vectors = torch.cat([model.cf_vectors, texts.decoded])

    def teach(
        users_B_D: torch.Tensor, _: Sequence[torch.Tensor], candidates: Sequence[torch.Tensor]
    ) -> list[np.ndarray]:
        logits = [vectors[rows] @ user_D / temperature for user_D, rows in zip(users_B_D, candidates, strict=True)]
        return [row.double().softmax(dim=0).cpu().numpy() for row in logits]

    return teach


@torch.no_grad()
def token_teacher(model: CatalogueModel, titles: TitleTokens, interface: TokenInterface) -> Teacher:
    """What the tokens of the projector as it is now, and the titles, say by the LLM's law."""
    reader = ExactReader(copy.deepcopy(model.projector), interface.to(model.joint_item.device))
    joint = torch.cat([model.joint_item, model.joint_text])
    items_N_Y = reader.items(joint)

    @torch.no_grad()
    def teach(
        users_B_D: torch.Tensor, shown: Sequence[torch.Tensor], candidates: Sequence[torch.Tensor]
    ) -> list[np.ndarray]:
        users_B_Y1 = reader.users_of(users_B_D, items_N_Y, [rows.cpu().numpy() for rows in shown])
        taught = []
        for user_Y1, shown_T, rows_C in zip(users_B_Y1, shown, candidates, strict=True):
            series_C = torch.from_numpy(in_series(titles_of(shown_T), titles_of(rows_C))).to(user_Y1)
            (logits_C,) = reader.logits(user_Y1[None], items_N_Y[rows_C], series_C[None])
            taught.append(logits_C.double().softmax(dim=0).cpu().numpy())
        return taught

    def titles_of(rows: torch.Tensor) -> list[list[int]]:
        return titles.of((rows % len(model.joint_item)).tolist())

    return teach
