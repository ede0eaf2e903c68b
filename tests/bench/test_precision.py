"""How formats are compared: a base with itself, and with itself in half precision; what stands behind an answer's end is left out."""

import torch

from backend.engines.local.loading import load_base
from backend.settings import STARTER
from bench import precision


def test_a_base_says_what_itself_says_and_half_precision_nearly() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    exact = load_base(str(STARTER), precision.Setting("cpu", "float32"))
    half = load_base(str(STARTER), precision.FORMATS["bfloat16"])
    prompts = precision.questions(exact, None)[:6]
    same = precision.compared(exact, exact, prompts)
    assert same[1:] == (1.0, 1.0, 0.0)
    near = precision.compared(exact, half, prompts)
    assert near.tokens == same.tokens
    assert 1e-8 < near.kl < 1e-2
    assert 0.9 < near.given <= 1.0 and near.by_itself <= 1.0
    torch.set_num_threads(threads)


def test_what_stands_behind_an_end_does_not_count() -> None:
    exact = load_base(str(STARTER), precision.Setting("cpu", "float32"))
    prompts = precision.questions(exact, None)[:6]
    text, _ = precision.written(exact, prompts)
    third = int(text[0, 2])
    ends = [row.tolist().index(third) + 1 if third in row else precision.NEW for row in text]
    exact.end_tokens = frozenset({third})
    assert precision.compared(exact, exact, prompts).tokens == sum(ends) < text.numel()
