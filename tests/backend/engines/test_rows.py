"""Rows of a running batch: the numbers of a full forward pass, and the same numbers in any company."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from backend.engines.local import rows as rows_of
from backend.engines.local.loading import load_base
from backend.engines.local.model import Base
from backend.engines.local.placing import ModelProblem
from backend.engines.local.rows import FixedRows, PaddedRows, can_be_fixed

STARTER = Path(rows_of.__file__).parents[2] / "starter" / "weights"
SMALL = {"vocab_size": 320, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}


def llama(implementation: str) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, initializer_range=0.2, attn_implementation=implementation, **SMALL,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def gpt2(implementation: str) -> GPT2LMHeadModel:
    config = GPT2Config(
        n_embd=64, n_layer=2, n_head=4, n_positions=100, initializer_range=0.2, attn_implementation=implementation, **SMALL
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@pytest.fixture(params=[(llama, "sdpa"), (llama, "eager"), (gpt2, "sdpa"), (gpt2, "eager")], ids=str)
def base(request: pytest.FixtureRequest, tokenizer: object) -> Base:
    torch.manual_seed(0)
    make, implementation = request.param
    return Base(make(implementation), tokenizer, "small", "digest")


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


def has_exact_products() -> bool:
    """Whether a row of a matrix product has the same bits among 16 and among 32 rows here. Not every library on every
    processor has it; elsewhere the logits of a row are only close in larger company, and that is then what is asked."""
    draw = torch.Generator().manual_seed(0)
    for narrow, wide in ((192, 192), (192, 512), (512, 192), (192, 3072)):
        weight, rows = torch.randn(wide, narrow, generator=draw), torch.randn(32, narrow, generator=draw)
        few, many = (torch.nn.functional.linear(rows[:n], weight) for n in (16, 32))
        if not torch.equal(few, many[:16]):
            return False
    return True


def assert_same(found: torch.Tensor, expected: torch.Tensor, is_exact: bool) -> None:
    assert torch.equal(found, expected) if is_exact else torch.allclose(found, expected, atol=1e-4)


def draw_tokens(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(5, 300) for _ in range(count)]


def full(base: Base, tokens: list[int]) -> torch.Tensor:
    """The model's own answer, without a cache."""
    return base.model(input_ids=torch.tensor([tokens])).logits[0, -1]


def test_rows_that_come_and_go_have_the_logits_of_a_full_forward(base: Base) -> None:
    draw = random.Random(0)
    held, texts, last = FixedRows(base), [], torch.zeros(0, dtype=torch.long)
    for turn in range(80):
        if turn in (0, 3, 9):  # 1 + 2 rows, then 20 more, then a long one: more slots, more places
            lengths = {0: (7, 1), 3: (2, 30, 5, 17), 9: (70,)}[turn]
            prompts = [draw_tokens(draw, length) for length in lengths]
            sources = [at for at in range(len(prompts)) for _ in range({0: 1, 3: 5, 9: 1}[turn])]
            last = torch.cat([last, held.add(prompts, sources)])
            texts += [list(prompts[at]) for at in sources]
        logits = held.step(last)
        if turn % 8 < 2:
            expected = torch.stack([full(base, text) for text in texts])
            assert torch.allclose(logits, expected, atol=2e-4), turn
        last = torch.tensor(draw_tokens(draw, len(texts)))
        for text, token in zip(texts, last.tolist(), strict=True):
            text.append(token)
        if turn % 5 == 4 and len(texts) > 2:  # every second one leaves; the order turns round
            kept = [at for at in range(len(texts)) if at % 2][::-1]
            held.keep(kept)
            texts, last = [texts[at] for at in kept], last[kept]
        if max(map(len, texts)) >= 99:
            break
    assert turn > 25


def test_a_row_that_leaves_with_its_places_full_is_not_written_to_again(base: Base) -> None:
    draw = random.Random(5)
    prompts = [draw_tokens(draw, rows_of.ROOM - 1), draw_tokens(draw, 9)]
    held, texts = FixedRows(base), [*map(list, prompts)]
    held.step(held.add(prompts, [0, 1]))
    for text in texts:
        text.append(7)
    held.step(torch.tensor([7, 7]))  # the first row fills its last place
    held.keep([1])
    found = held.step(torch.tensor([8]))
    assert torch.allclose(found[0], full(base, [*texts[1], 8]), atol=2e-4)


def test_padded_rows_have_the_logits_of_a_full_forward(base: Base) -> None:
    draw = random.Random(1)
    prompts = [draw_tokens(draw, length) for length in (9, 1, 4)]
    held = PaddedRows(base, prompts, [0, 0, 1, 2])
    texts = [list(prompts[at]) for at in (0, 0, 1, 2)]
    last = held.last
    for turn in range(6):
        expected = torch.stack([full(base, text) for text in texts])
        assert torch.allclose(held.step(last), expected, atol=2e-4), turn
        last = torch.tensor(draw_tokens(draw, len(texts)))
        texts = [[*text, token] for text, token in zip(texts, last.tolist(), strict=True)]
        if turn == 2:
            held.keep([3, 1])
            texts, last = [texts[3], texts[1]], last[[3, 1]]


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MAMBA = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
OTHERS = {  # masks made from where a token stands in the cache, windows, states, and both in one layer
    "gpt_neo": {
        "vocab_size": 320, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "window_size": 4, "max_position_embeddings": 64,
    },
    "falcon": {
        "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True,
        "new_decoder_architecture": False, "multi_query": False,
    },
    "mistral": {**SHAPE, **SMALL, "sliding_window": 4},
    "mamba": MAMBA,
    "mamba2": {**MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "lfm2": {**SHAPE, **SMALL, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "falcon_h1": {
        **SHAPE, **SMALL, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
}  # fmt: skip


def of_kind(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **OTHERS[kind])).float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
    return model


@pytest.mark.parametrize("kind", OTHERS)
def test_padded_rows_of_every_kind_of_decoder_have_the_logits_of_a_full_forward(kind: str, tokenizer: object) -> None:
    base = Base(of_kind(kind), tokenizer, kind, "digest")
    assert not can_be_fixed(base)
    test_padded_rows_have_the_logits_of_a_full_forward(base)


def test_a_decoder_whose_cache_is_not_known_is_refused(tokenizer: object) -> None:
    config = AutoConfig.for_model("rwkv", vocab_size=320, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32)
    with pytest.raises(
        ModelProblem, match=r"reader \(rwkv\) keeps what it has read in a way of its own.*remote engine"
    ):
        Base(AutoModelForCausalLM.from_config(config), tokenizer, "reader", "digest")


def test_rotations_that_change_in_long_texts_bound_the_context_to_where_they_do_not(tokenizer: object) -> None:
    rotations = {
        "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 10000.0,
    }  # fmt: skip
    lengths = {"max_position_embeddings": 256, "original_max_position_embeddings": 32}
    config = AutoConfig.for_model("phi3", rope_parameters=rotations, **lengths, **SHAPE, **SMALL)
    assert Base(AutoModelForCausalLM.from_config(config), tokenizer, "long", "digest").context == 32


def test_padded_rows_of_single_tokens_begin_with_an_empty_cache(base: Base) -> None:
    held = PaddedRows(base, [[7], [9]], [0, 1])
    assert torch.allclose(held.step(held.last), torch.stack([full(base, [7]), full(base, [9])]), atol=2e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_logits_of_a_row_are_equal_to_the_last_bit_in_any_company(threads: int) -> None:
    """The starter model itself, up to 24 rows: a row's company, its slot and the room beside it leave no trace in its numbers."""
    base, draw, before = load_base(str(STARTER), device="cpu"), random.Random(2), torch.get_num_threads()
    torch.set_num_threads(threads)
    is_exact = has_exact_products()
    try:
        texts = [draw_tokens(draw, draw.choice((1, 2, 11, 30, 64, 90))) for _ in range(24)]
        following = [draw_tokens(draw, 8) for _ in texts]
        alone = [run_alone(base, text, after) for text, after in zip(texts, following, strict=True)]
        held, at, last = FixedRows(base), [], torch.zeros(0, dtype=torch.long)
        waiting, read = list(range(24)), [0] * 24
        while waiting or at:
            if waiting:
                count = draw.randrange(1, 8)
                joining, waiting = waiting[:count], waiting[count:]
                last = torch.cat([last, held.add([texts[one] for one in joining], range(len(joining)))])
                at += joining
            logits = held.step(last)
            for row, one in enumerate(at):
                assert_same(logits[row], alone[one][read[one]], is_exact)
            for one in at:
                read[one] += 1
            kept = [row for row, one in enumerate(at) if read[one] < 8]
            at = [at[row] for row in kept]
            last = torch.tensor([following[one][read[one] - 1] for one in at], dtype=torch.long)
            if at:
                held.keep(kept)
            else:
                held = FixedRows(base)
        assert read == [8] * 24
    finally:
        torch.set_num_threads(before)


def run_alone(base: Base, text: list[int], after: list[int]) -> list[torch.Tensor]:
    held = FixedRows(base)
    last, found = held.add([text], [0]), []
    for token in after:
        found.append(held.step(last)[0].clone())
        last = torch.tensor([token])
    return found


def test_up_to_sixteen_rows_are_equal_to_the_last_bit_on_any_processor() -> None:
    """A row alone is computed among sixteen as well, and its prompt by itself: the same products in the same order."""
    base, draw = load_base(str(STARTER), device="cpu"), random.Random(4)
    texts = [draw_tokens(draw, length) for length in (3, 90, 20, 20, 41, 1, 64, 7)]
    after = [draw_tokens(draw, 5) for _ in texts]
    alone = [run_alone(base, text, tokens) for text, tokens in zip(texts, after, strict=True)]
    held = FixedRows(base)
    last = held.add(texts, [at for at in range(8) for _ in range(2)])
    for step in range(5):
        logits = held.step(last)
        for row in range(16):
            assert torch.equal(logits[row], alone[row // 2][step])
        last = torch.tensor([after[at][step] for at in range(8) for _ in range(2)])


def test_scores_of_a_text_are_those_it_has_beside_longer_ones() -> None:
    base, draw = load_base(str(STARTER), device="cpu"), random.Random(3)
    texts = [draw_tokens(draw, length) for length in (5, 17, 40, 100)]
    together = base.logits(texts)
    for at, text in enumerate(texts):
        assert torch.allclose(base.logits([text])[0, : len(text)], together[at, : len(text)], atol=1e-4)


def test_a_model_with_a_sliding_window_starts_batches_of_its_own(tokenizer: object) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    sliding = MistralForCausalLM(MistralConfig(num_key_value_heads=1, sliding_window=8, **shape, **SMALL))
    assert not can_be_fixed(Base(sliding, tokenizer, "sliding", "digest"))
    assert can_be_fixed(Base(llama("sdpa"), tokenizer, "small", "digest"))
