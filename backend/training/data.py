"""Frozen rows to token ids, and batches cut by tokens. Nothing is cut or dropped without a count."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from backend.training.chat_ids import chat_ids, text_ids
from backend.training.draws import generator

Row = TypeVar("Row")


class Pass(NamedTuple):
    """What a forward and backward is on a kind of device; both numbers are our choice."""

    price: int  # tokens that could be read in the time it takes before it reads any
    times: int  # how many times the tokens of the setting it takes


PROCESSOR = Pass(64, 1)
GPU = Pass(4096, 8)


class BadRows(ValueError):
    """A row of the job's data is not as agreed; the message names line and field."""


class Answer(NamedTuple):
    completion: int | None  # None: written by a person
    text: str
    has_ended: bool  # the end token was sampled; False: cut at the limit


@dataclass(frozen=True)
class ComparisonRow:
    """Answers to one case and how they were ranked, as the reward model sees them."""

    case: int
    split: str  # train, val or test; a case has one split
    conversation: list[dict[str, str]]
    answers: list[Answer]
    ranks: list[int]  # 1 is best; equal is a tie
    weight: float = 1.0
    strength: float | None = None
    both_bad: bool = False
    prompts: list[list[dict[str, str]]] = field(default_factory=list)  # what each answer answered; only DPO reads it
    is_newest: bool = False  # an answer is of the policy whose newest answers the report looks at
    comparison: int | None = None  # only where the queue is ordered
    arm: str = "random"  # which part of the queue it was in
    share: float | None = None  # of a pair: how probably the first is the better one, a tie half; None: as ranked


@dataclass(frozen=True)
class PromptRow:
    """One prompt for the policy, and the case behind it for the reward model."""

    case: int
    split: str
    messages: list[dict[str, str]]
    conversation: list[dict[str, str]]


@dataclass(frozen=True)
class AnswerRow:
    """One answer worth learning from, with the prompt it answers."""

    case: int | None  # None: a demonstration
    split: str
    messages: list[dict[str, str]]
    answer: Answer
    source: str  # demonstration, edited, winner or baked
    conversation: list[dict[str, str]] = field(default_factory=list)  # the case as a reward model reads it


@dataclass(frozen=True)
class UnpairedRow:
    """One answer with the prompt it answers, and what people say of it."""

    case: int | None  # None: a demonstration
    split: str
    messages: list[dict[str, str]]
    answer: Answer
    is_desirable: bool | None  # None: they do not agree, or say neither
    weight: float  # 1 when all agree
    source: str  # demonstration, edited, winner, loser, both_bad, flagged, mended or undecided
    is_contradicted: bool  # one said good, another bad


@dataclass(frozen=True)
class TextRow:
    """One text for pretraining."""

    document: int
    split: str
    text: str


def read_comparisons(path: Path, with_prompts: bool = False, with_good: bool = False) -> list[ComparisonRow]:
    """``with_prompts``: a row without the prompt of each of its answers is refused. ``with_good``: the good answers that
    stand behind the comparisons are for ``read_good_answers``."""

    def parse(row: dict[str, Any]) -> ComparisonRow:
        answers = [Answer(a["completion"], str(a["text"]), bool(a.get("ended", True))) for a in row["answers"]]
        ranks = [int(rank) for rank in row["ranks"]]
        if len(ranks) != len(answers) or len(answers) < 2:
            raise ValueError("ranks and answers must be two or more, and equally many")
        if with_prompts and len(row["prompts"]) != len(answers):
            raise ValueError("there must be a prompt for each answer")
        return ComparisonRow(
            case=row["case"],
            split=row["split"],
            conversation=row["conversation"],
            answers=answers,
            ranks=ranks,
            weight=float(row.get("weight", 1.0)),
            strength=row.get("strength"),
            both_bad=bool(row.get("both_bad", False)),
            prompts=row["prompts"] if with_prompts else [],
            is_newest=bool(row.get("is_newest", False)),
            share=_share(row.get("share"), len(answers)),
        )

    return _read(path, parse, lambda row: not (with_good and "source" in row))


def _share(given: Any, answers: int) -> float | None:
    if given is None:
        return None
    if answers != 2 or not 0 <= float(given) <= 1:
        raise ValueError("share is of two answers, and between 0 and 1")
    return float(given)


def read_queue(path: Path) -> list[ComparisonRow]:
    """Judgements and, without ranks, the comparisons that wait for one."""

    def parse(row: dict[str, Any]) -> ComparisonRow:
        answers = [Answer(a["completion"], str(a["text"]), bool(a.get("ended", True))) for a in row["answers"]]
        ranks = [int(rank) for rank in row.get("ranks", [])]
        if len(answers) < 2 or len(ranks) not in (0, len(answers)):
            raise ValueError("answers must be two or more, and ranks as many or none")
        return ComparisonRow(
            case=row["case"], split=row["split"], conversation=row["conversation"], answers=answers, ranks=ranks,
            weight=float(row.get("weight", 1.0)), both_bad=bool(row.get("both_bad", False)),
            comparison=int(row["comparison"]), arm=str(row["arm"]),
        )  # fmt: skip

    return _read(path, parse)


def read_prompts(path: Path) -> list[PromptRow]:
    return _read(path, lambda row: PromptRow(row["case"], row["split"], row["messages"], row["conversation"]))


def read_answers(path: Path) -> list[AnswerRow]:
    def parse(row: dict[str, Any]) -> AnswerRow:
        a = row["answer"]
        answer = Answer(a["completion"], str(a["text"]), bool(a["ended"]))
        return AnswerRow(row["case"], row["split"], row["messages"], answer, str(row["source"]))

    return _read(path, parse)


def read_good_answers(path: Path) -> list[AnswerRow]:
    """The answers worth learning from that stand behind the comparisons, each with its case."""

    def parse(row: dict[str, Any]) -> AnswerRow:
        a = row["answer"]
        answer = Answer(a["completion"], str(a["text"]), bool(a["ended"]))
        return AnswerRow(row["case"], row["split"], row["messages"], answer, str(row["source"]), row["conversation"])

    return _read(path, parse, lambda row: "source" in row)


def read_unpaired(path: Path) -> list[UnpairedRow]:
    def parse(row: dict[str, Any]) -> UnpairedRow:
        a, verdict, weight = row["answer"], row["desirable"], float(row["weight"])
        if not isinstance(verdict, bool | None) or not (0 < weight <= 1 or verdict is None):
            raise ValueError("desirable must be true, false or null, and weight between 0 and 1")
        return UnpairedRow(
            case=row["case"],
            split=row["split"],
            messages=row["messages"],
            answer=Answer(a["completion"], str(a["text"]), bool(a["ended"])),
            is_desirable=verdict,
            weight=weight,
            source=str(row["source"]),
            is_contradicted=bool(row["is_contradicted"]),
        )

    return _read(path, parse)


def read_texts(path: Path) -> list[TextRow]:
    return _read(path, lambda row: TextRow(row["document"], row["split"], str(row["text"])))


def _read(
    path: Path, parse: Callable[[dict[str, Any]], Row], where: Callable[[dict[str, Any]], bool] = lambda row: True
) -> list[Row]:
    """``where``: which of the file's rows are read."""
    rows = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
                if where(row):
                    rows.append(parse(row))
            except (ValueError, KeyError, TypeError, AttributeError) as cause:
                raise BadRows(
                    f"Line {number} of the job's rows is not usable ({cause}). Make the snapshot again."
                ) from cause
    return rows


class Pair(NamedTuple):
    """Two answers of one comparison, by their places in it."""

    first: int
    second: int
    share: float  # 1 the first is better, 0 the second, .5 a tie


def pairs_of(row: ComparisonRow, ranks: Sequence[int] | None = None) -> list[Pair]:
    """All C(K, 2) pairs in the order the answers have in the row; "both bad" without a winner says nothing here."""
    ranks = row.ranks if ranks is None else ranks
    found = []
    for i, j in combinations(range(len(ranks)), 2):
        share = 0.5 if ranks[i] == ranks[j] else float(ranks[i] < ranks[j])
        if not (row.both_bad and share == 0.5):
            found.append(Pair(i, j, share if row.share is None else row.share))
    return found


@dataclass
class Tokens:
    """Text to token ids with one tokenizer, counting what had to be cut."""

    tokenizer: Any
    longest: int
    counts: Counter[str] = field(default_factory=Counter)

    def prefix(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """A conversation up to where the answer begins."""
        if getattr(self.tokenizer, "chat_template", None):
            return chat_ids(self.tokenizer, messages)
        # A base without a template: plain lines. A model in use brings its own template.
        text = "\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in messages) + "\nAssistant:"
        return text_ids(self.tokenizer, text)

    def answer(self, text: str, has_ended: bool) -> list[int]:
        """Never taken from the joined string: a token must not span the border."""
        return text_ids(self.tokenizer, text) + [int(self.tokenizer.eos_token_id)] * has_ended

    def joined(self, prefix: Sequence[int], answers: Sequence[Sequence[int]]) -> list[list[int]] | None:
        """Prefix and answer for every answer. Too long: the prefix loses its front, the same for all answers, since
        they are compared. None when an answer alone is too long."""
        room = self.longest - max(len(answer) for answer in answers)
        if room < 1:
            self.counts["answers_too_long"] += 1
            return None
        return [[*self.cut(prefix, room), *answer] for answer in answers]

    def cut(self, prefix: Sequence[int], room: int) -> list[int]:
        if len(prefix) <= room:
            return list(prefix)
        self.counts["cases_cut"] += 1
        return list(prefix[-room:])


def microbatches(
    lengths: Sequence[int], tokens: int, seed: int, step: int, price: int = PROCESSOR.price
) -> list[list[int]]:
    """Places sorted by length and cut so that none, padded, exceeds ``tokens``; shuffled by the seed. Of all such cuts it
    is the one that computes least, padding and the price of a pass in tokens counted. The cuts are a function of the
    arguments alone, so a run repeats itself to the bit."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    cheapest = [0] * (len(order) + 1)  # tokens paid from this place of the order to its end
    ends = [0] * len(order)  # where the part that begins here ends, when it is cut best
    for start in reversed(range(len(order))):
        padded = lengths[order[start]]  # tokens of one place in this part
        last = max(start + 1, min(len(order), start + tokens // max(padded, 1)))
        costs = {end: (end - start) * padded + price + cheapest[end] for end in range(start + 1, last + 1)}
        ends[start] = min(costs, key=lambda end: (costs[end], -end))
        cheapest[start] = costs[ends[start]]
    parts, start = [], 0
    while start < len(order):
        parts.append(order[start : ends[start]])
        start = ends[start]
    shuffled = torch.randperm(len(parts), generator=generator(seed, step, "microbatches")).tolist()
    return [parts[i] for i in shuffled]


def lines(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Places in their order, cut into lines of about equal length that hold at most ``tokens`` where one place does."""
    count = max(1, math.ceil(sum(lengths) / tokens))
    goal = min(tokens, math.ceil(sum(lengths) / count) + max(lengths, default=0) // 2)
    found: list[list[int]] = []
    taken = 0
    for place, length in enumerate(lengths):
        if not found or taken + length > goal:
            found.append([])
            taken = 0
        found[-1].append(place)
        taken += length
    return found


class Padded(NamedTuple):
    tokens: Tensor  # (B, T)
    is_real: Tensor  # (B, T) True where a token is not padding


def pad_left(sequences: Iterable[Sequence[int]], pad_id: int, device: torch.device | str = "cpu") -> Padded:
    rows = list(sequences)
    width = max(len(row) for row in rows)
    tokens = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
    is_real = torch.arange(width)[None] >= torch.tensor([width - len(row) for row in rows])[:, None]
    return Padded(tokens.to(device), is_real.to(device))


def pad_right(sequences: Iterable[Sequence[int]], pad_id: int, device: torch.device | str = "cpu") -> Padded:
    rows = list(sequences)
    width = max(len(row) for row in rows)
    tokens = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows])
    is_real = torch.arange(width)[None] < torch.tensor([len(row) for row in rows])[:, None]
    return Padded(tokens.to(device), is_real.to(device))


def side_by_side(prompts: Tensor, count: int) -> Tensor:
    """Rows of the answers to these prompts where the ``count`` answers to each prompt follow one another. (P,) -> (P x count,)"""
    return (prompts[:, None] * count + torch.arange(count, device=prompts.device)).flatten()
