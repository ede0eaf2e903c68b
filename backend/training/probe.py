"""Linear probe: Bradley-Terry on frozen features, fitted in a moment. What a reward model must beat to be worth its training.

Each answer's features are the bare base's last states, at its last token and on average over its own tokens, and the log
of its length. score = weight . features / scale, and the loss of a pair is that of the reward model (maths.py) plus a ridge,
penalty / 2 * |weight|^2. It is convex: L-BFGS (lbfgs.py) finds the minimum with products of features and vectors alone.
The penalty is the one of ``PENALTIES`` with the least loss on a fifth of the cases.

Left out: features of middle layers, an intercept (a pair has no order).
"""

import hashlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.training import lbfgs, report, tree
from backend.training.data import Pair
from backend.training.maths import bradley_terry_loss
from backend.training.run import Run
from backend.training.shared_base import SharedBase

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
CHOSEN_ON = 5  # every fifth case says which penalty is best
SMALLEST_SLOPE = 1e-4  # of the loss per pair, in every direction, at which a fit ends
BLOCK_PAIRS = (
    160  # of about a thousand features: two thirds of a megabyte, which a core's second cache holds beside the rest
)


class Compared(NamedTuple):
    """The answers of one case as token ids, and how people judged them."""

    sequences: tree.Group
    pairs: Sequence[Pair]
    weight: float
    case: Hashable


class Pairs(NamedTuple):
    """Differences of features, first answer less second; shares of judgement for the first; weights; cases."""

    differences: Tensor  # (P, F) float32
    shares: Tensor  # (P,)
    weights: Tensor  # (P,)
    cases: list[Hashable]

    def take(self, places: Sequence[int]) -> "Pairs":
        at = torch.tensor(places, dtype=torch.long)
        return Pairs(self.differences[at], self.shares[at], self.weights[at], [self.cases[i] for i in places])


class Probe(NamedTuple):
    weight: Tensor  # (F,) of features divided by ``scale``
    scale: Tensor  # (F,)
    penalty: float

    def differences(self, pairs: Pairs) -> Tensor:
        """Score of each first answer less that of the second. (P,)"""
        return (pairs.differences / self.scale) @ self.weight


class Reached(NamedTuple):
    """What a probe came to on held-out comparisons."""

    told: dict[str, Any]  # accuracy with its interval and n, log loss, and the penalty chosen
    judged: report.Judged  # pair by pair


def compare(
    features: "Features", training: Sequence[Compared], held_out: Sequence[Compared], tokens: int, run: Run
) -> Reached | None:
    """What a probe reaches on the comparisons a reward model is about to learn from; None where nothing decided is held out.

    The features are kept for the next run.
    """
    learnt, asked = (pairs_of(features, items, tokens, run) for items in (training, held_out))
    features.save()
    if learnt is None or asked is None:
        return None
    probe = fit(learnt)
    judged = report.Judged(probe.differences(asked).tolist(), asked.shares.tolist(), asked.cases)
    if not judged.decided().shares:
        return None
    accuracy = judged.accuracy()
    run.message(
        f"A linear probe on the bare base agrees with {accuracy.value:.1%} of {accuracy.n} held-out pairs; "
        "the reward model should do better."
    )
    told = {**accuracy.as_dict(), "log_loss": round(report.log_loss(judged), 6), "penalty": probe.penalty}
    return Reached(told, judged)


def pairs_of(features: "Features", items: Sequence[Compared], tokens: int, run: Run) -> Pairs | None:
    """All pairs of the items; those of one item share its weight."""
    if not items:
        return None
    read = features.of([item.sequences for item in items], tokens, run)
    found = [(item, rows, pair) for item, rows in zip(items, read, strict=True) for pair in item.pairs]
    return Pairs(
        torch.stack([rows[pair.first] - rows[pair.second] for _, rows, pair in found]),
        torch.tensor([pair.share for *_, pair in found]),
        torch.tensor([item.weight / len(item.pairs) for item, *_ in found]),
        [item.case for item, *_ in found],
    )


def fit(pairs: Pairs) -> Probe:
    """The probe with the best penalty, fitted on all pairs. Without a fifth to choose on, the largest penalty."""
    scale = pairs.differences.square().mean(0).sqrt().clamp(min=1e-6)
    scaled = pairs._replace(differences=pairs.differences / scale)
    order = {case: place for place, case in enumerate(dict.fromkeys(pairs.cases))}
    judging = [i for i, case in enumerate(pairs.cases) if order[case] % CHOSEN_ON == CHOSEN_ON - 1]
    others = [i for i, case in enumerate(pairs.cases) if order[case] % CHOSEN_ON != CHOSEN_ON - 1]
    best, start = PENALTIES[-1], None
    if judging and others:
        learning, chosen_on = scaled.take(others), scaled.take(judging)
        found: dict[float, Tensor] = {}
        last: Tensor | None = None
        for penalty in reversed(PENALTIES):  # each begins where the one before it ended
            found[penalty] = last = minimised(learning, penalty, start=last)
        losses = {penalty: pair_loss(found[penalty], chosen_on) for penalty in PENALTIES}
        best = min(losses, key=lambda penalty: losses[penalty])
        start = found[best]
    return Probe(minimised(scaled, best, start=start), scale, best)


def minimised(pairs: Pairs, penalty: float, slope: float = SMALLEST_SLOPE, start: Tensor | None = None) -> Tensor:
    """The weight that minimises the sum of the pairs' losses plus penalty / 2 * |weight|^2. (F,)

    It ends where the mean over the pairs of what is minimised rises by no more than ``slope`` in every direction: where
    scikit-learn's LogisticRegression ends at its default tolerance. ``start`` is a weight that is thought to be near.
    Products with the features are in float32, of few pairs at a time so that the second finds them in the processor's
    cache; gradient and steps are in float64.
    """
    blocks = [
        (few, few.T, shares, weights)
        for few, shares, weights in zip(*(part.split(BLOCK_PAIRS) for part in pairs[:3]), strict=True)
    ]

    def gradient_of(weight: Tensor) -> Tensor:
        now = weight.float()
        total = torch.zeros_like(now)
        for few, turned, shares, weights in blocks:
            total.addmv_(turned, torch.mv(few, now).sigmoid_().sub_(shares).mul_(weights))
        return total.double().add_(weight, alpha=penalty)

    if start is None:
        start = torch.zeros(pairs.differences.shape[1])
    return lbfgs.lowest(gradient_of, start.double(), slope * max(float(pairs.weights.sum()), 1.0)).float()


def pair_loss(weight: Tensor, pairs: Pairs) -> float:
    """Mean loss of the pairs under a weight, without the ridge."""
    losses = bradley_terry_loss(pairs.differences @ weight, pairs.shares)
    return float((losses * pairs.weights).sum() / pairs.weights.sum())


class Features:
    """Features by what was read, kept in one file so that an answer is read once for every later fit.

    The key is a digest of the base and its precision, the tokens all answers of the group share, and the answer's own. ``save`` writes
    what was asked for since the file was opened, whole or not at all; a file that cannot be read counts as none.
    """

    def __init__(self, base: SharedBase, base_digest: str, file: Path | None = None) -> None:
        self._base, self._digest, self._file = base, f"{base_digest} {base.dtype}", file
        self._kept: dict[str, Tensor] = {}
        self._asked: set[str] = set()
        if file is not None and file.is_file():
            try:
                self._kept = load_file(file)
            except (OSError, SafetensorError):
                self._kept = {}
        self.read = 0  # sequences the model had to read

    def of(self, groups: Sequence[tree.Group], tokens: int, run: Run) -> list[Tensor]:
        """Per group its features, (K, F) float32; ``tokens`` bounds one forward pass."""
        keys = [[self._key(group, sequence) for sequence in group] for group in groups]
        self._asked.update(key for group_keys in keys for key in group_keys)
        missing = [i for i, group_keys in enumerate(keys) if any(key not in self._kept for key in group_keys)]
        with torch.no_grad(), self._base.scope(None):
            for part in tree.parts(self._base, [groups[i] for i in missing], tokens, 0, 0):
                run.check()
                few = [missing[i] for i in part]
                found = _features(self._base, [groups[i] for i in few])
                flat = [key for i in few for key in keys[i]]
                self._kept.update(zip(flat, found, strict=True))
                self.read += len(flat)
        return [torch.stack([self._kept[key] for key in group_keys]) for group_keys in keys]

    def save(self) -> None:
        if self._file is None or not self.read:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        half = self._file.with_suffix(".part")
        save_file({key: self._kept[key].contiguous() for key in sorted(self._asked)}, half)
        half.replace(self._file)

    def _key(self, group: tree.Group, sequence: Sequence[int]) -> str:
        said = f"{self._digest} {tree.common(group)} {list(sequence)}"
        return hashlib.sha256(said.encode()).hexdigest()


def _features(base: SharedBase, groups: Sequence[tree.Group]) -> Tensor:
    """(N, 2 D + 1), under the open scope."""
    rows, states = tree.read(base, groups)  # states (B, T, D)
    own = states[rows.row.unsqueeze(1), rows.columns].float()  # (N, L, D)
    place = torch.arange(own.shape[1], device=own.device)
    start = torch.tensor([tree.common(group) for group in groups for _ in group], device=own.device)
    is_own = (place >= start.unsqueeze(1)) & (place < rows.lengths.unsqueeze(1))  # (N, L)
    count = is_own.sum(1, keepdim=True)
    mean = (own * is_own.unsqueeze(2)).sum(1) / count
    last = own[torch.arange(len(own), device=own.device), rows.lengths - 1]
    return torch.cat([last, mean, count.float().log()], 1).cpu()
