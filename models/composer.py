"""From users and items to prompts with their injected tokens.

The last step that evaluation and serving share: look up a bundle's tables, project them into the token space and
fill the prompt's slots.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from models.alignment.projection import TitleProjector
from models.bundle.catalogue_model import CatalogueModel
from models.engines.base import LLMEngine
from models.errors import BundleError
from models.prompts.layout import Injection, Prompt, PromptLayout
from models.prompts.listing import listing_order
from models.prompts.template import PromptConfig, PromptTemplate
from models.prompts.titles import TitleTokens, as_told
from models.scoring.choices import Branching, ChoiceTrie
from models.scoring.likelihood import ContinuationTree
from models.title_lists import TitleLists
from models.writing import Draft, Quotable


class Asked(Protocol):
    """What is asked of an LLM.

    Attributes:
        candidates: about how many.
    """

    @property
    def candidates(self) -> int: ...  # noqa: D102

    async def answer(self, engine: LLMEngine, due: float | None = None) -> np.ndarray:
        """(K,) what `engine` says of K candidates in the caller's order, or, of the prompt alone, (P, H) its states.

        Args:
            engine: started.
            due: as of `LLMEngine.score`.
        """


class _Scored(ABC):
    """A question whose answer is how likely candidates are."""

    prompt: Prompt
    trie: Branching

    @abstractmethod
    def log_probs(self, branch_logits: Sequence[np.ndarray]) -> np.ndarray:
        """(K,) log-probabilities of the candidates in the caller's order, from what an engine scored."""

    async def answer(self, engine: LLMEngine, due: float | None = None) -> np.ndarray:
        """See `Asked.answer`."""
        return self.log_probs(await engine.score(self.prompt, self.trie, due))


@dataclass(frozen=True)
class Encoding:
    """In which state is the LLM after a list of titles?

    Attributes:
        prompt: the list, ready for an engine.
        places: (P,) positions of it.
    """

    prompt: Prompt
    places: np.ndarray
    candidates: ClassVar[int] = 0

    async def answer(self, engine: LLMEngine, due: float | None = None) -> np.ndarray:
        """(P, H) float32 the last hidden states."""
        return await engine.encode(self.prompt, self.places, due)


@dataclass(frozen=True)
class TitleQuestion(_Scored):
    """How likely are K titles as what follows a list?

    Attributes:
        prompt: the list, ready for an engine.
        trie: of the titles.
        held_against: (K,) what is taken from each log-probability.
    """

    prompt: Prompt
    trie: ContinuationTree
    held_against: np.ndarray | float = 0.0

    @property
    def candidates(self) -> int:
        """K."""
        return len(self.trie)

    def log_probs(self, branch_logits: Sequence[np.ndarray]) -> np.ndarray:
        """(K,) log-probabilities of the titles less what is held against them, from what an engine scored."""
        return self.trie.log_probs(branch_logits) - self.held_against


@dataclass(frozen=True)
class Question(_Scored):
    """A prompt and the K choices it asks for.

    Attributes:
        prompt: ready for an engine.
        trie: of the choices as the prompt lists them.
        tie_scores: (K,) collaborative logits of the listed choices, by which equal texts share their mass.
        order: (K,) which of the choices, as the caller gave them, each listed one is.
    """

    prompt: Prompt
    trie: ChoiceTrie
    tie_scores: np.ndarray
    order: np.ndarray

    @property
    def candidates(self) -> int:
        """K."""
        return len(self.order)

    def log_probs(self, branch_logits: Sequence[np.ndarray]) -> np.ndarray:
        """(K,) log-probabilities of the choices in the caller's order, from what an engine scored."""
        log_probs = np.empty(len(self.order))
        log_probs[self.order] = self.trie.log_probs(branch_logits, self.tie_scores)
        return log_probs


class PromptComposer:
    """Asks about the users and items of one bundle.

    Args:
        model: the bundle's tables and networks.
        config: the prompts that stage 2 was trained with.
        tokenizer: the LLM's tokenizer.
        context_length: the LLM's context in tokens.

    Attributes:
        model: as given.
        template: builds the prompts.
        titles: of all items, tokenised.
        lists: of titles, for an LLM that is asked how likely these are.
        genres: of the catalogue, that `favorite_genre` chooses among.
    """

    def __init__(self, model: CatalogueModel, config: PromptConfig, tokenizer: Any, context_length: int) -> None:
        self.model = model
        self.template = PromptTemplate(tokenizer, config, context_length)
        titles = model.catalogue.titles
        self.lists = TitleLists(titles, tokenizer, config.title_list, config.domain, context_length)
        self.titles = TitleTokens(tokenizer, titles, config.max_title_tokens)
        self.genres = list(model.catalogue.genres)
        self._genre_tokens = TitleTokens(tokenizer, self.genres, config.max_title_tokens)
        self._genre_cf = model.catalogue.genre_centroids(model.cf_vectors)

    @torch.inference_mode()
    def recommend(
        self,
        user_vector: torch.Tensor,
        history: Sequence[int],
        candidates: Sequence[int] | np.ndarray,
        *,
        injection: Injection | None = None,
        text_only: bool = False,
        order: np.ndarray | None = None,
    ) -> Question:
        """Which of `candidates` comes next?

        Args:
            user_vector: (d,) x_u.
            history: item numbers, oldest first.
            candidates: K item numbers.
            injection: the method, or an ablation of it; as the bundle has it if not given.
            text_only: inject q_i for every item, the "A-LLMRec (text encoder)" variant.
            order: (K,) positions of `candidates` as the prompt lists them; if not given, a random order that
                depends only on which items they are.

        Raises:
            PromptTooLongError: the candidates overflow the context.
        """
        items = np.asarray(candidates, dtype=np.int64)
        order = listing_order(items) if order is None else order
        listed = items[order].tolist()
        layout = self.template.recommend(self.titles.of(history), self.titles.of(listed), injection)
        table = self.model.joint_text if text_only else self.model.joint_item
        prompt = self._fill(layout, user_vector, table[list(history)], table[listed])
        return Question(prompt, self._trie(layout), self.model.cf_logits(user_vector, listed), order)

    def title_likelihood(self, history: Sequence[int], candidates: Sequence[int] | np.ndarray) -> TitleQuestion:
        """How likely do the titles of `candidates` follow those of a history?

        Args:
            history: item numbers, oldest first.
            candidates: K item numbers, one at least.
        """
        return self._titles_after(self.lists.after(history), candidates)

    @torch.inference_mode()
    def injected_titles(
        self, user_vector: torch.Tensor, history: Sequence[int], candidates: Sequence[int] | np.ndarray
    ) -> TitleQuestion:
        """How likely do titles follow a history with injected tokens, less a learned share of `log P(title)`?

        Args:
            user_vector: (d,) x_u.
            history: item numbers, oldest first.
            candidates: K item numbers, one at least.

        Raises:
            BundleError: the bundle has no projections for lists of titles.
        """
        projector, joint_T_2J = self._title_projector, self.model.joint_item[list(history)]
        layout = self.lists.layout(history)
        soft_S_H = projector([layout], user_vector[None], [joint_T_2J], [joint_T_2J[:0]])
        prior = projector.prior_share.item() * self.model.title_log_probs[np.asarray(candidates)]
        return TitleQuestion(layout.fill(soft_S_H), self.lists.tree(candidates), prior)

    def plain_titles(self, history: Sequence[int], candidates: Sequence[int] | np.ndarray) -> TitleQuestion:
        """The same without injected tokens, with the share by which the plain list is read best.

        Args:
            history: item numbers, oldest first.
            candidates: K item numbers, one at least.

        Raises:
            BundleError: the bundle has no projections for lists of titles.
        """
        prior = self._title_projector.plain_share.item() * self.model.title_log_probs[np.asarray(candidates)]
        return replace(self.title_likelihood(history, candidates), held_against=prior)

    @property
    def _title_projector(self) -> TitleProjector:
        projector = self.model.title_projector
        if projector is None:
            raise BundleError(
                "tokens are to be injected into lists of titles, but the bundle has none: export it again"
            )
        return projector

    def title_prior(self, items: Sequence[int] | np.ndarray) -> TitleQuestion:
        """How likely are the titles of `items` in a list of anything? A constant of each item."""
        return self._titles_after(self.lists.alone, items)

    def encoding(self, history: Sequence[int]) -> Encoding:
        """In which state is the LLM once it has read the titles of a history?

        Args:
            history: item numbers, oldest first.
        """
        ids = self.lists.after(history)
        return Encoding(self._plain(ids), np.asarray([len(ids) - 1], dtype=np.int64))

    def encodings(self, history: Sequence[int]) -> Encoding:
        """The same after each of the titles that are shown of a history, oldest first: many histories in one prompt."""
        return Encoding(self._plain(self.lists.after(history)), self.lists.ends(history))

    def _titles_after(self, token_ids: np.ndarray, items: Sequence[int] | np.ndarray) -> TitleQuestion:
        return TitleQuestion(self._plain(token_ids), self.lists.tree(items))

    def _plain(self, token_ids: np.ndarray) -> Prompt:
        """A prompt without injected tokens."""
        return Prompt(token_ids, np.zeros(0, dtype=np.int64), torch.zeros(0, self.model.projector.token_size))

    @torch.inference_mode()
    def favorite_genre(
        self, user_vector: torch.Tensor, history: Sequence[int], *, injection: Injection | None = None
    ) -> Question:
        """Which of `genres` does this user like best?"""
        genres = [self._genre_tokens[row] for row in range(len(self.genres))]
        layout = self.template.favorite_genre(self.titles.of(history), genres, injection)
        prompt = self._fill(layout, user_vector, self.model.joint_item[list(history)], self.model.joint_genre)
        return Question(prompt, self._trie(layout), self.genre_cf_scores(user_vector), np.arange(len(genres)))

    def genre_cf_scores(self, user_vector: torch.Tensor) -> np.ndarray:
        """(G,) mean collaborative logits of the items of each of `genres`, weighted by interactions + 1."""
        return (self._genre_cf @ user_vector).cpu().numpy()

    @torch.inference_mode()
    def explanation(self, user_vector: torch.Tensor, history: Sequence[int], genre: str) -> Draft:
        """The draft of why `genre` is this user's favourite, for an LLM to write.

        Args:
            user_vector: (d,) x_u.
            history: the items that speak for the genre, oldest first. It quotes those that the prompt has room to tell,
                equal titles once.
            genre: one of `genres`.
        """
        row = self.genres.index(genre)
        layout = self.template.explanation(self.titles.of(history), self._genre_tokens[row])
        return self._draft(layout, user_vector, history, self.model.joint_genre[row : row + 1])

    @torch.inference_mode()
    def item_explanation(self, user_vector: torch.Tensor, history: Sequence[int], item: int) -> Draft:
        """The draft of why an item is for this user; as `explanation`.

        Args:
            user_vector: (d,) x_u.
            history: the items that speak for it, oldest first.
            item: its number.
        """
        layout = self.template.item_explanation(self.titles.of(history), self.titles[item])
        return self._draft(layout, user_vector, history, self.model.joint_item[item : item + 1])

    def _draft(
        self, layout: PromptLayout, user_vector: torch.Tensor, history: Sequence[int], explained: torch.Tensor
    ) -> Draft:
        prompt = self._fill(layout, user_vector, self.model.joint_item[list(history)], explained)
        told = history[len(history) - layout.shown :]
        items = {as_told(self.model.catalogue.titles[item]): item for item in told}
        return Draft(prompt, [Quotable(self.titles[item], title) for title, item in items.items()])

    def _fill(
        self, layout: PromptLayout, user_vector: torch.Tensor, history: torch.Tensor, candidates: torch.Tensor
    ) -> Prompt:
        projector = self.model.projector
        return layout.fill(projector([layout], user_vector[None], [history], [candidates]))

    def _trie(self, layout: PromptLayout) -> ChoiceTrie:
        return ChoiceTrie(layout.choices, self.template.end_token)
