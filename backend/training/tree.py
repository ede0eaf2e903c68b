"""Tree rows: what the sequences of a group have in common is read once, their own ends stand side by side behind it.

A group is one prompt with its K answers, each as a whole sequence of token ids. In a tree row the common beginning comes
first and then the K ends; the position ids of every end go on where the common part stops, and a mask lets a token see
the common part and its own end only. So every token has the state it would have in a row of its own, the common part is
computed once, and its gradient is the sum over the answers. Padding sees itself, or its softmax would be 0 / 0.

The mask is an additive float one: a 4-D mask of booleans is right under sdpa and silently wrong under eager attention.
A base whose attention cannot be told what to see (a sliding window, no position ids) keeps plain rows: one sequence, one
row, padded on the left. So does one that reads whole texts (families.py), padded on the right. ``ends`` and ``predicting``
hide which of them is used, and that an encoder-decoder predicts with its decoder.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.training import encoder_decoder, families
from backend.training.data import lines, microbatches, pad_left, pad_right
from backend.training.packing import Piece, pieces_of
from backend.training.run import Run
from backend.training.shared_base import ScopeError, SharedBase

Group = Sequence[Sequence[int]]  # token ids of sequences that may begin alike

COMPARED = 2  # groups read both ways before a job trusts tree rows; our choice
LARGEST_ERROR = {torch.float32: 1e-3, torch.bfloat16: 3e-2}  # of the states, relative; our choice


class Rows(NamedTuple):
    """Groups laid out for one forward: B rows of T tokens hold N sequences of at most L tokens."""

    tokens: Tensor  # (B, T)
    is_real: Tensor  # (B, T) True where a token is not padding
    positions: Tensor  # (B, T) place of each token in its own sequence; 0 in the padding
    mask: Tensor | None  # (B, 1, T, T) added to the attention scores; None: a token sees all before it
    row: Tensor  # (N,) the row of each sequence
    columns: Tensor  # (N, L) where the tokens of each sequence stand in it; 0 after its end
    lengths: Tensor  # (N,) tokens of each sequence
    pieces: list[Piece] | None = None  # of a packed line: B is 1 and nothing is padded


def common(group: Group) -> int:
    """How many tokens all sequences begin with alike; every sequence keeps at least one token of its own."""
    if len(group) == 1:
        return 0
    most = min(len(sequence) for sequence in group) - 1
    for place, tokens in enumerate(zip(*group, strict=False)):
        if place == most or len(set(tokens)) > 1:
            return place
    return most


def size(base: SharedBase, group: Group) -> int:
    """Tokens the group takes in a tree row; as plain rows, its longest sequence for each of its sequences."""
    if not base.reads_trees:
        return len(group) * max(len(sequence) for sequence in group)
    shared = common(group)
    return shared + sum(len(sequence) - shared for sequence in group)


def parts(base: SharedBase, groups: Sequence[Group], tokens: int, seed: int, step: int) -> list[list[int]]:
    """Micro-batches of whole groups, as ``data`` cuts them: a packed line has no padding to save. ``tokens`` is the setting's."""
    sizes, one = [size(base, group) for group in groups], base.one_pass
    if base.packs:
        return lines(sizes, tokens * one.times)
    return microbatches(sizes, tokens * one.times, seed, step, one.price)


def rows_of(tokens: Tensor, is_real: Tensor, rows: Sequence[int]) -> list[list[int]]:
    """Token ids of these rows without their padding."""
    return [tokens[row][is_real[row]].tolist() for row in rows]


def trajectory_parts(
    base: SharedBase, tokens: Tensor, is_real: Tensor, responses: int, most: int, seed: int, step: int
) -> list[list[int]]:
    """Micro-batches of the rows of a trajectory; answers to one prompt stay together as far as a pass reaches.
    ``most`` is the setting's."""
    reads_once = base.reads_trees or base.family == "encoder_decoder"
    room = most * base.one_pass.times - (tokens.shape[1] - responses)
    several = max(1, room // responses) if reads_once else 1
    groups = [
        group[start : start + several]
        for group in by_prompt(tokens, is_real, responses)
        for start in range(0, len(group), several)
    ]
    cut = parts(base, [rows_of(tokens, is_real, group) for group in groups], most, seed, step)
    return [[row for place in part for row in groups[place]] for part in cut]


def trajectory_states(base: SharedBase, tokens: Tensor, is_real: Tensor, responses: int) -> Tensor:
    """The states that predict the response tokens of a trajectory's rows, which stand in its last ``responses`` columns
    from the left. (B, P+R) twice -> (B, R, D); what stands after a response's end has no meaning."""
    groups = by_prompt(tokens, is_real, responses)
    families.require_writer(base.family, "every method that trains a policy")
    is_alone = len(groups) == len(tokens) and not base.packs  # plain rows are as good
    if base.family == "decoder" and (not base.reads_trees or is_alone):
        return base.states(tokens, is_real)[:, -responses - 1 : -1]
    order = [row for group in groups for row in group]
    counts = is_real[:, -responses:].sum(1)[order].tolist()
    states = predicting(base, [rows_of(tokens, is_real, group) for group in groups], counts)
    missing = responses - states.shape[1]  # columns that are padding in all of the rows
    states = torch.nn.functional.pad(states, (0, 0, 0, missing)) if missing else states
    return states[torch.tensor(order, device=states.device).argsort()]


def neighbours(sequences: Sequence[Sequence[int]], most: int) -> list[list[Sequence[int]]]:
    """Sequences that follow one another and begin alike for half their length or more, in groups of ``most`` tokens."""
    found: list[list[Sequence[int]]] = []
    taken = 0
    for sequence in sequences:
        alike = common([found[-1][0], sequence]) if found else 0
        if 2 * alike >= len(sequence) and taken + len(sequence) - alike <= most:
            found[-1].append(sequence)
            taken += len(sequence) - alike
        else:
            found.append([sequence])
            taken = len(sequence)
    return found


def by_prompt(tokens: Tensor, is_real: Tensor, responses: int) -> list[list[int]]:
    """Rows of a trajectory whose prompts are equal, in the order they come. (B, P+R) twice, R = ``responses``"""
    found: dict[tuple[int, ...], list[int]] = {}
    prompts, real = tokens[:, :-responses].tolist(), is_real[:, :-responses].tolist()
    for place, (prompt, are_real) in enumerate(zip(prompts, real, strict=True)):
        key = tuple(token for token, keep in zip(prompt, are_real, strict=True) if keep)
        found.setdefault(key, []).append(place)
    return list(found.values())


def tree_rows(
    groups: Sequence[Group], pad_id: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Rows:
    """One row per group, padded on the right; the mask has the dtype of the states."""
    lines: list[list[int]] = []
    places: list[list[int]] = []
    branches: list[list[int]] = []  # 0 for the common part, then 1 .. K; -1 for padding
    rows: list[int] = []
    columns: list[list[int]] = []
    for row, group in enumerate(groups):
        shared = common(group)
        line, place, branch = list(group[0][:shared]), list(range(shared)), [0] * shared
        for number, sequence in enumerate(group, 1):
            rows.append(row)
            columns.append([*range(shared), *range(len(line), len(line) + len(sequence) - shared)])
            line += sequence[shared:]
            place += range(shared, len(sequence))
            branch += [number] * (len(sequence) - shared)
        lines.append(line)
        places.append(place)
        branches.append(branch)
    branch_of = _right(branches, -1, device)
    return Rows(
        tokens=_right(lines, pad_id, device),
        is_real=branch_of >= 0,
        positions=_right(places, 0, device),
        mask=branch_mask(branch_of, dtype),
        row=torch.tensor(rows, device=device),
        columns=_right(columns, 0, device),
        lengths=torch.tensor([len(column) for column in columns], device=device),
    )


def branch_mask(branch: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """0 where a token (row of the mask) may see another (column), the lowest number elsewhere. (B, T) -> (B, 1, T, T)

    Branch 0 is the common part, -1 padding.
    """
    width = branch.shape[1]
    is_before = torch.ones(width, width, dtype=torch.bool, device=branch.device).tril()
    seen, seeing = branch[:, None, :], branch[:, :, None]
    may_see = is_before & ((seen == 0) | (seen == seeing)) & (seeing >= 0)
    may_see = may_see | torch.eye(width, dtype=torch.bool, device=branch.device)
    allowed = torch.zeros(may_see.shape, dtype=dtype, device=branch.device)
    return allowed.masked_fill(~may_see, torch.finfo(dtype).min)[:, None]


def plain_rows(groups: Sequence[Group], pad_id: int, device: torch.device | str = "cpu") -> Rows:
    """One row per sequence, padded on the left."""
    flat = [list(sequence) for group in groups for sequence in group]
    padded = pad_left(flat, pad_id, device)
    width = padded.tokens.shape[1]
    return Rows(
        tokens=padded.tokens,
        is_real=padded.is_real,
        positions=(padded.is_real.long().cumsum(1) - 1).clamp(min=0),
        mask=None,
        row=torch.arange(len(flat), device=device),
        columns=_right([list(range(width - len(sequence), width)) for sequence in flat], 0, device),
        lengths=torch.tensor([len(sequence) for sequence in flat], device=device),
    )


def whole_rows(groups: Sequence[Group], opening: Sequence[int], pad_id: int, device: torch.device | str) -> Rows:
    """One row per sequence behind the ``opening`` tokens, padded on the right; the columns leave the opening out."""
    flat = [[*opening, *sequence] for group in groups for sequence in group]
    padded = pad_right(flat, pad_id, device)
    return Rows(
        tokens=padded.tokens,
        is_real=padded.is_real,
        positions=(padded.is_real.long().cumsum(1) - 1).clamp(min=0),
        mask=None,
        row=torch.arange(len(flat), device=device),
        columns=_right([list(range(len(opening), len(sequence))) for sequence in flat], 0, device),
        lengths=torch.tensor([len(sequence) - len(opening) for sequence in flat], device=device),
    )


def packed_line(groups: Sequence[Group], device: torch.device | str = "cpu") -> Rows:
    """All groups in one line without padding; packing.py says what each token sees."""
    line: list[int] = []
    place: list[int] = []
    columns: list[list[int]] = []
    pieces: list[Piece] = []
    for group in groups:
        shared, start = common(group), len(line)
        line += group[0][:shared]
        place += range(shared)
        for number, sequence in enumerate(group):
            own = len(line)
            line += sequence[shared:]
            place += range(shared, len(sequence))
            columns.append([*range(start, start + shared), *range(own, len(line))])
            pieces += pieces_of(own, len(line), start, start + shared) if number else pieces_of(start, len(line), 0, 0)
    return Rows(
        tokens=torch.tensor([line], device=device),
        is_real=torch.ones(1, len(line), dtype=torch.bool, device=device),
        positions=torch.tensor([place], device=device),
        mask=None,
        row=torch.zeros(len(columns), dtype=torch.long, device=device),
        columns=_right(columns, 0, device),
        lengths=torch.tensor([len(column) for column in columns], device=device),
        pieces=pieces,
    )


def laid_out(base: SharedBase, groups: Sequence[Group], as_trees: bool | None = None) -> Rows:
    """The groups as the base reads them best."""
    if base.family != "decoder":
        return whole_rows(groups, base.opening, base.pad_id, base.device)
    if not (base.reads_trees if as_trees is None else as_trees):
        return plain_rows(groups, base.pad_id, base.device)
    if base.packs:
        return packed_line(groups, base.device)
    return tree_rows(groups, base.pad_id, base.dtype, base.device)


def read(base: SharedBase, groups: Sequence[Group], as_trees: bool | None = None) -> tuple[Rows, Tensor]:
    """The groups laid out as the base reads them, and the states of every token under the open scope. (B, T, D)"""
    rows = laid_out(base, groups, as_trees)
    if rows.pieces is not None:
        return rows, base.packed_states(rows.tokens, rows.positions, rows.pieces)
    if rows.mask is None:
        return rows, base.states(rows.tokens, rows.is_real)
    return rows, base.masked_states(rows.tokens, rows.mask, rows.positions)


def states_at(
    base: SharedBase, groups: Sequence[Group], columns_of: Callable[[Rows], Tensor], as_trees: bool | None = None
) -> Tensor:
    """The states at some columns of every sequence, (N,) or (N, R) of them -> (N, D) or (N, R, D), under the open scope."""
    rows = laid_out(base, groups, as_trees)
    columns = columns_of(rows)
    if rows.pieces is not None:
        wanted, places = columns.unique(return_inverse=True)
        return base.packed_states(rows.tokens, rows.positions, rows.pieces, wanted)[0, places]
    _, states = read(base, groups, as_trees)
    return states[rows.row.view(-1, *[1] * (columns.dim() - 1)), columns]


def ends(base: SharedBase, groups: Sequence[Group]) -> Tensor:
    """The state of every sequence's last token, group by group. (N, D)

    Where the base reads whole texts this token has seen all others, and an answer without its end token ends elsewhere.
    """
    return states_at(base, groups, lambda rows: rows.columns.gather(1, rows.lengths[:, None] - 1)[:, 0])


def predicting(base: SharedBase, groups: Sequence[Group], counts: Sequence[int]) -> Tensor:
    """The states that predict the last ``counts[n]`` tokens of sequence n. (N, R, D), R the largest count

    The state before a token predicts it, so a sequence must be longer than its count. After a sequence's count stand
    states of no meaning, which whoever asks must mask.
    """
    families.require_writer(base.family, "every method that trains a policy")
    if base.family == "encoder_decoder":
        return encoder_decoder.predicting(base, [sequence for group in groups for sequence in group], counts)
    return states_at(base, groups, lambda rows: before(rows, torch.tensor(counts, device=base.device)))


def before(rows: Rows, counts: Tensor) -> Tensor:
    """Columns of the states that predict the last ``counts`` tokens of every sequence. (N,) -> (N, R)"""
    first = (rows.lengths - counts)[:, None]  # (N, 1) place of the first token that is predicted
    asked = first + torch.arange(int(counts.max()), device=first.device)[None] - 1
    return rows.columns.gather(1, asked.clamp(max=rows.columns.shape[1] - 1))


@torch.no_grad()
def error(base: SharedBase, groups: Sequence[Group]) -> float:
    """Norm of the difference between states as the base reads trees and in plain rows, over the norm of the latter; infinite
    where it cannot read them so."""
    try:
        together, plain = (states_at(base, groups, lambda rows: rows.columns, way).double() for way in (True, False))
    except ScopeError:
        raise
    except (TypeError, ValueError, RuntimeError):  # a family whose layers take no attention, or no mask, of ours
        return math.inf
    lengths = torch.tensor([len(sequence) for group in groups for sequence in group], device=plain.device)
    is_token = torch.arange(plain.shape[1], device=plain.device)[None] < lengths[:, None]  # (N, L)
    return float((together - plain)[is_token].norm() / plain[is_token].norm())


def trust(base: SharedBase, adapter: str | None, groups: Sequence[Group], run: Run) -> None:
    """At the start of a job: read a few of its groups both ways, and keep to what gives the states of plain rows.

    Some families take attention of ours and some pass it over in silence, so that one text would see another: of all
    methods none begins without this.
    """
    few = _compared(groups)
    while base.reads_trees and few:
        with base.scope(adapter):
            found = error(base, few)
        if found <= LARGEST_ERROR[base.dtype]:
            return
        told = f"their states differ by {found:.2g}" if math.isfinite(found) else "they cannot be read"
        if base.packs:
            base.packs = False
            run.message(f"Texts are padded: in one line {told} on this base.")
        else:
            base.reads_trees = False
            run.message(f"Answers to one prompt are read one by one: together {told} on this base.")


def _compared(groups: Sequence[Group]) -> list[Group]:
    """The longest and the shortest of the groups that begin alike, cut to two of their sequences; where there is none, of all."""
    several = [group[:2] for group in groups if len(group) > 1] or list(groups)
    ordered = sorted(several, key=lambda group: -max(map(len, group)))
    return ordered if len(ordered) <= COMPARED else [*ordered[: COMPARED - 1], ordered[-1]]


def _right(rows: Sequence[Sequence[int]], fill: int, device: torch.device | str) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], device=device)
