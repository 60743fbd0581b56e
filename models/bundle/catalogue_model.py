"""The model of one catalogue: what a bundle carries besides its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from models.alignment.placement import Placement
from models.alignment.projection import TitleProjector, TokenProjector
from models.alignment.user_head import UserHead
from models.alignment.words import WordEncoder
from models.backbones import Backbone, represent_all
from models.bundle.index import ItemIndex
from models.bundle.signal_tables import SignalTables
from models.catalogue import Catalogue
from models.errors import BundleError
from models.histories import UserHistories
from models.llm.law import TokenLaw


@dataclass(frozen=True)
class CatalogueModel:
    """What a bundle carries besides its manifest.

    Attributes:
        catalogue: the items.
        histories: last interactions of the users known in training, as many as a backbone may read.
        backbone: the frozen CF backbone.
        cf_vectors: (N+1, d) items in CF space: the backbone's own, or decoded from text for items it has none for.
        joint_item: (N+1, 2d') joint embeddings: e_i, or q_i for items that the backbone has no vector for, and beside
            it q_i.
        joint_text: (N+1, 2d') q_i of all items, twice: what an item is to the LLM by its text alone.
        joint_genre: (G, 2d') what a genre is to the LLM, in the order of `Catalogue.genres`.
        projector: F_U and F_I.
        index: over `cf_vectors`.
        alignment: stage-1 weights by name.
        signals: what signals without an LLM are computed from.
        words: what the backbone reads of texts beside sentence vectors, so that new items can be placed.
        title_log_probs: (N+1,) float32 log P(title) by the bundle's LLM; (0,) where it was not asked for.
        title_projector: injects users and items into lists of titles; None where that is not weighed.
        user_head: makes a user vector of the state of the bundle's LLM after a history; None where it is not weighed.
        second: another CF backbone, whose logits are one more signal; None where that is not weighed.
        law: how injected tokens are read without the LLM; None where that is not weighed.
        decoded_item: (N+1, d) f_I_dec of e_i, or of q_i for items without a vector; None where that is not weighed.
        decoded_text: (N+1, d) f_I_dec of q_i; likewise.
        earlier: what users met before `histories` begin, each item once; only of users with so long a past.
    """

    catalogue: Catalogue
    histories: UserHistories
    backbone: Backbone
    cf_vectors: torch.Tensor
    joint_item: torch.Tensor
    joint_text: torch.Tensor
    joint_genre: torch.Tensor
    projector: TokenProjector
    index: ItemIndex
    alignment: dict[str, torch.Tensor]
    signals: SignalTables
    words: WordEncoder | None = None
    title_log_probs: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    title_projector: TitleProjector | None = None
    user_head: UserHead | None = None
    second: Backbone | None = None
    law: TokenLaw | None = None
    decoded_item: torch.Tensor | None = None
    decoded_text: torch.Tensor | None = None
    earlier: UserHistories = field(default_factory=UserHistories.nobody)

    @property
    def read_length(self) -> int:
        """How many of the latest items of a history its backbones read."""
        return max(self.backbone.max_length, 0 if self.second is None else self.second.max_length)

    @property
    def person_size(self) -> int:
        """d + d_2, the numbers that its backbones make of a history."""
        return self.backbone.embedding_size + (0 if self.second is None else self.second.embedding_size)

    def placed(self, placement: Placement) -> CatalogueModel:
        """The same with its items where `placement` (N+1) has them; what is made of all of them stays."""
        device = self.cf_vectors.device
        return replace(
            self,
            cf_vectors=placement.cf_vectors.to(device),
            joint_item=placement.token_item.to(device),
            joint_text=placement.token_text.to(device),
            decoded_item=placement.decoded_item.to(device),
            decoded_text=placement.decoded_text.to(device),
        )

    def seen(self, user_id: str) -> np.ndarray:
        """(n,) every item that the user met in training."""
        return np.concatenate([self.earlier.of(user_id), self.histories.of(user_id)])

    @torch.inference_mode()
    def user_vectors(
        self, histories: Sequence[Sequence[int] | np.ndarray], user_ids: Sequence[str] | None = None
    ) -> torch.Tensor:
        """x_u (B, d) of B histories of item numbers, oldest first; zeros without history.

        Args:
            histories: what each user did.
            user_ids: who they are, for backbones with a vector a user; nobody known if not given.
        """
        arrays = [np.asarray(history, dtype=np.int64) for history in histories]
        users = None if user_ids is None else self.histories.numbers_of(user_ids)
        return represent_all(self.backbone, arrays, self.cf_vectors, users)

    @torch.inference_mode()
    def second_vectors(self, histories: Sequence[np.ndarray]) -> torch.Tensor | None:
        """(B, d_2) what the second backbone makes of B histories, whosever they are; None where there is none."""
        return None if self.second is None else represent_all(self.second, histories)

    @torch.inference_mode()
    def encoded_user(self, states_1_H: np.ndarray) -> torch.Tensor:
        """(d,) what the head makes of the state (1, H) of the LLM after a history.

        Raises:
            BundleError: there is no head.
        """
        if self.user_head is None:
            raise BundleError("the LLM is to encode users, but the bundle has no head for that: export it again")
        return self.user_head(torch.tensor(states_1_H, device=self.cf_vectors.device))[0]

    @torch.inference_mode()
    def cf_logits(self, user_vector: torch.Tensor, items: Sequence[int] | np.ndarray) -> np.ndarray:
        """(K,) collaborative logits `x_u . E_i` of K item numbers for one user (d,)."""
        vectors_C_D = self.cf_vectors[torch.as_tensor(np.asarray(items, dtype=np.int64))]
        return (vectors_C_D @ user_vector).cpu().numpy()
