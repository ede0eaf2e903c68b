"""The rows of a running batch where the base can be read as a stack: rows of any adapters share every step.

The base's weights are read once for all rows, and each row's own adapter is added beside them (backend/decoder). As in rows.py
a row's numbers do not depend on its company: its token p stands at place p of a slot of its own, attention is plain
products row by row on a CPU, and a product never has fewer rows than the number from which on this processor's products give
a row the same bits, which is tried when the model is loaded. Nor do they depend on what is known of a prompt already: its
tokens are read in blocks, and the shape of a block's attention follows from where it stands alone.

Rows look at their prompt where it was read, and at what each has written in its own slot (looking.py). Without loops, on other
devices, that is so for a prompt of many samples alone, and others are copied to their rows' slots. Whether a row is one of many
samples is said by its request, not by its company.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backend.decoder import beside
from backend.decoder.beside import Shares
from backend.decoder.stack import Adapters, Attend, Stack

from . import attention, looking
from .attention import ROOM
from .cells import Memory
from .looking import Bench, Held, Part, Prompts
from .prefixes import Prefixes
from .prepared import Prepared, indices
from .prompts import Fewest, Prompt, Reader
from .rooms import Rooms

SHARED_FROM = 8  # samples of a prompt that is held once; fewer read their own copies as quickly. Measured, our choice
RESERVED = 64  # slots that are laid out at once on a CPU; our choice
KEPT_SHARE = 8  # of the memory that keys and values may take an eighth stays while there are no rows; our choice
READY_ROWS, READY_PLACES, READY_BYTES = (
    16,
    256,
    1 << 29,
)  # what is taken before anybody asks, if it is no more; our choice
TRIED_ROWS = (1, 2, 4, 8, 16)
MOST_TRIED = 64


class _Ready(NamedTuple):
    """What a step needs and changes only when rows come or go, or need more places."""

    slot: Tensor  # (rows,) of each row
    is_in_order: bool  # row i lives in slot i, and there is no other slot
    offset: Tensor  # (S,) tokens that stand before the slot's first one, on a bench
    adapters: Adapters
    shares: list[Shares]
    parts: list[Part]  # where there are no loops
    prompts: Prompts  # where there are


class Begun(NamedTuple):
    """Prompts that were read for rows that have not joined yet; ``sources`` names each row's prompt."""

    prompts: Sequence[Prompt]
    sources: Sequence[int]
    held: list[Held]  # of each prompt
    tokens: int  # of them that were not known


class MixedRows:
    """Rows that come and go between steps. Row i of ``step`` is the i-th of those that were added and kept."""

    def __init__(self, stack: Stack, context: int, prefixes: Prefixes, fewest: Fewest, most_bytes: int = 0) -> None:
        """``most_bytes``: what keys and values may come to; a share of it stays where there are no rows."""
        self._most_bytes = most_bytes
        self._stack, self._context, self._prefixes, self._fewest = stack, context, prefixes, fewest.written
        self._made = Prepared()
        rooms = Rooms(stack, most_bytes // KEPT_SHARE)
        self._reader = Reader(stack, rooms, prefixes, self._made, fewest)
        self._columns = attention.columns(stack.head_size)
        self._slots: list[int] = []  # where each row lives, in the order of the rows
        self._adapter: list[str | None] = []  # of each row
        self._read: list[int] = []  # tokens in the slot
        self._held: list[Held | None] = []  # by slot, with loops
        self._benches: list[Bench] = []  # without
        self._kept = stack.room(0, 0)  # (layers, 2, S or more, H, places, D)
        self._memory = Memory(self._kept, most_bytes // KEPT_SHARE)
        self._most_ready = min(READY_BYTES, most_bytes // KEPT_SHARE)
        self._ready: _Ready | None = None

    def have_ready(self) -> None:
        """Have loops, and take memory for the first rows, before anybody asks; not on a GPU, where it is quickly had."""
        if self._stack.loops is not None:
            self._stack.loops.have_ready()
        places = _rounded(min(self._context, READY_PLACES), ROOM)
        if self._kept.device.type == "cpu" and self._memory.bytes(READY_ROWS, places) <= self._most_ready:
            self._memory.laid_out(self._worth_taking(READY_ROWS, 0, places), places)
            self._memory.have_ready(READY_ROWS, places)

    def add(self, prompts: Sequence[Prompt], sources: Sequence[int]) -> Tensor:
        """Read each prompt once, and add one row for each source: the index of its prompt. Equal sources stand side by side.

        Returns the float32 logits of the rows' first tokens, (rows, V).
        """
        begun, logits = self.begin(prompts, sources)
        self.join(begun)
        return logits

    def begin(self, prompts: Sequence[Prompt], sources: Sequence[int]) -> tuple[Begun, Tensor]:
        """The first half of ``add``, which touches no row and may come in the middle of a step: prompts are read."""
        held, states, place, tokens = self._reader.begin(prompts)
        rows = torch.tensor([place[source] for source in sources], device=states.device)
        logits = self._stack.logits(states).index_select(0, rows).float()
        return Begun(prompts, sources, held, tokens), logits

    def join(self, begun: Begun) -> None:
        """The other half: their rows join the others."""
        prompts, sources, held, _ = begun
        if self._stack.loops is not None:
            slots = self._take_slots(len(sources), 1)
            for slot, source in zip(slots, sources, strict=True):
                self._held[slot] = held[source]
        else:
            slots = self._copied(sources, held)
        self._slots += slots
        self._adapter += [prompts[source].adapter for source in sources]
        self._ready = None

    def _copied(self, sources: Sequence[int], held: Sequence[Held]) -> list[int]:
        """Slots for the rows, with their prompts in them, but for prompts of many samples, which are held once."""
        samples = [sources.count(at) for at in range(len(held))]
        is_held_once = [count >= SHARED_FROM for count in samples]
        own = [source for source in sources if not is_held_once[source]]
        longest = max((held[source].length + 1 for source in own), default=1)
        alone = self._take_slots(len(own), longest)
        free = iter(alone)
        slots_of: dict[int, list[int]] = {}
        for at, (room, length, _) in enumerate(held):
            if is_held_once[at]:
                slots_of[at] = self._take_bench(samples[at], room, length, alone)
                continue
            slots_of[at] = [next(free) for _ in range(samples[at])]
            for slot in slots_of[at]:
                self._kept[:, :, slot, :, :length] = room[:, :, :, :length]
                self._read[slot] = length
        rest = {at: iter(taken) for at, taken in slots_of.items()}
        return [next(rest[source]) for source in sources]

    def unread(self, prompt: Prompt) -> int:
        """How many tokens of it before its last one would have to be read now."""
        return len(prompt.tokens) - 1 - self._prefixes.known(prompt.model, prompt.tokens[:-1])

    def read_part(self, prompt: Prompt, tokens: int) -> bool:
        """Read about so many more of its tokens into the prefix cache; False where that does not keep them."""
        before = self.unread(prompt)
        until = len(prompt.tokens) - 1 - before + tokens
        self._reader.read([prompt._replace(tokens=prompt.tokens[: until + 1])])
        return self.unread(prompt) < before

    def step(self, tokens: Tensor, between: Callable[[], None] | None = None) -> Tensor:
        """Each row reads its next token, (rows,); returns the float32 logits of the one after it, (rows, V).

        ``between`` is called between the layers; it may ``begin`` other prompts.
        """
        ready = self._made_ready(max(self._read[slot] for slot in self._slots) + 1)
        read = torch.tensor(self._read, device=self._kept.device)
        whole = tokens if ready.is_in_order else torch.zeros_like(read).index_copy_(0, ready.slot, tokens)
        attend = self._attend(ready, read)
        positions = (read + ready.offset).clamp_(max=self._context - 1)
        states = self._stack.read(whole, positions, ready.adapters, ready.shares, attend, between=between, are_few=True)
        for at in self._slots:
            self._read[at] += 1
        logits = self._stack.logits(states).float()
        return logits if ready.is_in_order else logits.index_select(0, ready.slot)

    def _attend(self, ready: _Ready, read: Tensor) -> Attend:
        if self._stack.loops is not None:
            return looking.by_loops(self._stack.loops, self._kept, ready.prompts, read)
        together = self._read[0] if len(set(self._read)) == 1 else None
        return looking.by_products(self._kept, ready.parts, read, together)

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows stay, in this order."""
        stay = [self._slots[at] for at in rows]
        for slot in set(self._slots) - set(stay):
            self._read[slot], self._held[slot] = 0, None
        self._slots, self._adapter = stay, [self._adapter[at] for at in rows]
        self._ready = None
        self._benches = [bench for bench in self._benches if any(_is_in(slot, bench.slots) for slot in stay)]
        if not stay:
            self._memory.settle()
            self._kept, self._read, self._held = self._memory.laid_out(0, 0), [], []
            return
        if self._benches:
            self._move_all(stay)
        else:
            self._move_last(stay)

    def _move_last(self, stay: list[int]) -> None:
        """Where a quarter of the slots is empty the last rows go to the first empty slots; else every step would read those."""
        size = _rounded(len(stay), self._fewest)
        if 4 * size > 3 * len(self._read):
            return
        empty = iter(sorted(set(range(size)) - set(stay)))
        for row, slot in enumerate(stay):
            if slot >= size:
                self._slots[row] = place = next(empty)
                self._kept[:, :, place] = self._kept[:, :, slot]
                self._read[place], self._held[place] = self._read[slot], self._held[slot]
        self._read, self._held = self._read[:size], self._held[:size]

    def _move_all(self, stay: list[int]) -> None:
        """The same with benches, where half of the slots is empty: every row moves."""
        order, benches = self._closer(set(stay))
        if 2 * len(order) <= len(self._read):
            moved = self._kept[:, :, order]
            self._kept[:, :, : len(order)] = moved
            self._read, self._held = [self._read[slot] for slot in order], [self._held[slot] for slot in order]
            self._slots = [order.index(slot) for slot in stay]
            self._benches = benches

    def _closer(self, used: set[int]) -> tuple[list[int], list[Bench]]:
        """The slots that would be enough for those in use, each bench's side by side."""
        empty = [slot for slot in range(len(self._read)) if slot not in used]
        order: list[int] = []
        benches = []
        for bench in self._benches:
            own = [slot for slot in range(bench.slots.start, bench.slots.stop) if slot in used]
            taken = [*own, *(empty.pop() for _ in range(-len(own) % self._fewest))]
            benches.append(Bench(slice(len(order), len(order) + len(taken)), bench.prompt, bench.hidden))
            order += taken
        alone = [slot for slot in sorted(used) if slot not in order]
        return order + alone + [empty.pop() for _ in range(-len(order + alone) % self._fewest)], benches

    def _made_ready(self, places: int) -> _Ready:
        if places > self._kept.shape[4]:
            self._resize(len(self._read), self._room(places))
        if self._ready is None:
            device, size = self._kept.device, len(self._read)
            offset = torch.zeros(size, dtype=torch.long)
            for bench in self._benches:
                offset[bench.slots] = int((bench.hidden == 0).sum())
            for slot, held in enumerate(self._held):
                offset[slot] += 0 if held is None else held.length
            owner: list[str | None] = [None] * size
            for slot, name in zip(self._slots, self._adapter, strict=True):
                owner[slot] = name
            adapters = self._made.of(self._stack, list(dict.fromkeys(name for name in owner if name is not None)))
            shares = adapters.shares(lambda names: beside.seats_of(indices(owner, names), self._fewest, device))
            self._ready = _Ready(
                torch.tensor(self._slots, dtype=torch.long, device=device),
                self._slots == list(range(size)),
                offset.to(device),
                adapters,
                shares,
                looking.parts_of(self._kept, self._benches, size) if self._stack.loops is None else [],
                looking.prompts_of(self._held),
            )
        return self._ready

    def _take_slots(self, count: int, room: int) -> list[int]:
        """So many that are free, for texts of this length, wherever they are."""
        free = self._free()
        if count > len(free):
            free += self._grow(count - len(free))
        self._resize(len(self._read), max(self._room(room), self._kept.shape[4]))
        return free[:count]

    def _take_bench(self, count: int, prompt: Tensor, length: int, taken: Sequence[int]) -> list[int]:
        """So many side by side and not among those just taken. The prompt (layers, 2, H, T, D) has ``length`` tokens."""
        prompt = prompt[:, :, :, : max(self._columns, _rounded(length, self._columns))]
        prompt = prompt.contiguous()  # products of bfloat16 would copy it at every step
        size, free = _rounded(count, self._fewest), set(self._free()) - set(taken)
        starts = (slot for slot in sorted(free) if free.issuperset(range(slot, slot + size)))
        start = next(starts, None)
        if start is None:
            start = len(self._read)
            self._grow(size)
        hidden = torch.zeros(prompt.shape[3], dtype=prompt.dtype, device=prompt.device)
        hidden[length:] = torch.finfo(hidden.dtype).min
        self._benches.append(Bench(slice(start, start + size), prompt, hidden))
        return list(range(start, start + count))

    def _free(self) -> list[int]:
        used = {*self._slots, *(slot for bench in self._benches for slot in range(bench.slots.start, bench.slots.stop))}
        return [slot for slot in range(len(self._read)) if slot not in used]

    def _grow(self, count: int) -> list[int]:
        before = len(self._read)
        self._resize(_rounded(before + count, self._fewest), max(self._columns, self._kept.shape[4]))
        return list(range(before, len(self._read)))

    def _resize(self, size: int, room: int) -> None:
        """More slots, more places, or both; what is there stays where it is."""
        used, (slots, places) = len(self._read), (self._kept.shape[2], self._kept.shape[4])
        if size > slots or room != places:
            self._kept = self._memory.enlarged(self._kept, used, self._worth_taking(size, slots, room), room)
        self._memory.write(size, room)
        if (size, room) != (used, places):
            self._read += [0] * (size - used)
            self._held += [None] * (size - used)
            self._ready = None

    def _worth_taking(self, size: int, slots: int, room: int) -> int:
        """At least ``size`` slots, more where memory allows: laying out anew takes long while rows are written."""
        is_cpu = self._kept.device.type == "cpu"  # where memory that nobody has used is not taken
        wished = max(slots, size, RESERVED if is_cpu else 2 * slots if size > slots else 0)
        most = self._most_bytes if is_cpu else self._most_bytes // KEPT_SHARE
        return wished if self._memory.bytes(wished, room) <= most else size

    def _room(self, places: int) -> int:
        """How many are made for so many tokens. Products read them all, so few at a time while there are few."""
        is_read = self._stack.loops is None
        return _rounded(places, self._columns if is_read and places <= ROOM else ROOM)


def fewest_rows(stack: Stack) -> Fewest:
    """From how many rows on a product here gives a row the same bits as among many. Other devices: 1, their libraries decide."""
    if stack.device.type != "cpu":
        return Fewest(1, 1)
    return Fewest(_tried(stack, of_prompts=False), _tried(stack, of_prompts=True))


def _tried(stack: Stack, *, of_prompts: bool) -> int:
    """Tried on the first layer's products, an adapter's beside them, and on those of attention where it is not a loop; the most
    tried where none does."""
    is_loop = stack.loops is not None and (not of_prompts or stack.loops.reads_prompts())
    for fewest in TRIED_ROWS:
        sizes = [size for size in (fewest, fewest + 1, 2 * fewest, 16, 24, 48) if size >= fewest]
        tried = itertools.chain(
            stack.first_products(MOST_TRIED, of_prompts=of_prompts),
            () if is_loop else attention.products(stack.head_size, stack.dtype, MOST_TRIED),
        )
        if all(_same_bits(product, x, sizes) for product, x in tried):
            return fewest
    return TRIED_ROWS[-1]


def _same_bits(product: Callable[[Tensor], Tensor], x: Tensor, sizes: Sequence[int]) -> bool:
    whole = product(x)
    return all(torch.equal(product(x[:size]), whole[:size]) for size in sizes)


def _rounded(number: int, step: int) -> int:
    return -(-number // step) * step


def _is_in(slot: int, slots: slice) -> bool:
    return slots.start <= slot < slots.stop
