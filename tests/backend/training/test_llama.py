"""What is wired here once more computes what the model's own forward computes, in every family it is used for."""

import torch
from torch import Tensor

from backend.decoder.stack import Stack, is_wired_alike
from backend.training import llama, packing
from backend.training.shared_base import SharedBase
from tests.backend.training import tiny, wired

PROMPTS = [[2, 9, 10, 11, 3], [2, 12, 3], [4, 7, 2, 8, 9, 13, 3]]
ANSWERS = torch.tensor([[7, 8, 9], [10, 1, 0], [5, 5, 6], [9, 9, 9], [8, 7, 1], [6, 10, 11]])  # two to each prompt


def decoder_of(base: SharedBase, length: int) -> llama.Decoder:
    """Two answers to each prompt, under the open scope."""
    assert base.stack is not None
    return llama.Decoder(base.stack, base.stack.adapters(["policy"]), PROMPTS, 2, length)


def whole(base: SharedBase, prompt: list[int], answer: list[int]) -> Tensor:
    """States after each of the answer's tokens, read at once."""
    tokens = torch.tensor([prompt + answer])
    return base.states(tokens, torch.ones_like(tokens, dtype=torch.bool))[0, len(prompt) :]


@torch.no_grad()
def test_decoding_gives_the_states_of_reading_at_once() -> None:
    for base in wired.bases():
        assert isinstance(base.stack, Stack)
        with base.scope("policy"):
            decoder = decoder_of(base, 4)
            for row in range(6):
                prompt = PROMPTS[row // 2]
                torch.testing.assert_close(
                    decoder.states[row], whole(base, prompt[:-1], prompt[-1:])[0], rtol=1e-4, atol=1e-5
                )
            found = torch.stack([decoder.step(ANSWERS[:, t]) for t in range(3)], 1)  # (6, 3, D)
            for row, answer in enumerate(ANSWERS.tolist()):
                expected = whole(base, PROMPTS[row // 2], answer)
                torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_answers_go_on_after_others_have_left() -> None:
    for base in wired.bases():
        with base.scope("policy"):
            decoder = decoder_of(base, 3)
            decoder.step(ANSWERS[:, 0])
            decoder.keep(torch.tensor([0, 2]))
            stay = torch.tensor([0, 1, 4, 5])
            decoder.step(ANSWERS[stay, 1])
            found = decoder.step(ANSWERS[stay, 2])
            for place, row in enumerate(stay.tolist()):
                expected = whole(base, PROMPTS[row // 2], ANSWERS[row].tolist())[-1]
                torch.testing.assert_close(found[place], expected, rtol=1e-4, atol=1e-5)


def test_the_last_layer_of_wanted_columns_is_that_of_all() -> None:
    pieces = [packing.Piece(0, 6, 0, 0), packing.Piece(6, 9, 0, 3)]
    columns = torch.tensor([2, 5, 7, 8])
    tokens = torch.tensor([[2, 9, 10, 11, 3, 7, 8, 9, 1]])
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 3, 4, 5]])
    for base in wired.untouched():
        layer = base.backbone.layers[-1]  # type: ignore[index, union-attr]
        layer.__dict__.pop("forward")  # as the family made it
        found = []
        for is_trimmed in (False, True):
            if is_trimmed:
                llama.trim_last_layer(base.backbone)
            with base.scope("policy"):
                line = packing.line_of(pieces, torch.float32, columns if is_trimmed else None)
                base.causal.config._attn_implementation = packing.NAME
                states = base._read(tokens, None, {"position_ids": positions, "line": line})
                base.causal.config._attn_implementation = "sdpa"
                states = states if is_trimmed else states[:, columns]
                weight = torch.randn(states.shape, generator=torch.Generator().manual_seed(3))
                for parameter in base.weights("policy"):
                    parameter.grad = None
                (states * weight).sum().backward()
            gradient = torch.cat([p.grad.flatten() for p in base.weights("policy") if p.grad is not None])
            found.append((states.detach(), gradient))
        (whole_states, whole_gradient), (states, gradient) = found
        assert states.shape == (1, 4, whole_states.shape[-1])
        torch.testing.assert_close(states, whole_states, rtol=1e-4, atol=1e-5)
        assert float((gradient - whole_gradient).norm() / whole_gradient.norm()) < 1e-5


@torch.no_grad()
def test_a_trimmed_layer_still_reads_rows() -> None:
    for base in wired.untouched():
        llama.trim_last_layer(base.backbone)
        tokens = torch.tensor([PROMPTS[0]])
        with base.scope("policy"):
            states = base.states(tokens, torch.ones_like(tokens, dtype=torch.bool))
        assert states.shape == (1, 5, base.width)


def test_other_families_are_not_taken_for_it() -> None:
    assert not is_wired_alike(tiny.base("gpt2").backbone)
