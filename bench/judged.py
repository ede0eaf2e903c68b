"""What the learning measurement works on: the sample project's customer-service cases, answers, and judgements by a rule.

The rule is hidden from training: one point for a polite answer, one for a right one (backend/starter/service.py). A share of
the judgements is turned round; the rule's own points are used for nothing but the final score.
"""

from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Any, NamedTuple

from backend import starting
from backend.engines.kept import SamplingSettings
from backend.prompts import digest
from backend.starter import service, service_text
from backend.training import on_policy
from backend.training.data import Answer, AnswerRow, ComparisonRow, PromptRow, Tokens
from backend.training.rollout import Sampled, sample
from backend.training.run import Run
from backend.training.shared_base import SharedBase

LONGEST = SamplingSettings().max_tokens  # tokens of an answer, as answers on the pages have it
COMPARISONS = {"train": 2, "val": 4}  # of each case; what is scored in the end lies in the split test and in val


class Case:
    """One question of a customer, under the plain template of its language."""

    def __init__(self, number: int, language: str, question: str) -> None:
        self.number, self.language, self.question = number, language, question

    @cached_property
    def split(self) -> str:
        """By the rule that every project has: the text alone decides."""
        return digest.split_of(digest.case_digest(values={"input": self.question}, expected=None))

    @property
    def conversation(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.question}]

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": service_text.SYSTEM_TEXTS[self.language][1]}, *self.conversation]


class Written(NamedTuple):
    """One answer to a case."""

    text: str
    has_ended: bool
    tokens: list[int]


def cases(per_language: int = starting.SERVICE_CASES) -> list[Case]:
    asked = [
        (language, question.text)
        for language in starting.LANGUAGES
        for question in service.questions(2, per_language, language, "train")
    ]
    return [Case(number, *one) for number, one in enumerate(asked, 1)]


def points(case: Case, text: str) -> int:
    """The hidden rule, 0 to 2."""
    verdict = service.judge_question(case.question, text)
    assert verdict is not None, case.question
    return verdict.score


def answers(
    base: SharedBase, adapter: str | None, some: Sequence[Case], count: int, seed: int, purpose: str, run: Run
) -> list[list[Written]]:
    """``count`` answers to each case; the same seed and purpose draw alike for every policy."""
    prompts = [prefix(base, case) for case in some]
    found = sample(base, adapter, prompts, count, LONGEST, 1.0, seed, 0, run, purpose)
    texts = [Written(_text(base, one), one.has_ended, one.tokens) for one in found]
    return [texts[start : start + count] for start in range(0, len(texts), count)]


def prefix(base: SharedBase, case: Case) -> list[int]:
    return Tokens(base.tokenizer, base.longest).prefix(case.messages)


def _text(base: SharedBase, one: Sampled) -> str:
    text: str = base.tokenizer.decode(one.tokens, skip_special_tokens=True)
    return text


def ranks(first: int, second: int, noise: float, rng: Random) -> list[int]:
    """1 for more points, equal for a tie; turned round with the probability ``noise``, where a tie becomes a side."""
    difference = first - second
    if rng.random() < noise:
        difference = -difference or rng.choice((-1, 1))
    if difference == 0:
        return [1, 1]
    return [1, 2] if difference > 0 else [2, 1]


def pairs(written: Sequence[Written]) -> list[tuple[Written, Written]]:
    """Each answer in one pair at most; two answers of one text are no comparison."""
    both = zip(written[::2], written[1::2], strict=False)
    return [(first, second) for first, second in both if first.text != second.text]


def comparisons(base: SharedBase, all_cases: Sequence[Case], noise: float, seed: int, run: Run) -> list[ComparisonRow]:
    """Pairs of the base's own answers, judged."""
    rng = Random(f"judgements {seed}")
    found = []
    for split, times in COMPARISONS.items():
        some = [case for case in all_cases if case.split == split]
        written = answers(base, None, some, 2 * times, seed, f"compared {split}", run)
        for case, mine in zip(some, written, strict=True):
            found += [judged(case, pair, noise, rng) for pair in pairs(mine)]
    return found


def judged(case: Case, pair: tuple[Written, Written], noise: float, rng: Random) -> ComparisonRow:
    first, second = (points(case, one.text) for one in pair)
    return ComparisonRow(
        case=case.number,
        split=case.split,
        conversation=case.conversation,
        answers=[Answer(None, one.text, one.has_ended) for one in pair],
        ranks=ranks(first, second, noise, rng),
        prompts=[case.messages] * 2,
    )


def winners(rows: Sequence[ComparisonRow]) -> list[AnswerRow]:
    """The better answer of each comparison that has one, as SFT learns from it."""
    return [
        AnswerRow(row.case, row.split, row.prompts[0], row.answers[row.ranks.index(1)], "winner")
        for row in rows
        if row.ranks.count(1) == 1
    ]


def prompts(some: Sequence[Case]) -> list[PromptRow]:
    """What PPO and IFT answer while they train."""
    return [
        PromptRow(case.number, case.split, case.messages, case.conversation) for case in some if case.split == "train"
    ]


def encoded(base: SharedBase, some: Sequence[Case], settings: Any) -> list[on_policy.Prompt]:
    """Held-out cases as policy and reward model read them."""
    rows = [PromptRow(case.number, case.split, case.messages, case.conversation) for case in some]
    return on_policy.encode(base, rows, settings)[0]
