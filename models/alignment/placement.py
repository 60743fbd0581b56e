"""Where an item stands in CF, joint and token space: by its CF vector if there is one, else by its text.

Stage 1 places all items of a catalogue here; a new item is placed by the same function from its text alone.

Axes: N items, D CF size d, Q text size d_T, J joint size d'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.alignment.networks import Alignment


@dataclass(frozen=True)
class Placement:
    """Tables of items.

    Attributes:
        joint_item: (N, d') e_i, or q_i for items without a CF vector.
        joint_text: (N, d') q_i of all items.
        cf_vectors: (N, d) E_i, or f_I_dec(q_i) for items without one: all can be retrieved.
        decoded_item: (N, d) f_I_dec of `joint_item`.
        decoded_text: (N, d) f_I_dec of `joint_text`.
    """

    joint_item: torch.Tensor
    joint_text: torch.Tensor
    cf_vectors: torch.Tensor
    decoded_item: torch.Tensor
    decoded_text: torch.Tensor

    @property
    def token_item(self) -> torch.Tensor:
        """(N, 2d') what F_I reads of each item: its joint embedding and q_i beside it.

        The paper has the joint embedding alone (section 4.2.4): e_i says whom the item is for, but has lost most of
        what it is like.
        """
        return torch.cat([self.joint_item, self.joint_text], dim=1)

    @property
    def token_text(self) -> torch.Tensor:
        """(N, 2d') what F_I reads of each item by its text alone: q_i twice."""
        return torch.cat([self.joint_text, self.joint_text], dim=1)


@torch.no_grad()
def place(
    alignment: Alignment, text_vectors: torch.Tensor, item_vectors: torch.Tensor, known: torch.Tensor
) -> Placement:
    """Place N items.

    Args:
        alignment: stage 1's networks, in eval mode.
        text_vectors: (N, d_T) Q.
        item_vectors: (N, d) E, arbitrary where not known.
        known: (N,) bool: the items that the backbone has vectors for: those it was trained on, or all if it reads
            texts (`Backbone.reads_texts`).
    """
    joint_text = alignment.encode_texts(text_vectors)
    joint_item = torch.where(known[:, None], alignment.encode_items(item_vectors), joint_text)
    decoded_text = alignment.decode_items(joint_text)
    return Placement(
        joint_item=joint_item,
        joint_text=joint_text,
        cf_vectors=torch.where(known[:, None], item_vectors, decoded_text),
        decoded_item=alignment.decode_items(joint_item),
        decoded_text=decoded_text,
    )
