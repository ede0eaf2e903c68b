"""What the two files of an adapter are called, and what is looked at before any of its weights is read."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from backend.registry.artifacts import BadArtifact

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
NOT_PLAIN = (  # settings of PEFT under which the same tensors compute something else, or belong elsewhere
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "exclude_modules",
    "target_parameters",
    "trainable_token_indices",
    "use_rslora",
    "use_dora",
    "lora_bias",
)


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a plain LoRA adapter. Raises BadArtifact for any other kind: PEFT would take it in silence."""
    found: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    strange = [name for name in NOT_PLAIN if found.get(name)]
    if found.get("peft_type") != "LORA" or found.get("bias", "none") != "none" or strange:
        raise BadArtifact(f"The model {folder.name} is not a plain LoRA adapter {strange or ''}. Use another model.")
    return found


def shapes_in(file: Path) -> dict[str, torch.Size]:
    """Name and shape of every tensor, from the file's header: one far too large is refused before it fills the memory."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: torch.Size(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 no mapping
    except (OSError, SafetensorError) as cause:
        raise BadArtifact(f"The model {file.parent.name}: {file.name} cannot be read. Train it again.") from cause
