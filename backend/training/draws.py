"""Everything random: one generator for each draw, so that a draw depends on its name and not on what came before it."""

import hashlib

import torch


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator seeded by the three; equal arguments give equal numbers on every machine."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def cycled(count: int, start: int, size: int, seed: int, purpose: str) -> list[int]:
    """``size`` places of an endless order that goes through ``count`` items in a new shuffle each time around."""
    places = []
    shuffles: dict[int, list[int]] = {}
    for position in range(start, start + size):
        around, place = divmod(position, count)
        if around not in shuffles:
            shuffles[around] = torch.randperm(count, generator=generator(seed, around, purpose)).tolist()
        places.append(shuffles[around][place])
    return places
