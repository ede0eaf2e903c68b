"""What is found of a prompt is of its own model and of its own tokens, and the memory it takes is bounded."""

import torch

from backend.decoder import attending
from backend.engines.local.looking import Beginning
from backend.engines.local.prefixes import BLOCK, Prefixes

SHARED = list(range(2 * BLOCK))
PLACE_BYTES = 4 * 2 * 2 * 3 * 5  # of the tensors below, for one token


def read_of(tokens: list[int]) -> torch.Tensor:
    """As if the model had read it: the number of each token everywhere. (2, 2, 3, T, 5)"""
    return torch.tensor(tokens, dtype=torch.float32)[:, None].expand(2, 2, 3, -1, 5).contiguous()


def known_to(prefixes: Prefixes, tokens: list[int]) -> int:
    found = prefixes.find("a", tokens)
    return 0 if found is None else found.tokens


def go_on(prefixes: Prefixes, tokens: list[int]) -> tuple[torch.Tensor, Beginning | None]:
    """As a prompt does whose beginning may be known: its room, and where its rows look at the beginning."""
    found, room = prefixes.find("a", tokens), read_of(tokens)
    beginning = None if found is None else found.beginning
    prefixes.put("a", tokens, room, beginning)
    return room, beginning


def test_a_shared_beginning_is_found_in_whole_blocks() -> None:
    prefixes = Prefixes(10**6)
    first = [*SHARED, 900, 901]
    prefixes.put("a", first, read_of(first))
    found = prefixes.find("a", [*SHARED, 7, 8, 9])
    assert found is not None and found.tokens == 2 * BLOCK
    assert torch.equal(found.room[:, :, :, : found.tokens], read_of(SHARED))
    assert prefixes.known("a", [*SHARED, 7]) == 2 * BLOCK
    assert known_to(prefixes, SHARED[: BLOCK + 5]) == BLOCK
    assert known_to(prefixes, [5, *SHARED]) == 0
    assert (prefixes.found_tokens, prefixes.asked_tokens) == (3 * BLOCK, 2 * BLOCK + 3 + BLOCK + 5 + 2 * BLOCK + 1)


def test_another_model_has_read_nothing() -> None:
    prefixes = Prefixes(10**6)
    prefixes.put("a", SHARED, read_of(SHARED))
    assert prefixes.find("b", SHARED) is None


def test_what_was_not_asked_for_longest_makes_room() -> None:
    prefixes = Prefixes(2 * BLOCK * PLACE_BYTES)
    texts = [[number] * BLOCK for number in (1, 2, 3)]
    for text in texts[:2]:
        prefixes.put("a", text, read_of(text))
    assert known_to(prefixes, texts[0]) == BLOCK  # the second is now the one not asked for longest
    prefixes.put("a", texts[2], read_of(texts[2]))
    assert [prefixes.known("a", text) for text in texts] == [BLOCK, 0, BLOCK]
    assert prefixes.held_bytes == 2 * BLOCK * PLACE_BYTES
    prefixes.put("a", SHARED * 2, read_of(SHARED * 2))
    assert prefixes.held_bytes == 2 * BLOCK * PLACE_BYTES, "more than the whole room is not kept"
    prefixes.clear()
    assert (prefixes.held_bytes, prefixes.find("a", texts[0])) == (0, None)


def test_what_is_kept_counts_all_that_it_keeps_from_being_given_back() -> None:
    room = read_of([7] * (BLOCK + 10))
    prefixes = Prefixes(room.nbytes)
    prefixes.put("a", [7] * (BLOCK + 10), room)
    found = prefixes.find("a", [7] * BLOCK)
    assert found is not None and found.tokens == BLOCK
    assert found.room.data_ptr() == room.data_ptr(), "it is not copied"
    assert prefixes.held_bytes == room.nbytes
    prefixes.put("a", [8] * BLOCK, read_of([8] * BLOCK))
    assert prefixes.known("a", [7] * BLOCK) == 0 and prefixes.held_bytes == BLOCK * PLACE_BYTES


def test_all_that_begin_alike_look_at_the_copy_that_was_first() -> None:
    prefixes = Prefixes(10**6)
    first, _ = go_on(prefixes, [*SHARED, *[1] * BLOCK])
    for number in (2, 3, 4):
        _, beginning = go_on(prefixes, [*SHARED, *[number] * BLOCK])
        assert beginning is not None and beginning.room is first and beginning.tokens == 2 * BLOCK
    shorter = prefixes.find("a", SHARED[:BLOCK])
    assert shorter is not None and shorter.beginning.room is first and shorter.beginning.tokens == BLOCK


def test_a_beginning_that_is_little_of_what_is_known_gives_way_to_a_longer_one() -> None:
    prefixes = Prefixes(10**6)
    begin = SHARED[:BLOCK]
    first, _ = go_on(prefixes, [*begin, *[1] * BLOCK])
    second, beginning = go_on(prefixes, [*begin, *[2] * 3 * BLOCK])
    assert beginning == Beginning(first, BLOCK)
    for last in (3, 4):
        _, beginning = go_on(prefixes, [*begin, *[2] * 3 * BLOCK, *[last] * BLOCK])
        assert beginning is not None and beginning.room is second and beginning.tokens == 4 * BLOCK


def test_a_beginning_counts_once_and_for_as_long_as_somebody_looks_at_it() -> None:
    texts = [[*SHARED[:BLOCK], *[number] * BLOCK] for number in (1, 2, 3, 4)]
    one = read_of(texts[0]).nbytes
    prefixes = Prefixes(3 * one)
    first, _ = go_on(prefixes, texts[0])
    go_on(prefixes, texts[1])
    go_on(prefixes, texts[2])
    assert prefixes.held_bytes == 3 * one, "the first one's room is the others' beginning"
    go_on(prefixes, texts[3])
    assert prefixes.held_bytes == 3 * one
    assert [prefixes.known("a", text) // BLOCK for text in texts] == [1, 1, 2, 2], (
        "two made room, since one is looked at still"
    )
    found = prefixes.find("a", texts[3])
    assert found is not None and found.beginning.room is first
    prefixes.clear()
    assert prefixes.held_bytes == 0


def test_a_beginning_ends_where_a_steps_sums_do() -> None:
    assert BLOCK % attending.PART == 0, "else a row's last bits would tell which copy it looks at"
