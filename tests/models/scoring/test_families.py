"""Every family against its own forward pass: one plain sequence at a time, its own masks, its own head."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from models.llm import self_test
from models.llm.families import UnsupportedLLMError, check_family
from models.llm.forward import embed_tokens
from models.llm.head import head_of
from models.llm.loading import LanguageModel
from models.llm.self_test import check_exact, packing_error
from models.prompts.layout import Prompt
from models.scoring.choices import ChoiceTrie
from models.scoring.encode import encode_prompts
from models.scoring.packing import PackedBatch, child_logits, hidden_states, pack
from tests.device import DEVICE
from tests.models.scoring.families import EXACT, MOE, REFUSED, VOCABULARY, tiny, tiny_config

END = 3
LENGTHS = (40, 21)
CHOICES = (
    [[5, 6, 7], [5, 6, 8], [5, 9], [5], [10, 11, 12, 13], [10, 11, 12, 14]],
    [[20, 21, 22], [20, 21, 23], [30, 31, 32], [30, 31]],
)
SLOTS = (np.asarray([4, 30]), np.asarray([2, 20]))
EXACTLY = 1e-3


class Asked:
    """Two prompts of different lengths with their tries, packed, and what a plain forward pass says of each node."""

    def __init__(self, model: Any, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.model = model.to(DEVICE)
        self.prompts = [rng.integers(END + 1, VOCABULARY, length) for length in LENGTHS]
        self.tries = [ChoiceTrie(choices, END) for choices in CHOICES]
        self.batch: PackedBatch = pack(self.prompts, SLOTS, self.tries).to(DEVICE)
        usual = embed_tokens(model, torch.arange(VOCABULARY, device=DEVICE))
        self.soft_S_H = usual[torch.randperm(VOCABULARY)[:4]].flip(1)

    def plain_logits(self) -> torch.Tensor:
        """(M, V) one forward pass for each node's full sequence."""
        logits = []
        for row, (prompt, trie) in enumerate(zip(self.prompts, self.tries, strict=True)):
            for branch in trie.branches:
                embeds = embed_tokens(self.model, torch.tensor([*prompt, *branch.path], device=DEVICE)).clone()
                embeds[SLOTS[row]] = self.soft_S_H[2 * row : 2 * row + 2]
                logits.append(self.model(inputs_embeds=embeds[None], use_cache=False).logits[0, -1].float())
        return torch.stack(logits)


@pytest.fixture(scope="module", params=EXACT)
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(tiny(request.param, EXACT[request.param]))


@torch.no_grad()
def test_a_family_is_exact(asked: Asked):
    """Its children's logits and all logits, from one packed pass, are those of plain passes."""
    model, batch = asked.model, asked.batch
    hidden_B_L_H = hidden_states(model, batch, asked.soft_S_H)
    nodes_M_H = hidden_B_L_H[batch.node_rows, batch.node_columns]
    plain_M_V = asked.plain_logits()
    assert plain_M_V.std(dim=1).min() > 0.1
    children_M_C = child_logits(model, batch, hidden_B_L_H)
    expected_M_C = plain_M_V.gather(1, batch.children_M_C.clamp_min(0)).where(batch.children_M_C >= 0, -torch.inf)
    torch.testing.assert_close(children_M_C, expected_M_C, atol=EXACTLY, rtol=0)
    torch.testing.assert_close(head_of(model).all_logits(nodes_M_H), plain_M_V, atol=EXACTLY, rtol=0)


@torch.no_grad()
def test_a_state_is_that_of_a_plain_pass(asked: Asked):
    """What the head takes at places of both prompts, read together."""
    model, token_size = asked.model, asked.soft_S_H.shape[1]
    llm = LanguageModel("tiny", model, None, "", None)
    prompts = [
        Prompt(ids, slots, asked.soft_S_H[2 * row : 2 * row + 2])
        for row, (ids, slots) in enumerate(zip(asked.prompts, SLOTS, strict=True))
    ]
    places = [np.asarray([len(ids) - 1, 7]) for ids in asked.prompts]
    assert llm.token_size == token_size
    for prompt, wanted, states in zip(prompts, places, encode_prompts(llm, prompts, places), strict=True):
        for place, state in zip(wanted, states, strict=True):
            embeds = embed_tokens(model, torch.from_numpy(prompt.token_ids[: place + 1]).to(DEVICE)).clone()
            inside = prompt.soft_positions <= place
            embeds[prompt.soft_positions[inside]] = prompt.soft_tokens[torch.from_numpy(inside)]
            plain = model.get_decoder()(inputs_embeds=embeds[None], use_cache=False).last_hidden_state[0, -1]
            torch.testing.assert_close(torch.from_numpy(state), plain.float().cpu(), atol=EXACTLY, rtol=0)


def admit(case: str, settings: dict[str, Any]) -> None:
    """What loading does about a family."""
    check_family("tiny", tiny_config(case, settings))
    check_exact("tiny", tiny(case, settings))


@pytest.mark.parametrize("case", EXACT)
def test_an_exact_family_is_admitted(case: str):
    admit(case, EXACT[case])


@pytest.mark.parametrize("case", EXACT)
def test_an_exact_family_is_admitted_in_half_precision_and_by_full(case: str):
    """Its first layers are built anew in full precision, whatever the family calls them."""
    model = tiny(case, EXACT[case]).to(torch.bfloat16)
    check_exact("tiny", model)
    twin = self_test._twin(model, self_test._first_layers(model), torch.float32)
    assert packing_error(twin) < self_test.TOLERANCE
    assert twin.dtype == torch.float32


@pytest.mark.parametrize("seed", range(3))
def test_half_precision_admits_nothing_that_full_refuses(seed: int):
    """Gemma 3 that sees both ways is off by as much as half precision may be, or by less."""
    settings = EXACT["gemma3_text"] | {"use_bidirectional_attention": True}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config("gemma3_text", settings)).to(torch.bfloat16).eval()
    with pytest.raises(UnsupportedLLMError, match="differ by"):
        check_exact("tiny", model)


@pytest.mark.parametrize("size", [40, 128])
def test_a_window_that_is_looked_up_when_an_llm_is_built_is_found(size: int):
    """Doge copies it, so a config that is changed later changes nothing; one as long as the context counts, too."""
    model = tiny("doge", {"keep_window_size": size})
    with pytest.raises(UnsupportedLLMError, match="keep_window_size, which its code may not heed"):
        check_exact("tiny", model)


@pytest.mark.parametrize("case", REFUSED)
def test_another_family_is_refused_with_the_reason(case: str):
    """By its config, and if that tells nothing, by trying."""
    settings, reason = REFUSED[case]
    with pytest.raises(UnsupportedLLMError, match=rf"'tiny' \({case.partition(',')[0]}\) .*{reason}"):
        admit(case, settings)


@pytest.mark.parametrize(
    ("case", "settings"),
    [
        ("mpt", REFUSED["mpt"][0]),
        ("gpt_neo", {**REFUSED["gpt_neo"][0], "window_size": 6}),
        ("jamba", MOE),
    ],
)
def test_the_self_test_finds_what_nobody_knew_of(case: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """Families known to differ, as if they were not: positions by place, windows by place, states."""
    model = tiny(case, settings)
    monkeypatch.setattr(type(model), "_is_stateful", False)
    assert packing_error(model) > 1e-2
    with pytest.raises(UnsupportedLLMError, match="differ by"):
        check_exact("tiny", model)


@pytest.mark.parametrize("settings", [{}, {"layer_types": ["sliding_attention", "full_attention"]}])
@pytest.mark.parametrize("size", [16, 40])
def test_a_window_that_an_llm_does_not_heed_is_found_though_prompts_of_the_test_are_shorter(
    settings: dict[str, Any], size: int
):
    """Llama's code looks up no window; masks by its config would hide what it sees."""
    model = tiny("llama", {**EXACT["llama"], "num_hidden_layers": 2})
    for name, value in {**settings, "sliding_window": size}.items():
        setattr(model.config, name, value)
    said = r"sliding_window, which its code may not heed|about a tree of tokens"
    with pytest.raises(UnsupportedLLMError, match=said):
        check_exact("tiny", model)
    model.config.sliding_window = model.config.max_position_embeddings  # longer than any prompt can be
    check_exact("tiny", model)


def test_a_window_that_is_heeded_is_no_reason_to_refuse():
    model = tiny("mistral", {**EXACT["mistral"], "sliding_window": 40})
    check_exact("tiny", model)
    assert model.config.sliding_window == 40


def test_a_cap_on_attention_is_kept():
    """Gemma 2 with a cap so low that leaving it out, as fused kernels do, would show."""
    capped = tiny("gemma2", EXACT["gemma2"] | {"attn_logit_softcapping": 0.1})
    fused = tiny("gemma2", EXACT["gemma2"] | {"attn_logit_softcapping": 0.1})
    fused.set_attn_implementation("sdpa")
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert (capped(tokens).logits - fused(tokens).logits).abs().max() > 0.1
    assert capped.config._attn_implementation == "eager"


def test_the_docs_name_what_is_tested():
    """`docs/llms.md` lists every exact type, and every refused one with its reason."""
    text = (Path(__file__).parents[3] / "docs" / "llms.md").read_text(encoding="utf-8")
    exact, refused = (text.partition(f"<!-- {part}:")[2].partition("\n## ")[0] for part in ("exact", "refused"))
    assert {case.partition(",")[0] for case in EXACT} == set(re.findall(r"`(\w+)`", exact)) - {"gemma3"}
    assert {case.partition(",")[0] for case in REFUSED} == set(re.findall(r"`(\w+)`", refused))
    for case, (_, reason) in REFUSED.items():
        kind = case.partition(",")[0]
        row = next(line for line in refused.splitlines() if f"`{kind}`" in line)
        assert reason.partition(":")[0] in row
