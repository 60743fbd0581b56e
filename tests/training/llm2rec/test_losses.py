"""Losses and masks of all three stages against loops that are written apart from them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from models.errors import ConfigError
from training.llm2rec.batches import padded
from training.llm2rec.config import LoRAConfig
from training.llm2rec.contrastive import info_nce
from training.llm2rec.corpus import Corpus
from training.llm2rec.csft import sentence_losses
from training.llm2rec.mntp import BLANK, blank_token, blanks_of, mntp_loss
from training.llm2rec.model import TitleHead, Tuning, hidden_states, load_model, mean_pooled, see_both_ways

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES = {
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(head_dim=16, sliding_window=4, **SMALL)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(head_dim=16, final_logit_softcapping=2.0, **SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
}


def family(name: str):
    """A random LLM of a family."""
    torch.manual_seed(0)
    return FAMILIES[name]().eval()


def log_probs(model, ids: list[int], vocabulary: list[int]) -> torch.Tensor:
    """(L, V) by the LLM's own forward pass of one row without padding."""
    return model(input_ids=torch.tensor([ids])).logits[0][:, vocabulary].log_softmax(dim=1)


def test_csft_equals_one_pass_for_every_target(llm: str, corpus: Corpus) -> None:
    """A packed sentence costs, token by token, what each title costs after those before it in a pass of its own."""
    model = load_model(llm, "cpu").eval()
    vocabulary = corpus.vocabulary.tolist()
    titles = corpus.titles[0]
    rows = [np.array([5, 2, 9]), np.array([7, 1])]
    expected = []
    for items in rows:
        for stop in range(2, len(items) + 1):
            last = stop == len(items)
            sentence = titles.sentence(items[:stop], targets=1)
            log_probs_L_V = log_probs(model, sentence.ids.tolist(), vocabulary)
            # The new line is a target once, at the end.
            places = np.flatnonzero(sentence.targets)[: None if last else -1]
            expected += [-log_probs_L_V[place - 1, vocabulary.index(sentence.ids[place])].item() for place in places]
    found = sentence_losses(
        model, TitleHead(model, corpus.vocabulary), [titles.sentence(row, len(row) - 1) for row in rows]
    )
    torch.testing.assert_close(found, torch.tensor(expected))


def test_mntp_reads_blanks_off_the_position_before(llm: str, corpus: Corpus) -> None:
    """Two texts of different lengths, each blanked by hand, in passes of their own."""
    model = load_model(llm, "cpu").eval()
    see_both_ways(model)
    vocabulary, blank = corpus.vocabulary.tolist(), blank_token(corpus.tokenizer)
    texts = [corpus.texts[0], corpus.texts[20]]
    masks = [np.zeros(len(text), dtype=bool) for text in texts]
    masks[0][2], masks[1][1], masks[1][-1] = True, True, True
    expected = []
    for text, mask in zip(texts, masks, strict=True):
        seen = [blank if hidden else token for token, hidden in zip(text, mask, strict=True)]
        log_probs_L_V = log_probs(model, seen, vocabulary)
        expected += [-log_probs_L_V[place - 1, vocabulary.index(text[place])] for place in np.flatnonzero(mask)]
    found = mntp_loss(model, TitleHead(model, corpus.vocabulary), texts, masks, blank)
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_blanks_are_a_share_and_never_the_start() -> None:
    """A fifth of 20 tokens after the start is 4, of two it is at least one."""
    rng = np.random.default_rng(0)
    drawn = np.stack([blanks_of(21, 0.2, rng) for _ in range(300)])
    assert drawn.sum(axis=1).tolist() == [4] * 300
    assert not drawn[:, 0].any()
    assert drawn[:, 1:].any(axis=0).all()
    assert blanks_of(3, 0.2, rng).sum() == 1


def test_a_blank_is_the_tokenizer_s_mask_or_an_underscore(corpus: Corpus) -> None:
    """The tiny tokenizer has no mask until it is told one."""
    assert corpus.tokenizer.decode([blank_token(corpus.tokenizer)]) == BLANK
    told = copy.deepcopy(corpus.tokenizer)
    told.mask_token = told.unk_token
    assert blank_token(told) == told.unk_token_id


def test_info_nce_by_hand() -> None:
    """Cosines over the temperature, each text against the other views of all."""
    first = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    second = torch.tensor([[1.0, 1.0], [0.0, 5.0]])
    half = 0.5**0.5
    rows = [(half, 0.0), (half, 1.0)]
    losses = [-np.log(np.exp(row[i] / 0.5) / sum(np.exp(value / 0.5) for value in row)) for i, row in enumerate(rows)]
    assert info_nce(first, second, 0.5).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_views_differ_by_dropout_alone(llm: str, corpus: Corpus) -> None:
    """In training mode the same text twice has two vectors, in eval mode one."""
    model = load_model(llm, "cpu", dropout=0.5)
    batch = padded([corpus.texts[3]] * 2, "cpu")
    for training in (True, False):
        model.train(training)
        first, second = mean_pooled(hidden_states(model, batch), batch.real)
        assert torch.allclose(first, second) is not training


def test_means_are_over_real_tokens() -> None:
    """By hand."""
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert mean_pooled(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0]]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_later_token_changes_an_earlier_state_once_it_sees_both_ways(name: str) -> None:
    """Causal before, both ways after, padded or not, and with low-rank updates on top."""
    model = family(name)
    text = torch.tensor([[5, 6, 7, 8]])
    other = torch.tensor([[5, 6, 7, 9]])

    def changed() -> bool:
        first, second = (model.base_model(input_ids=ids).last_hidden_state[0, 0] for ids in (text, other))
        return not torch.equal(first, second)

    with torch.no_grad():
        assert not changed()
        see_both_ways(model)
        assert changed()
        Tuning(model, LoRAConfig(rank=2))
        model.eval()
        assert changed()
        alone = hidden_states(model, padded([[5, 6, 7, 8]], "cpu"))[0]
        beside = hidden_states(model, padded([[5, 6, 7, 8], [3] * 9], "cpu"))[0, :4]
        torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)


def test_a_family_that_stays_causal_is_refused() -> None:
    """By name: what a config says is not believed before it is seen."""
    model = family("qwen2")
    causal = copy.deepcopy(model)

    class Stubborn(torch.nn.Module):
        config, training, device = model.config, False, torch.device("cpu")
        base_model = staticmethod(lambda input_ids: causal.base_model(input_ids=input_ids, is_causal=True))

    with pytest.raises(ConfigError, match="'qwen2' stays causal"):
        see_both_ways(Stubborn())


@pytest.mark.parametrize("name", list(FAMILIES))
def test_logits_of_titles_tokens_are_the_llm_s_own(name: str) -> None:
    """To rounding, soft-capped ones too."""
    model, vocabulary = family(name), np.array([1, 4, 5, 17, 40])
    ids = torch.tensor([[1, 4, 17]])
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids).last_hidden_state[0]
        torch.testing.assert_close(
            TitleHead(model, vocabulary).logits(hidden), model(input_ids=ids).logits[0][:, vocabulary]
        )


def test_a_family_with_logits_of_its_own_is_refused() -> None:
    """By name: Cohere scales them."""
    torch.manual_seed(0)
    model = CohereForCausalLM(CohereConfig(logit_scale=0.1, **SMALL)).eval()
    with pytest.raises(ConfigError, match="'cohere' makes logits"):
        TitleHead(model, np.arange(1, 9))


@pytest.mark.parametrize("lora", [LoRAConfig(rank=2, dropout=0.0), None])
def test_merged_updates_are_the_trained_model(lora: LoRAConfig | None) -> None:
    """What is trained is all low-rank, or all weights; merging changes nothing but where it is kept."""
    model = family("gemma3")
    whole = sum(parameter.numel() for parameter in model.parameters())
    tuning = Tuning(model, lora)
    trained = sum(parameter.numel() for parameter in tuning.weights.parameters())
    assert (trained == whole) is (lora is None)
    with torch.no_grad():
        for parameter in tuning.weights.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.01)
        ids = torch.tensor([[5, 6, 7]])
        before = tuning.model.eval()(input_ids=ids).logits
        merged = tuning.merge().eval()
        torch.testing.assert_close(merged(input_ids=ids).logits, before, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name for name, _ in merged.named_parameters())
