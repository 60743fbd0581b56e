"""What stage 2 starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from models.bundle.catalogue_model import CatalogueModel
from models.composer import PromptComposer
from models.llm.loading import LanguageModel
from models.prompts.template import PromptConfig
from training.allmrec.stage2.held_back import HeldBack
from training.data.splits import SequenceSplit


@dataclass(frozen=True)
class ItemTexts:
    """What stage 1 makes of the items' texts.

    Attributes:
        vectors: (N+1, T) Q, the text encoder's output.
        decoded: (N+1, D) the same in CF space, by the joint space.
    """

    vectors: torch.Tensor
    decoded: torch.Tensor


@dataclass(frozen=True)
class Stage2Inputs:
    """What stage 2 starts from.

    Attributes:
        split: the data.
        model: what stage 1 left; its projector has yet to be trained.
        texts: of all items.
        llm: frozen.
        prompt: the prompts, as they will be served.
        held_back: by what the examples are told, where that is not what is served.
    """

    split: SequenceSplit
    model: CatalogueModel
    texts: ItemTexts
    llm: LanguageModel
    prompt: PromptConfig
    held_back: HeldBack | None = None

    @property
    def of_examples(self) -> Stage2Inputs:
        """The same with users and items as the examples have them."""
        return self if self.held_back is None else replace(self, model=self.held_back.told(self.model))

    def composer(self, model: CatalogueModel) -> PromptComposer:
        """Asks the LLM about the users and items of `model`."""
        return PromptComposer(model, self.prompt, self.llm.tokenizer, self.llm.context_length)
