"""PPO's values: what may still be expected to be paid from a token on, read from the state before it.

Three kinds, by the setting ``value_adapter``:

- none: a head on the policy's own last states, zero at the start. One forward serves both; the value's gradient reaches
  the policy's adapter too.
- own: an adapter "value" of its own with a head that is zero at the start, so that nothing the values learn moves the
  policy. One more forward and backward, as in a trainer with a value model.
- reward: the same, but adapter and head are copied from the reward model (the first member of an ensemble): the values start as its normalised score of
  the text so far (Ouyang et al. 2022; Huang et al. 2024, arXiv:2403.17031). The reward model learnt from the bare case,
  here it reads the policy's prompt, with its scaffolding, so that both passes share one packing. With whitened rewards
  the scale of that start is no longer that of the returns.

One AdamW steps everything. Where the values have an adapter of their own, policy and values are clipped each by its own
norm, or an early error of the values would shrink the policy's step; ``vf_coef`` then acts through that clip alone,
since AdamW evens out the size of a gradient. Adapter and head of the values live in checkpoints, never in a model.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from backend.training import on_policy
from backend.training.judge import Judge
from backend.training.settings import PPOSettings
from backend.training.shared_base import Shape, SharedBase

ADAPTER = "value"


class Critic(NamedTuple):
    adapter: str  # whose states the head reads: the policy's, or its own
    head: nn.Linear
    own: list[nn.Parameter]  # weights of its own adapter; none on the policy's states


def new_critic(base: SharedBase, judge: Judge, settings: PPOSettings, seed: int) -> Critic:
    """As the settings want it; an adapter of its own is put on the base."""
    head = nn.Linear(base.width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if settings.value_adapter == "none":
        return Critic(on_policy.ADAPTER, head.to(base.device), [])
    if settings.value_adapter == "own":
        base.add(ADAPTER, Shape(settings.lora_r, settings.lora_alpha), seed)
    else:
        first = judge.members[0]
        base.copy(ADAPTER, first.adapter)
        with torch.no_grad():
            head.weight.copy_(first.head.gain * first.head.weight)
            head.bias.copy_(-first.head.gain * first.head.bias)
    return Critic(ADAPTER, head.to(base.device), base.weights(ADAPTER))


def values_of(critic: Critic, states: Tensor) -> Tensor:
    """In fp32. (B, R, D) -> (B, R)"""
    values: Tensor = critic.head(states.float()).squeeze(-1)
    return values
