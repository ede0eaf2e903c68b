"""The engine's number formats beside float32: how many greedy tokens stay as they are, and how far distributions move.

Each format reads float32's greedy answers and says its own next token behind each of their tokens (given the text), and writes
answers of its own, compared place by place (by itself).
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backend.engines.local.loading import Setting, load_base
from backend.engines.local.mixed import MixedRows, fewest_rows
from backend.engines.local.model import Base
from backend.engines.local.prefixes import Prefixes
from backend.engines.local.prompts import Prompt
from backend.settings import STARTER
from bench import report, workload
from bench.training import CACHE, PAIRS

PROMPT, NEW, PROMPTS = 144, 48, 64  # tokens of a prompt, of an answer; prompts
SHORTEST, LONGEST = 20, 200  # characters of a question that the starter model is asked
FORMATS = {"bfloat16": Setting("cpu", "bfloat16"), "int8": Setting("cpu", "float32", quantisation="int8")}
REACH = 0.99  # of the starter model's greedy tokens, given the text; models of random weights have no such thing to say


class Compared(NamedTuple):
    tokens: int
    given: float  # share of tokens that are the same behind the same text
    by_itself: float
    kl: float  # of the format from float32, mean over tokens, in nats


def measure(quick: bool, pairs: Path | None = None) -> report.Found:
    torch.set_num_threads(1)
    given = pairs or (PAIRS if PAIRS.exists() else None)
    sizes = ["6M"] if quick else ["6M", "90M"]
    folder = workload.prepare(CACHE, given, sizes)
    models = {"starter": STARTER, **{size: folder / f"base-{size}" for size in sizes}}
    rows, facts = [], {}
    for name, source in models.items():
        exact = load_base(str(source), Setting("cpu", "float32"))
        prompts = workload.prompts(folder, PROMPTS // 2, PROMPT) if name != "starter" else questions(exact, given)
        for kind, setting in FORMATS.items():
            found = compared(exact, load_base(str(source), setting), prompts)
            facts[f"{name} {kind}"] = found._asdict()
            label = f"greedy tokens ({name}, {kind}, {found.tokens} tokens, {found.by_itself:.1%} by itself, KL {found.kl:.1e})"
            reach = REACH if name == "starter" else 0.0
            rows.append(report.at_least(label, "float32, given its text", [found.given], [1.0], reach))
            print(report.table(rows[-1:]), flush=True)
    return report.Found(rows, facts)


def questions(base: Base, pairs: Path | None) -> list[list[int]]:
    """The first turns of real dialogues, as conversations."""
    texts = workload.read_pairs(pairs) if pairs else workload.made_pairs(4 * PROMPTS)
    first = (pair.prompt.split("Human:")[1].split(workload.ASSISTANT)[0].strip() for pair in texts)
    wanted = (text for text in first if SHORTEST < len(text) < LONGEST)
    return [base.chat_tokens([{"role": "user", "content": text}]) for text in islice(wanted, PROMPTS)]


def compared(exact: Base, other: Base, prompts: Sequence[list[int]]) -> Compared:
    """What stands behind the end of one of float32's answers does not count."""
    text, expected = written(exact, prompts)
    _, found = written(other, prompts, text)
    own, _ = written(other, prompts)
    is_end = torch.zeros_like(text, dtype=torch.bool)
    for token in exact.end_tokens:
        is_end |= text == token
    counts = is_end.cumsum(1) - is_end.int() == 0  # (prompts, NEW)
    logps, others = expected.log_softmax(-1), found.log_softmax(-1)
    kl = (others.exp() * (others - logps)).sum(-1)
    return Compared(
        int(counts.sum()),
        float((found.argmax(-1) == text)[counts].float().mean()),
        float((own == text)[counts].float().mean()),
        float(kl[counts].mean()),
    )


@torch.inference_mode()
def written(base: Base, prompts: Sequence[list[int]], text: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Greedy tokens (prompts, NEW), or ``text``, and the logits that each was chosen from, (prompts, NEW, V)."""
    stack: Any = base.stack
    rows = MixedRows(stack, base.context, Prefixes(0), fewest_rows(stack), 1 << 30)
    logits = [rows.add([Prompt(prompt, None, "base") for prompt in prompts], range(len(prompts)))]
    tokens = []
    for at in range(NEW):
        tokens.append(logits[-1].argmax(-1) if text is None else text[:, at])
        if at + 1 < NEW:
            logits.append(rows.step(tokens[-1]))
    return torch.stack(tokens, 1), torch.stack(logits, 1)
