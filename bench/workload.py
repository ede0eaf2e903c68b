"""What both sides of a measurement work on: models and adapters with random weights, a tokenizer, pairs as token ids."""

import gzip
import hashlib
import itertools
import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from backend.registry import artifacts

VOCABULARY = 4096
LONGEST = 512  # tokens of a prompt and an answer; longer pairs are left out on both sides
PAD, END = "<pad>", "<end>"
ASSISTANT = "\n\nAssistant:"


class Shape(NamedTuple):
    layers: int
    width: int
    inner: int
    heads: int


SIZES = {"6M": Shape(6, 256, 688, 4), "90M": Shape(12, 768, 2048, 12), "500M": Shape(24, 1280, 3456, 20)}


class Pair(NamedTuple):
    prompt: str
    chosen: str
    rejected: str


def prepare(cache: Path, pairs: Path | None, sizes: list[str]) -> Path:
    """The folder with everything both sides read; made once for one file of pairs."""
    texts = list(read_pairs(pairs)) if pairs else list(made_pairs(2000))
    digest = hashlib.sha256(repr(texts).encode()).hexdigest()[:12]
    folder = cache / f"workload-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.jsonl").exists():
        tokenizer = trained_tokenizer(texts)
        tokenizer.save_pretrained(folder / "tokenizer")
        lines = [json.dumps(row) for row in encoded(texts, tokenizer)]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for size in sizes:
        if not (folder / f"reward-{size}" / "config.json").exists():
            save_models(folder, size)
    return folder


def read_pairs(path: Path) -> Iterator[Pair]:
    """Pairs whose two dialogues differ in the last answer only."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            (prompt, chosen), (other, rejected) = (split_last(row[key]) for key in ("chosen", "rejected"))
            if prompt == other and chosen != rejected and chosen and rejected:
                yield Pair(prompt, chosen, rejected)


def split_last(dialogue: str) -> tuple[str, str]:
    head, _, answer = dialogue.rpartition(ASSISTANT)
    return head + ASSISTANT, answer.rstrip()


def made_pairs(count: int) -> Iterator[Pair]:
    """Word salad with the lengths of real pairs, for a machine without any."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(3000)]

    def said(tokens: int) -> str:
        return " ".join(rng.choices(words, k=max(3, int(rng.expovariate(1 / tokens)))))

    for _ in range(count):
        yield Pair(f"\n\nHuman: {said(60)}{ASSISTANT}", " " + said(20), " " + said(25))


def trained_tokenizer(pairs: list[Pair]) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(("".join(pair) for pair in pairs), trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=PAD, eos_token=END, padding_side="left")
    made.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # the prompt as it stands
    return made


def encoded(pairs: list[Pair], tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Texts, and prompt, chosen and rejected as ids, each answer with its end.

    Pairs of which a token would span the border between prompt and answer are left out: one side joins the strings, the
    other the ids, and both shall read the same.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    for pair in pairs:
        prompt, chosen, rejected = (ids(text) for text in pair)
        is_whole = (
            ids(pair.prompt + pair.chosen) == prompt + chosen and ids(pair.prompt + pair.rejected) == prompt + rejected
        )
        if is_whole and len(prompt) + max(len(chosen), len(rejected)) + 1 <= LONGEST:
            end = [tokenizer.eos_token_id]
            yield {"texts": pair, "prompt": prompt, "chosen": chosen + end, "rejected": rejected + end}


def save_models(folder: Path, size: str) -> None:
    """The base, and the same weights with a scalar head, as the peers' reward and value models."""
    shape = SIZES[size]
    config = {
        "vocab_size": VOCABULARY,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    torch.manual_seed(0)
    base: Any = LlamaForCausalLM(LlamaConfig(**config))
    base.save_pretrained(folder / f"base-{size}")
    judge: Any = LlamaForSequenceClassification(LlamaConfig(**config, num_labels=1))
    judge.model.load_state_dict(base.model.state_dict())
    torch.nn.init.normal_(judge.score.weight, std=shape.width**-0.5)
    judge.save_pretrained(folder / f"reward-{size}")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
    tokenizer.save_pretrained(folder / f"base-{size}")
    tokenizer.save_pretrained(folder / f"reward-{size}")


def published(folder: Path, size: str) -> str:
    """The same base, saved in bfloat16 as most are: the name that stands for its size."""
    name = f"{size}-bfloat16"
    if not (folder / f"base-{name}" / "config.json").exists():
        base: Any = LlamaForCausalLM.from_pretrained(folder / f"base-{size}", dtype=torch.bfloat16)
        base.save_pretrained(folder / f"base-{name}")
        PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer").save_pretrained(folder / f"base-{name}")
    return name


def rows(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first rows, the same for both sides."""
    with (folder / "rows.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line, _ in zip(stream, range(count), strict=False)]


def prompts(folder: Path, count: int, tokens: int) -> list[list[int]]:
    """The last ``tokens`` ids of the first prompts that have so many. Raises ValueError where there are fewer than ``count``."""
    with (folder / "rows.jsonl").open(encoding="utf-8") as stream:
        read = (json.loads(line)["prompt"] for line in stream)
        found = [prompt[-tokens:] for prompt in itertools.islice((one for one in read if len(one) >= tokens), count)]
    if len(found) < count:
        raise ValueError(
            f"{count} prompts of {tokens} tokens are needed and the pairs have {len(found)}. Give more pairs."
        )
    return found


class Adapter(NamedTuple):
    folder: str
    digest: str


def adapters(folder: Path, size: str, count: int) -> list[Adapter]:
    """LoRA adapters of rank 16 on every linear layer of the base, with random weights, as the registry keeps them."""
    models, base = folder / f"adapters-{size}", folder / f"base-{size}"
    index = models / "index.json"
    if not index.exists() or len(json.loads(index.read_text("utf-8"))) < count:
        saved = [saved_adapter(models, base, seed) for seed in range(count)]
        index.write_text(json.dumps([one._asdict() for one in saved]), encoding="utf-8")
    listed = [Adapter(**one) for one in json.loads(index.read_text("utf-8"))[:count]]
    return [one._replace(folder=str(models / Path(one.folder).name)) for one in listed]  # the cache may have been moved


def saved_adapter(models: Path, base: Path, seed: int) -> Adapter:
    torch.manual_seed(seed)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft 0.21 asks transformers for a name that is on its way out
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model = get_peft_model(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)

    def fill(place: Path) -> None:
        model.save_pretrained(place)
        (place / "README.md").unlink(missing_ok=True)

    saved = artifacts.save(models, fill, {"base_fingerprint": artifacts.fingerprint(base)})
    return Adapter(str(models / saved.folder), saved.digest)
