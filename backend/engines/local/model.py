"""The frozen base in memory, and the LoRA adapters that go on and off it by name."""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Cache, GenerationConfig

from backend.decoder.stack import Stack, can_stack
from backend.registry import artifacts
from backend.training import families
from backend.training.adapter_files import shapes_in
from backend.training.chat_ids import ControlTokens, Part, chat_parts, part_ids
from backend.training.data import Tokens

from .placing import INT8, ModelProblem

log = logging.getLogger(__name__)

PACKED_FOR = 16  # rows; our choice
ADAPTER_FILE = "adapter_model.safetensors"
ALIGNED = (
    16  # tokens of a scored text are padded to a multiple: its numbers do not depend on its company then (rows.py)
)
UNSUPPORTED_LORA = (
    "modules_to_save",
    "layer_replication",
    "megatron_config",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
)


class Base:
    """One language model with its tokenizer. Used by one thread; only the tokenizer side may be shared."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        digest: str,
        *,
        adapter_limit: int = 8,
        home: torch.device | None = None,
        quantisation: str = "none",
        tokens_digest: str = "",
    ) -> None:
        """``home``: where the model computes; None is where it is. Given, it is away from there until ``come_back``.
        ``tokens_digest``: of the tokenizer's files (artifacts.py); without it no adapter is asked for its own."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.digest = digest
        self.tokens_digest = tokens_digest
        self.device: torch.device = home or torch.device(model.device)
        self.is_away = home is not None
        self.dtype: torch.dtype = model.dtype
        self.quantisation = quantisation
        self.attention = str(getattr(model.config, "_attn_implementation", None) or "eager")
        self.family = families.family_of(model.config)
        self.is_encoder_decoder = self.family == "encoder_decoder"
        self.opening = families.opening(tokenizer, self.family)  # tokens before every text an encoder reads
        self.start_token = families.start_id(model) if self.is_encoder_decoder else 0  # before every answer
        self.closing = int(tokenizer.eos_token_id or 0) if self.is_encoder_decoder else -1  # after every prompt
        self.width = families.width_of(model, self.family)
        self.layers = int(model.config.get_text_config().num_hidden_layers)
        self.vocabulary = int(model.get_output_embeddings().weight.shape[0])
        self.context = _context_of(model.config, tokenizer)
        self.end_tokens = _end_tokens(model, tokenizer)
        self.pad_token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        accepted = inspect.signature(model.forward).parameters
        self.takes_position = "position_ids" in accepted
        self._takes_logits_to_keep = "logits_to_keep" in accepted
        self._cache_name = next((one for one in ("past_key_values", "cache_params") if one in accepted), "")
        if not self._cache_name:
            raise ModelProblem(
                f"The model {name} ({model.config.model_type}) keeps what it has read in a way of its own, with which the engine "
                "cannot write. Choose another, or let another server answer for it, added as a remote engine."
            )
        self.stack = None if self.is_away else _stack_of(model, quantisation == INT8)
        self._adapter_limit = adapter_limit
        self._adapters: OrderedDict[str, None] = OrderedDict()
        self._peft: PeftModel | None = None
        self._layers: list[BaseTunerLayer] = []
        self._active: str | None = None

    # tokens

    def chat_tokens(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """The tokens of a conversation in the model's own chat template, ready for the next answer.

        An encoder-decoder without one gets plain lines, as in training, which always end where an answer begins.
        """
        if not self.tokenizer.chat_template and self.is_encoder_decoder:  # hardly one of them brings any
            return Tokens(self.tokenizer, self.context).prefix([dict(message) for message in messages])
        return part_ids(self.tokenizer, self.chat_parts(messages, add_generation_prompt=add_generation_prompt))

    def chat_parts(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[Part]:
        """A conversation as the model's own chat template writes it, what is data kept apart. Raises ModelProblem."""
        self._must_have_a_template()
        try:
            return chat_parts(self.tokenizer, messages, add_generation_prompt=add_generation_prompt)
        except ControlTokens as problem:
            raise ModelProblem(f"{problem} Remove it or write it differently.") from problem
        except Exception as problem:  # a template is a program of the model's author and may raise anything
            raise ModelProblem(f"The model's chat template refuses this conversation: {problem}") from problem

    def _must_have_a_template(self) -> None:
        if not self.tokenizer.chat_template:
            raise ModelProblem(
                f"The model {self.name} has no chat template, so it cannot answer a conversation. "
                "Choose an instruct model, or add a chat_template.jinja to its folder."
            )

    def text_tokens(self, text: str) -> list[int]:
        """The tokens of a bare prompt; a beginning-of-text token is added once where the tokenizer wants one."""
        tokens = self.tokenizer.encode(text, add_special_tokens=not self.is_encoder_decoder)
        first = self.tokenizer.bos_token_id
        return tokens[1:] if first is not None and tokens[:2] == [first, first] else tokens

    def open_ended(self, tokens: Sequence[int]) -> list[int]:
        """A prompt's tokens as somebody gave them, without the opening and end tokens that an encoder's text is given anyway."""
        tokens = list(tokens)
        if not self.is_encoder_decoder:
            return tokens
        tokens = tokens[len(self.opening) :] if self.opening and tokens[: len(self.opening)] == self.opening else tokens
        return tokens[:-1] if tokens[-1:] == [self.closing] else tokens

    def before_answer(self, prompt: Sequence[int]) -> list[int]:
        """What stands before an answer in the text that its tokens go on with: the prompt, or a decoder's start token."""
        return [self.start_token] if self.is_encoder_decoder else list(prompt)

    def left_beside(self, prompt_tokens: int) -> int:
        """How many tokens an answer may have behind a prompt of so many; less than 0 where the prompt alone is too long.

        An encoder-decoder has a room for the prompt and another for the answer.
        """
        if not self.is_encoder_decoder:
            return self.context - prompt_tokens
        return self.context if prompt_tokens <= self.longest_prompt else -1

    @property
    def longest_prompt(self) -> int:
        return self.context - len(self.opening) - 1 if self.is_encoder_decoder else self.context

    # forward passes

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, position: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Read tokens (B, T) into the cache; float32 logits after the last one, (B, V). The mask spans cache and tokens."""
        extra: dict[str, Any] = {"position_ids": position} if self.takes_position else {}
        if self._takes_logits_to_keep:
            extra["logits_to_keep"] = 1
        extra[self._cache_name] = cache
        if self._cache_name == "cache_params":  # which holds states alone: no mask can hide what is in it
            mask = mask[:, -tokens.shape[1] :]
        output = self.model(input_ids=tokens, attention_mask=mask, use_cache=True, **extra)
        return output.logits[:, -1].float()

    def logits(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Float32 logits at every token, (B, T, V); rows are padded at the right, where padding is seen by nobody."""
        longest = -(-max(len(row) for row in rows) // ALIGNED) * ALIGNED
        tokens = torch.full((len(rows), min(longest, max(self.context, *map(len, rows)))), self.pad_token)
        for at, row in enumerate(rows):
            tokens[at, : len(row)] = torch.tensor(row, dtype=torch.long)
        logits: torch.Tensor = self.model(input_ids=tokens.to(self.device), use_cache=False).logits
        return logits.float()

    def free_memory(self) -> int:
        """Bytes that may still be taken where the model is."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0])
        return int(psutil.virtual_memory().available)

    @property
    def weight_bytes(self) -> int:
        """What the base and its adapters take."""
        return sum(weight.nbytes for weight in self.model.parameters())

    def go_away(self) -> None:
        """The model to the processor's memory. A stack, which holds the weights where they were, goes with it."""
        self.model.to("cpu")
        self.stack, self.is_away = None, True

    def come_back(self) -> None:
        """The model to its own device, where it is read as a stack again."""
        self.model.to(self.device)
        self.stack = None  # its memory goes before a new one takes any
        self.stack, self.is_away = _stack_of(self.model, self.quantisation == INT8), False

    # adapters

    @property
    def adapters(self) -> list[str]:
        return list(self._adapters)

    def ensure_adapter(
        self, name: str, folder: Path, *, keep: Collection[str] = (), file: str = ADAPTER_FILE, digest: str = ""
    ) -> None:
        """Have the adapter with this digest in memory. The one not asked for longest and not in `keep` makes room.

        `file` and `digest` are for a folder of several adapters, where the name is not the folder's digest.
        """
        if name not in self._adapters:
            self._load_adapter(name, folder, file, digest or name)
        self._adapters[name] = None
        self._adapters.move_to_end(name)
        for other in [other for other in self._adapters if other != name and other not in keep]:
            if len(self._adapters) <= self._adapter_limit:
                return
            self._drop_adapter(other)

    def is_settled_with(self, name: str) -> bool:
        """Whether it is in memory, and ``ensure_adapter`` would put out no other."""
        return name in self._adapters and len(self._adapters) <= self._adapter_limit

    def stands_beside(self, name: str) -> bool:
        """Whether this adapter, which is in memory, is plain LoRA on the layers that a stack reads."""
        holding = [layer for layer in self._layers if name in layer.lora_A or name in layer.lora_embedding_A]
        read = set(self.stack.linear_layers) if self.stack is not None else set()
        return all(layer in read and _is_plain(layer, name) for layer in holding)

    @contextmanager
    def scope(self, name: str | None) -> Iterator[None]:
        """Within: this adapter alone; None is the bare base. The switch stays until the next scope asks otherwise."""
        if name != self._active:
            for layer in self._layers:
                if name is None:
                    layer.enable_adapters(False)
                    continue
                if layer.disable_adapters:
                    layer.enable_adapters(True)
                has_it = name in layer.lora_A or name in layer.lora_embedding_A
                layer.set_adapter([name] if has_it else [], inference_mode=True)
            self._active = name
        yield

    def _load_adapter(self, name: str, folder: Path, file: str, digest: str) -> None:
        verify_adapter(folder, digest, self.digest, self.tokens_digest)
        config = _lora_config(folder)
        try:
            numbers = sum(shape.numel() for shape in shapes_in(folder / file).values())
            if numbers > self.model.num_parameters():
                raise ModelProblem(
                    f"The adapter {folder.name} holds {numbers:,} numbers, more than its base. Use another model."
                )
            weights = load_file(folder / file)
        except (artifacts.BadArtifact, OSError, SafetensorError) as problem:
            raise ModelProblem(f"The adapter {folder.name} has no readable {file}.") from problem
        if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
            raise ModelProblem(f"The adapter {folder.name} holds weights that are not numbers. Train it again.")
        if not all(bool(tensor.any()) for key, tensor in weights.items() if ".lora_A." in key):
            raise ModelProblem(f"The adapter {folder.name} is empty: some weights are all zero. Train it again.")
        try:
            if self._peft is None:
                self._peft = _with_first_adapter(self.model, config, name)
            else:
                self._peft.add_adapter(name, config)
            self._adopt_layers()
            result = set_peft_model_state_dict(self._peft, weights, adapter_name=name)
        except (ValueError, RuntimeError, KeyError) as problem:
            self._drop_adapter(name)
            raise ModelProblem(f"The adapter {folder.name} does not fit the base model {self.name}.") from problem
        missing = [key for key in result.missing_keys if f".{name}" in key]
        if missing or result.unexpected_keys:
            self._drop_adapter(name)
            raise ModelProblem(
                f"The adapter {folder.name} does not fit the base model {self.name}: "
                f"{len(missing)} weights are missing and {len(result.unexpected_keys)} are unknown."
            )

    def _adopt_layers(self) -> None:
        assert self._peft is not None
        self._peft.eval().requires_grad_(False)
        self._layers = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]
        self._active = "nothing yet"
        with self.scope(None):
            pass

    def _drop_adapter(self, name: str) -> None:
        """Also after a load that failed half way."""
        self._adapters.pop(name, None)
        if self._peft is None:
            return
        for layer in self._layers:
            layer.set_adapter([], inference_mode=True)  # else peft makes another adapter active, and warns
        if name in self._peft.peft_config:
            self._peft.delete_adapter(name)
        self._adopt_layers()


def _stack_of(model: Any, is_rounded: bool) -> Stack | None:
    """The decoder read in the fewest products, where the model is wired for it. On a CPU with a packed copy of the weights,
    as far as they take no more than a quarter of the memory that is free, or with one of 8 bits. Raises ModelProblem where
    that is asked for and cannot be had."""
    backbone, head = getattr(model, str(model.base_model_prefix), None), model.get_output_embeddings()
    if backbone is None or not can_stack(backbone, head) or not _has_plain_attention(model.config):
        if is_rounded:
            raise ModelProblem(
                "int8 weights are for bases wired like Llama (Llama, Mistral, Qwen 2 and 3) without sliding windows, and this one "
                "is not. Set 'quantisation' to none."
            )
        return None
    stack = Stack(backbone, head)
    weights = sum(weight.nbytes for weight in backbone.parameters())
    if is_rounded or 4 * weights <= psutil.virtual_memory().available:
        stack.pack(PACKED_FOR, is_rounded=is_rounded)
    return stack


def _has_plain_attention(config: Any) -> bool:
    return getattr(config, "sliding_window", None) is None or not getattr(config, "use_sliding_window", True)


def _is_plain(layer: BaseTunerLayer, name: str) -> bool:
    """LoRA as in Hu et al. 2021; variants such as DoRA compute something else."""
    variant = getattr(layer, "lora_variant", {})
    has_bias = getattr(layer.lora_B[name], "bias", None) is not None if name in layer.lora_B else True
    return isinstance(layer, LoraLinear) and name not in variant and not has_bias


def _context_of(config: Any, tokenizer: Any) -> int:
    """Tokens. Of rotations that are others in long texts it is the length up to which they are the usual ones: transformers looks
    at the longest row of a batch, and a row's numbers would depend on its company."""
    inner = config.get_text_config()
    known = [getattr(inner, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len")]
    rotations = getattr(inner, "rope_parameters", None) or {}
    for one in [
        rotations,
        *(own for own in rotations.values() if isinstance(own, dict)),
    ]:  # or one for each kind of layer
        if one.get("rope_type") == "longrope":
            known.append(one.get("original_max_position_embeddings"))
    limits = [limit for limit in [*known, tokenizer.model_max_length] if isinstance(limit, int) and 0 < limit < 10**7]
    return min(limits, default=2048)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    settings: GenerationConfig | None = getattr(model, "generation_config", None)
    listed = getattr(settings, "eos_token_id", None)
    ends = listed if isinstance(listed, list) else [listed]
    return frozenset(token for token in [*ends, tokenizer.eos_token_id] if token is not None)


def _with_first_adapter(model: Any, config: LoraConfig, name: str) -> PeftModel:
    with warnings.catch_warnings():  # peft 0.21 asks transformers for a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return PeftModel(model, config, adapter_name=name)


def verify_adapter(folder: Path, digest: str, base_digest: str, tokens_digest: str = "") -> Mapping[str, Any]:
    """The files are those of the manifest, the manifest is the registered one, and it was trained on this base and its
    tokenizer, as far as that is told.

    Returns the manifest's facts. Raises ModelProblem.
    """
    try:
        manifest = artifacts.verify(folder)
    except artifacts.BadArtifact as problem:
        raise ModelProblem(str(problem)) from problem
    if manifest.digest != digest:
        raise ModelProblem(f"The model {folder.name} is not the one that was registered. Restore it from a backup.")
    if manifest.facts.get("base_fingerprint", base_digest) != base_digest:
        raise ModelProblem(f"The model {folder.name} was trained on another base than the one that is served.")
    if tokens_digest:
        try:
            artifacts.refuse_other_tokens(folder.name, manifest, tokens_digest)
        except artifacts.BadArtifact as problem:
            raise ModelProblem(str(problem)) from problem
    return manifest.facts


def _lora_config(folder: Path) -> LoraConfig:
    try:
        values = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if values.get("peft_type") != "LORA":
            raise ModelProblem(
                f"The adapter {folder.name} is of kind {values.get('peft_type')}; only LoRA adapters are served."
            )
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError) as problem:
        raise ModelProblem(f"The adapter {folder.name} has no readable adapter_config.json.") from problem
    unsupported = [key for key in UNSUPPORTED_LORA if getattr(config, key, None)]
    if unsupported or config.bias != "none":
        what = ", ".join(unsupported) or f"bias={config.bias}"
        raise ModelProblem(
            f"The adapter {folder.name} changes the base itself ({what}), so it cannot share one base with others."
        )
    config.init_lora_weights = True  # some other values rewrite the base; every weight is replaced from the file anyway
    config.base_model_name_or_path = None
    config.inference_mode = True
    config.lora_dropout = 0.0
    return config
