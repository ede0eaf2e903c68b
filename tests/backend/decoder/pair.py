"""Two linear layers with adapters, and what an adapter of three layers adds, to try products with."""

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

ADAPTERS = {"one": 3, "two": 2, "none": 0}  # with their ranks; "none" has no part anywhere


class Pair(nn.Module):
    def __init__(self, has_bias: bool, right: int) -> None:
        super().__init__()
        self.left = nn.Linear(16, 24, bias=has_bias)
        self.right = nn.Linear(16, right, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], -1)


def adapted_pair(has_bias: bool = False, right: int = 8) -> tuple[nn.Module, list[nn.Module]]:
    """Two layers; "one" is on both, "two" on the left one only."""
    torch.manual_seed(0)
    pair = Pair(has_bias, right)
    model = get_peft_model(pair, LoraConfig(r=3, lora_alpha=6, target_modules=["left", "right"]), adapter_name="one")  # type: ignore[arg-type]
    model.add_adapter("two", LoraConfig(r=2, lora_alpha=8, target_modules=["left"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    model.eval().requires_grad_(False)
    return model, [pair.left, pair.right]


def by_itself(model: nn.Module, x: Tensor, adapter: str) -> Tensor:
    if adapter == "none":
        with model.disable_adapter():  # type: ignore[operator]
            found: Tensor = model(x)
    else:
        model.set_adapter(adapter)  # type: ignore[operator]
        found = model(x)
    return found


def with_adapter(out: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """A row's outputs (O,) and what an adapter of rank 16 makes of its inputs (I,), in double precision. a (I, 48); b (1, 16, O') is a
    run of one layer, c (2, 16, O'') of two."""
    inner = x.double() @ a.double()
    parts = [inner[:16] @ b[0].double(), inner[16:32] @ c[0].double(), inner[32:] @ c[1].double()]
    return out.double() + torch.cat(parts)
