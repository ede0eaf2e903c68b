"""One frozen base in memory and every adapter on it: policy, reward, and the reference, which is all adapters off."""

import inspect
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from backend.decoder.stack import Stack, can_stack, is_wired_alike
from backend.registry.artifacts import BadArtifact
from backend.training import families, fused, llama, lora, packing
from backend.training.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_config, shapes_in
from backend.training.data import GPU, PROCESSOR, pad_right
from backend.training.draws import generator
from backend.training.families import Family, UnsupportedBase
from backend.training.packing import Piece

# Largest change of a text's states by the padding before it, relative; our choice.
PADDED = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 3e-2}


class ScopeError(RuntimeError):
    """Adapters were switched between a forward and its backward, which would lose the gradient in silence."""


class Shape(NamedTuple):
    """Rank and scale of a new adapter."""

    r: int = 16
    alpha: int = 32


class SharedBase:
    """The base's weights never change; ``scope`` says which adapter a forward and its backward see."""

    def __init__(self, causal: PreTrainedModel, tokenizer: Any, name: str = "") -> None:
        if tokenizer.eos_token_id is None:
            raise UnsupportedBase("The base's tokenizer names no end token (eos_token): answers could never end.")
        self.causal: Any = causal.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.peft: PeftModel | None = None
        self.family: Family = families.family_of(causal.config)
        self.opening = families.opening(tokenizer, self.family)  # ids before every text but a decoder's
        self.backbone = families.reader_of(causal, self.family)
        is_decoder = self.family == "decoder"  # the others place their tokens themselves, from the left
        self._takes_positions = is_decoder and "position_ids" in inspect.signature(self.backbone.forward).parameters
        self.reads_trees = self._takes_positions and _attention_is_plain(causal)  # see tree.py; a job may turn it off
        self.packs = self.reads_trees and self.device.type == "cpu"  # see packing.py; likewise
        self.one_pass = PROCESSOR if self.device.type == "cpu" else GPU
        fused.install(causal)
        self.is_wired_like_llama = is_wired_alike(self.backbone)
        if self.is_wired_like_llama:
            llama.trim_last_layer(self.backbone)
        head = causal.get_output_embeddings()
        self.stack = Stack(self.backbone, head) if can_stack(self.backbone, head) else None  # for sampling
        self._is_open = False
        self._serial = 0  # counts the changes of scope
        _check_own_forward(self)

    @property
    def device(self) -> torch.device:
        return torch.device(self.causal.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights and the states; adapters and heads are float32 always."""
        dtype: torch.dtype = self.causal.dtype
        return dtype

    @property
    def width(self) -> int:
        return families.width_of(self.causal, self.family)

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    @property
    def end_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def longest(self) -> int:
        """Tokens of one text that the base can read, opening and closing ones left aside."""
        return families.longest_of(self.causal, self.family, extra=len(self.opening) + 1)

    def add(self, name: str, shape: Shape, seed: int) -> None:
        """A new LoRA adapter on all linear layers; it changes nothing until it is trained (B is zero)."""
        self._attach(name, self._lora_config(shape.r, shape.alpha, "all-linear"))
        for place, weight in sorted(self._named(name)):
            if ".lora_A." in place:
                draw = generator(seed, 0, f"lora {name} {place}")
                fresh = torch.empty(weight.shape)
                nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=draw)
                weight.data.copy_(fresh)

    def load(self, name: str, folder: Path, file: str = ADAPTER_WEIGHTS) -> None:
        """An adapter from a verified model folder; PEFT would take a damaged or foreign one in silence."""
        config = read_config(folder)
        self._attach(name, self._lora_config(config["r"], config["lora_alpha"], config["target_modules"]))
        if shapes_in(folder / file) != {k: v.shape for k, v in self._state(name).items()}:
            raise BadArtifact(
                f"The model {folder.name} does not fit the base: tensors or shapes differ. Use its own base."
            )
        state = load_file(folder / file)
        if not all(torch.isfinite(v).all() for v in state.values()):
            raise BadArtifact(f"The model {folder.name} holds numbers that are not finite. Train it again.")
        if not all(v.any() for k, v in state.items() if ".lora_A." in k):
            raise BadArtifact(f"The model {folder.name} is empty: some of its tensors are all zero. Train it again.")
        set_peft_model_state_dict(self._wrapped(), state, adapter_name=name)

    def save(self, name: str, folder: Path, file: str = ADAPTER_WEIGHTS) -> None:
        """Plain PEFT: any tool that loads adapters loads it. The same weights give the same bytes.

        Adapters of one shape may share a folder and its configuration, each in a file of its own.
        """
        config = self._wrapped().peft_config[name].to_dict()
        config["target_modules"] = sorted(config["target_modules"])
        config["base_model_name_or_path"] = self.name
        config["inference_mode"] = True
        text = json.dumps(
            config, sort_keys=True, indent=1, default=lambda o: sorted(o) if isinstance(o, set) else str(o)
        )
        (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
        state = {key: value.detach().float().cpu().contiguous() for key, value in self._state(name).items()}
        save_file(state, folder / file, metadata={"format": "pt"})

    def copy(self, name: str, source: str) -> None:
        """A new adapter that starts as another one of this base, with that one's rank and scale."""
        found = self._wrapped().peft_config[source]
        self._attach(name, self._lora_config(found.r, found.lora_alpha, found.target_modules))
        with torch.no_grad():
            for weight, there in zip(self.weights(name), self.weights(source), strict=True):
                weight.copy_(there)

    def remove(self, name: str) -> None:
        self._wrapped().delete_adapter(name)

    def weights(self, name: str) -> list[nn.Parameter]:
        """The adapter's own tensors in a fixed order."""
        return [weight for _, weight in sorted(self._named(name))]

    @contextmanager
    def scope(self, name: str | None) -> Iterator[None]:
        """All forwards inside see this adapter, or the bare base for None; their backward must happen inside too."""
        if self._is_open:
            raise ScopeError("A scope is already open; close it before another adapter is used.")
        self._is_open = True
        self._serial += 1
        try:
            if name is not None:
                self._wrapped().set_adapter(name)
                for weight in self.weights(name):
                    weight.requires_grad_(True)
                yield
            elif self.peft is None:
                yield
            else:
                with self.peft.disable_adapter():
                    yield
        finally:
            self._is_open = False
            self._serial += 1

    def states(self, tokens: Tensor, is_real: Tensor) -> Tensor:
        """Last hidden states under the open scope, of an encoder-decoder its encoder's. (B, T) twice -> (B, T, D)

        A decoder's rows are padded on the left, those of the other families on the right.
        """
        return self._read(tokens, is_real.long(), self.positions(is_real))

    def masked_states(self, tokens: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Last hidden states where a token sees what its row of the additive mask says (tree.py).

        tokens and positions (B, T), mask (B, 1, T, T) -> (B, T, D)
        """
        return self._read(tokens, mask, {"position_ids": positions})

    def packed_states(
        self, tokens: Tensor, positions: Tensor, pieces: Sequence[Piece], columns: Tensor | None = None
    ) -> Tensor:
        """Last hidden states of one line without padding, whose tokens see their own piece only (packing.py).

        tokens and positions (1, N) -> (1, N, D). With ``columns`` (W,), ascending, of these alone, (1, W, D).
        """
        line = packing.line_of(pieces, self.dtype, columns if self.is_wired_like_llama else None)
        config = self.causal.config
        usual, config._attn_implementation = config._attn_implementation, packing.NAME
        try:
            states = self._read(tokens, None, {"position_ids": positions, "line": line})
        finally:
            config._attn_implementation = usual
        return states if columns is None or self.is_wired_like_llama else states[:, columns]

    def permuted_states(self, tokens: Tensor, is_real: Tensor, hidden: Tensor, asked: Tensor) -> Tensor:
        """XLNet's states of positions whose own token it does not see. (B, M, D)

        hidden (B, T, T) is True where a token (row) does not see another, asked (B, M, T) marks the position of each state.
        """
        self._must_be_open()
        masks = {"perm_mask": hidden.to(self.dtype), "target_mapping": asked.to(self.dtype)}
        out = self.backbone(input_ids=tokens, attention_mask=is_real.long(), use_mems=False, **masks)
        return self._watched(out.last_hidden_state)

    def decoder_states(self, read: Tensor, is_real: Tensor, tokens: Tensor, cache: Any = None) -> Tensor:
        """An encoder-decoder's decoder on its own tokens and on what its encoder read; a cache keeps keys and values.

        read (B, P, D), is_real (B, P), tokens (B, R) -> (B, R, D)
        """
        self._must_be_open()
        out = self.causal.get_decoder()(
            input_ids=tokens,
            encoder_hidden_states=read,
            encoder_attention_mask=is_real.long(),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return self._watched(out.last_hidden_state)

    def _read(self, tokens: Tensor, mask: Tensor | None, places: dict[str, Any]) -> Tensor:
        self._must_be_open()
        out = self.backbone(input_ids=tokens, attention_mask=mask, **families.NO_CACHE[self.family], **places)
        return self._watched(out.last_hidden_state)

    def _must_be_open(self) -> None:
        if not self._is_open:
            raise ScopeError("Open a scope first: it says which adapter is meant.")

    def _watched(self, states: Tensor) -> Tensor:
        if states.requires_grad:
            serial = self._serial
            states.register_hook(lambda _: self._still(serial))
        return states

    def logits(self, states: Tensor, temperature: float = 1.0) -> Tensor:
        """(B, R, D) -> (B, R, V) in fp32, by the temperature. Ask only for the positions you need: V is large."""
        found = families.logits(self.causal, self.family, states).float()
        return found if temperature == 1.0 else found / temperature

    def positions(self, is_real: Tensor) -> dict[str, Tensor]:
        """Position ids count real tokens only, or left padding would shift every position (GPT-2)."""
        if not self._takes_positions:
            return {}
        return {"position_ids": (is_real.long().cumsum(1) - 1).clamp(min=0)}

    def _still(self, serial: int) -> None:
        if serial != self._serial:
            raise ScopeError("The scope of this forward is closed; its backward would lose the gradient.")

    def _wrapped(self) -> PeftModel:
        if self.peft is None:
            raise ScopeError("There is no adapter yet; add or load one.")
        return self.peft

    def _attach(self, name: str, config: LoraConfig) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            try:
                if self.peft is None:
                    self.peft = get_peft_model(self.causal, config, adapter_name=name)
                else:
                    self.peft.add_adapter(name, config)
            except ValueError as cause:
                raise UnsupportedBase(
                    f"No adapter can be put on models of the type {self.causal.config.model_type} ({cause})."
                ) from cause
        lora.install(self.peft.eval())

    def _state(self, name: str) -> dict[str, Tensor]:
        return dict(get_peft_model_state_dict(self._wrapped(), adapter_name=name, save_embedding_layers=False))

    def _named(self, name: str) -> list[tuple[str, nn.Parameter]]:
        mine = re.compile(rf"\.lora_[A-Za-z_]+\.{re.escape(name)}(\.|$)")
        return [(place, weight) for place, weight in self._wrapped().named_parameters() if mine.search(place)]

    def _lora_config(self, r: int, alpha: int, targets: str | list[str]) -> LoraConfig:
        return LoraConfig(
            r=r,
            lora_alpha=alpha,
            lora_dropout=0.0,
            target_modules=targets,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in self.causal.modules()),
            bias="none",
            task_type=families.TASKS[self.family],
        )


def load_base(base: str, dtype: str = "float32") -> SharedBase:
    """From a folder or a hub id already on this machine; safetensors only, never code from the model's repository."""
    folder = base_folder(base)
    causal: Any = families.load_model(folder, dtype)
    tokenizer = families.load_tokenizer(folder, families.family_of(causal.config))
    if torch.cuda.is_available():
        causal = causal.to("cuda")
    return SharedBase(causal, tokenizer, name="" if Path(base).is_dir() else base)


def base_folder(base: str) -> Path:
    """The folder that holds the base's files; a hub id must have been fetched before."""
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(base, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as cause:
        raise UnsupportedBase(
            "The base model is neither a folder nor a model fetched before. Fetch it first."
        ) from cause


def _attention_is_plain(causal: PreTrainedModel) -> bool:
    """True where a mask of ours is added to the scores as it stands; a sliding window would be lost under it."""
    config = causal.config
    has_window = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    return config._attn_implementation in ("eager", "sdpa") and not has_window


@torch.no_grad()
def _check_own_forward(base: SharedBase) -> None:
    """Backbone, then output layer, must equal the model's own forward: some families scale or cap their logits."""
    try:
        is_own, feels_padding = _own_and_padded(base)
    except (AttributeError, TypeError, ValueError, RuntimeError) as cause:
        raise UnsupportedBase(
            f"Models of the type {base.causal.config.model_type} are not supported yet: their states cannot be read ({cause})."
        ) from cause
    if not is_own:
        raise UnsupportedBase(
            "This family of models changes its logits after the output layer; it is not supported yet."
        )
    if feels_padding:
        raise UnsupportedBase(
            f"Models of the type {base.causal.config.model_type} read the padding before a text as a part of it, as recurrent ones do, so "
            "texts could not stand side by side. Choose a transformer such as Llama."
        )


def _own_and_padded(base: SharedBase) -> tuple[bool, bool]:
    """Whether the logits are the model's own, and whether what a text's padding hides changes its states."""
    vocabulary = base.causal.config.vocab_size
    if base.family == "decoder":
        tokens = torch.arange(1, 9, device=base.device).view(2, 4) % vocabulary
        is_real = torch.tensor([[True] * 4, [False] + [True] * 3], device=base.device)
        theirs = base.causal(input_ids=tokens, attention_mask=is_real.long(), **base.positions(is_real)).logits.float()
    else:
        tokens, is_real = pad_right([[3, 4, 5, 6], [4, 5, 6]], base.pad_id, base.device)
        answer = torch.arange(2, 10, device=base.device).view(2, 4) % vocabulary
        theirs = families.whole_logits(base.causal, base.family, tokens, is_real, answer).float()
    with base.scope(None):
        ours = base.states(tokens, is_real)
        padded = ours[1][is_real[1]].float()
        alone = base.states(tokens[1:][is_real[1:]][None], is_real[1:][is_real[1:]][None])[0].float()
        if base.family == "encoder_decoder":
            ours = base.decoder_states(ours, is_real, answer)
        ours = base.logits(ours)
    is_own = torch.allclose(ours[is_real], theirs[is_real], rtol=1e-3, atol=1e-3)
    return is_own, float((padded - alone).norm()) > PADDED[base.dtype] * float(alone.norm())
