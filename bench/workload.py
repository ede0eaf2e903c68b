"""What both sides of the training measurement work on: models with random weights, a tokenizer, pairs as token ids."""

import gzip
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

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


def rows(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first rows, the same for both sides."""
    with (folder / "rows.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line, _ in zip(stream, range(count), strict=False)]
