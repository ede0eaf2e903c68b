"""A reward model as it judges: one adapter and scalar head or several on the frozen base, their scores, their files.

The first member's files are a plain PEFT adapter and ``head.safetensors``, which also says how many members there are;
the others' are adapter-2.safetensors, head-2.safetensors and so on, of the first one's shape and configuration.
"""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backend.registry.artifacts import BadArtifact
from backend.training import tree
from backend.training.adapter_files import ADAPTER_WEIGHTS
from backend.training.shared_base import SharedBase

ADAPTER = "reward"
HEAD = "head.safetensors"
# One number must keep up with scores that thousands move, and Adam moves all alike. Our choice: it rests on two small sets
# of judgements, where theta came nearer to the ties that were judged (docs/training-log.md).
TIES_RATE = 10.0
MEMBERS = "members"  # in the metadata of HEAD where there are several


class Head(nn.Module):
    """score = gain * (weight . state - bias); bias and gain make held-out scores mean 0, deviation 1."""

    def __init__(self, width: int, models_ties: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.ties = nn.Parameter(torch.zeros(1)) if models_ties else None
        self.bias: Tensor
        self.gain: Tensor
        self.register_buffer("bias", torch.zeros(1))
        self.register_buffer("gain", torch.ones(1))

    @property
    def log_theta(self) -> Tensor | None:
        """How far apart, in raw scores, a win and a loss are from a tie (maths.outcome_logp); None without a ties model."""
        return None if self.ties is None else nn.functional.softplus(TIES_RATE * self.ties)

    def raw(self, states: Tensor) -> Tensor:
        """(B, D) -> (B,) in fp32."""
        return states.float() @ self.weight[0]

    def normalised(self, raw: Tensor) -> Tensor:
        return self.gain * (raw - self.bias)

    def forward(self, states: Tensor) -> Tensor:
        return self.normalised(self.raw(states))


class Member(NamedTuple):
    """An adapter on the base, by its name, and the head that reads its states."""

    adapter: str
    head: Head


class Judge(NamedTuple):
    """Who scores answers; several members see one base and disagree where the judgements say little."""

    members: tuple[Member, ...]


class Base(Protocol):
    """What a head must know of the base it reads."""

    @property
    def width(self) -> int: ...

    @property
    def device(self) -> torch.device: ...


class Place(NamedTuple):
    """Where a head is to be read, for who has no ``SharedBase``."""

    width: int
    device: torch.device


class Norm(NamedTuple):
    bias: float
    gain: float


def alone(head: Head, adapter: str = ADAPTER) -> Judge:
    return Judge((Member(adapter, head),))


def name_of(adapter: str, number: int) -> str:
    """reward, reward-2, reward-3 ..."""
    return adapter if number == 1 else f"{adapter}-{number}"


def files_of(number: int) -> tuple[str, str]:
    """Names of the files that hold a member's adapter and head."""
    return (ADAPTER_WEIGHTS, HEAD) if number == 1 else (f"adapter-{number}.safetensors", f"head-{number}.safetensors")


def scores(base: SharedBase, judge: Judge, sequences: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """What each member says of each sequence, in its normalised scores. (members, N)"""
    found = [
        member.head.normalised(score_sequences(base, member, sequences, tokens).to(base.device))
        for member in judge.members
    ]
    return torch.stack(found)


def score_sequences(base: SharedBase, member: Member, sequences: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """Raw scores of token sequences in their order, on the CPU; neighbours that begin alike are read together. (N,)"""
    groups = tree.neighbours(sequences, tokens) if base.reads_trees else [[sequence] for sequence in sequences]
    return score_groups(base, member, groups, tokens)


@torch.no_grad()
def score_groups(base: SharedBase, member: Member, groups: Sequence[tree.Group], tokens: int) -> Tensor:
    """Raw scores of the sequences of groups that begin alike, group by group, on the CPU. (N,)"""
    starts = [0, *accumulate(len(group) for group in groups)]
    found = torch.zeros(starts[-1])
    with base.scope(member.adapter):
        for part in tree.parts(base, groups, tokens, seed=0, step=0):
            places = [place for i in part for place in range(starts[i], starts[i + 1])]
            found[places] = member.head.raw(tree.ends(base, [groups[i] for i in part])).cpu()
    return found


def norm_of(raw: Sequence[Sequence[float]]) -> Norm:
    """Bias and gain that give these scores mean 0 and deviation 1."""
    flat = torch.tensor([score for row in raw for score in row], dtype=torch.float64)
    return Norm(float(flat.mean()), 1 / max(float(flat.std()) if len(flat) > 1 else 1.0, 1e-6))


def normalise(head: Head, raw: Sequence[Sequence[float]]) -> None:
    """From the scores given: held-out ones, or the training ones when nothing is held out."""
    bias, gain = norm_of(raw)
    head.bias.fill_(bias)
    head.gain.fill_(gain)


def save(base: SharedBase, judge: Judge, folder: Path) -> None:
    several = {MEMBERS: str(len(judge.members))} if len(judge.members) > 1 else {}
    for number, member in enumerate(judge.members, 1):
        adapter_file, head_file = files_of(number)
        base.save(member.adapter, folder, adapter_file)
        state = {name: value.detach().float().cpu().contiguous() for name, value in member.head.state_dict().items()}
        # one entry: safetensors writes several in an order that changes from process to process
        save_file(state, folder / head_file, metadata=several if several and number == 1 else {"format": "pt"})


def load(base: SharedBase, folder: Path, adapter: str = ADAPTER) -> Judge:
    """All members of a verified reward model, their adapters named after ``adapter``; refuses a folder that is none."""
    if not (folder / HEAD).is_file():
        raise BadArtifact(f"The model {folder.name} has no {HEAD}: it is not a reward model. Choose another.")
    count = members_in(folder)
    wanted = {name for number in range(1, count + 1) for name in files_of(number)}
    found = {path.name for path in folder.glob("*.safetensors")}
    if wanted != found:
        differing = ", ".join(sorted(wanted ^ found))
        raise BadArtifact(
            f"The model {folder.name} should hold {count} members; missing or not expected: {differing}. Train it again."
        )
    heads = [load_head(base, folder, files_of(number)[1]) for number in range(1, count + 1)]
    members = []
    for number, head in enumerate(heads, 1):
        base.load(name_of(adapter, number), folder, files_of(number)[0])
        members.append(Member(name_of(adapter, number), head))
    return Judge(tuple(members))


def members_in(folder: Path) -> int:
    with safe_open(folder / HEAD, framework="pt") as file:
        told = (file.metadata() or {}).get(MEMBERS, "1")
    if not (told.isdecimal() and int(told) >= 1):
        raise BadArtifact(f"The model {folder.name}: {HEAD} names {told!r} members. Train it again.")
    return int(told)


def load_head(base: Base, folder: Path, file: str) -> Head:
    state = load_file(folder / file)
    head = Head(base.width, models_ties="ties" in state)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in head.state_dict().items()}:
        raise BadArtifact(f"The model {folder.name}: {file} does not fit the base. Use its own base.")
    if not all(torch.isfinite(v).all() for v in state.values()) or not bool(state["weight"].any()):
        raise BadArtifact(f"The model {folder.name}: {file} is empty or not finite. Train it again.")
    head.load_state_dict(state)
    return head.requires_grad_(False).to(base.device)
