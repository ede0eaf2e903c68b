"""What is free on the accelerator that jobs compute on."""

import torch

ENOUGH = 0.5  # of its memory; an engine beside a job with that much is not disturbed; our choice


def is_short_of_memory() -> bool:
    """Whether there is a GPU and less than half of it is free."""
    if not torch.cuda.is_available():
        return False
    free, total = torch.cuda.mem_get_info()
    return free < ENOUGH * total
