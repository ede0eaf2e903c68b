"""What is free on the accelerator that jobs and the engine compute on."""

import torch

ENOUGH = 0.5  # of its memory; an engine beside a job with that much is not disturbed; our choice


def has_gpu() -> bool:
    return torch.cuda.is_available()


def is_short_of_memory(wanted: int = 0, device: torch.device | None = None) -> bool:
    """Whether there is a GPU and less than half of it would be free with ``wanted`` more bytes taken."""
    if not has_gpu():
        return False
    free, total = torch.cuda.mem_get_info(device)
    return free - wanted < ENOUGH * total
