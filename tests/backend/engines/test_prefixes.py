"""What is found of a prompt is of its own model and of its own tokens, and the memory it takes is bounded."""

import torch

from backend.engines.local.prefixes import BLOCK, Prefixes

SHARED = list(range(2 * BLOCK))
PLACE_BYTES = 4 * 2 * 2 * 3 * 5  # of the tensors below, for one token


def read_of(tokens: list[int]) -> torch.Tensor:
    """As if the model had read it: the number of each token everywhere. (2, 2, 3, T, 5)"""
    return torch.tensor(tokens, dtype=torch.float32)[:, None].expand(2, 2, 3, -1, 5).contiguous()


def test_a_shared_beginning_is_found_in_whole_blocks() -> None:
    prefixes = Prefixes(10**6)
    first = [*SHARED, 900, 901]
    prefixes.put("a", first, read_of(first))
    found, count = prefixes.find("a", [*SHARED, 7, 8, 9])
    assert found is not None and count == 2 * BLOCK
    assert torch.equal(found[:, :, :, :count], read_of(SHARED))
    assert prefixes.known("a", [*SHARED, 7]) == 2 * BLOCK
    assert prefixes.find("a", SHARED[: BLOCK + 5])[1] == BLOCK
    assert prefixes.find("a", [5, *SHARED])[1] == 0
    assert (prefixes.found_tokens, prefixes.asked_tokens) == (3 * BLOCK, 2 * BLOCK + 3 + BLOCK + 5 + 2 * BLOCK + 1)


def test_another_model_has_read_nothing() -> None:
    prefixes = Prefixes(10**6)
    prefixes.put("a", SHARED, read_of(SHARED))
    assert prefixes.find("b", SHARED) == (None, 0)


def test_what_was_not_asked_for_longest_makes_room() -> None:
    prefixes = Prefixes(2 * BLOCK * PLACE_BYTES)
    texts = [[number] * BLOCK for number in (1, 2, 3)]
    for text in texts[:2]:
        prefixes.put("a", text, read_of(text))
    assert prefixes.find("a", texts[0])[1] == BLOCK  # the second is now the one not asked for longest
    prefixes.put("a", texts[2], read_of(texts[2]))
    assert [prefixes.known("a", text) for text in texts] == [BLOCK, 0, BLOCK]
    assert prefixes.held_bytes == 2 * BLOCK * PLACE_BYTES
    prefixes.put("a", SHARED * 2, read_of(SHARED * 2))
    assert prefixes.held_bytes == 2 * BLOCK * PLACE_BYTES, "more than the whole room is not kept"
    prefixes.clear()
    assert (prefixes.held_bytes, prefixes.find("a", texts[0])) == (0, (None, 0))


def test_what_is_kept_counts_all_that_it_keeps_from_being_given_back() -> None:
    room = read_of([7] * (BLOCK + 10))
    prefixes = Prefixes(room.nbytes)
    prefixes.put("a", [7] * (BLOCK + 10), room)
    kept, length = prefixes.find("a", [7] * BLOCK)
    assert kept is not None and length == BLOCK
    assert kept.data_ptr() == room.data_ptr(), "it is not copied"
    assert prefixes.held_bytes == room.nbytes > kept.nbytes
    prefixes.put("a", [8] * BLOCK, read_of([8] * BLOCK))
    assert prefixes.known("a", [7] * BLOCK) == 0 and prefixes.held_bytes == BLOCK * PLACE_BYTES
