"""Adapters write on decoders that are read as transformers reads them: those with windows, with states, with masks of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerFast

from backend.engines.local.loading import load_base
from backend.engines.local.resolver import Resolved
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.test_rows import OTHERS, of_kind
from tests.backend.engines.test_scheduler import GREEDY, Asked, request
from tests.backend.engines.tiny import save_adapter

NEW = 12
LAYERS = {  # peft takes no output layers of states
    "mamba": ["in_proj", "x_proj"],
    "mamba2": ["in_proj"],
    "falcon_h1": ["q_proj", "v_proj", "in_proj", "down_proj"],
}


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 asks transformers for a name that goes
@pytest.mark.parametrize("kind", OTHERS)
@torch.no_grad()
def test_an_adapter_and_the_bare_base_write_side_by_side_what_peft_writes(
    kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.set_num_threads(1)
    folder = tmp_path / "base"
    model = of_kind(kind)
    model.config.eos_token_id = model.config.pad_token_id = None  # else it would end where the other goes on
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    saved = save_adapter(tmp_path / "models", folder, 1, target_modules=LAYERS.get(kind, "all-linear"))
    adapter = Resolved("model-1", tmp_path / "models" / saved.folder, saved.digest)
    prompts = [[5, 9, 30, 7, 11], [40, 6]]

    base = load_base(str(folder), device="cpu")
    base.end_tokens = frozenset()
    scheduler = Scheduler(base)
    options = {"max_tokens": NEW, "sampling": GREEDY, "top_logps": 0}
    asked = [Asked(scheduler, request(base, prompt, who, **options)) for who in (adapter, None) for prompt in prompts]
    found = [[one.token for piece in each.pieces() for one in piece.tokens] for each in asked]
    scheduler.close()

    with_adapter = PeftModel.from_pretrained(model, str(adapter.adapter)).eval()
    expected = [written(with_adapter, prompt) for prompt in prompts]
    with with_adapter.disable_adapter():
        expected += [written(with_adapter, prompt) for prompt in prompts]
    assert found == expected
    assert expected[:2] != expected[2:], "the adapter changes nothing"


def written(model: PeftModel, prompt: list[int]) -> list[int]:
    """Greedy tokens, each from a forward pass over the whole text."""
    text = list(prompt)
    for _ in range(NEW):
        text.append(int(model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].argmax()))
    return text[len(prompt) :]
