"""Models of a few thousand weights with a tokenizer of words, made on the spot."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backend.training.shared_base import SharedBase

SPECIAL = ["<pad>", "<end>", "<user>", "<assistant>", "<system>", "<unk>"]
WORDS = SPECIAL + ["good", "bad", "please", "hello"] + [f"w{i}" for i in range(22)]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def tokenizer() -> Any:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>", "<system>"],
    )
    made.chat_template = TEMPLATE
    return made


def causal(family: str = "llama", seed: int = 0) -> Any:
    torch.manual_seed(seed)
    if family == "gpt2":
        shape = {"n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
        return GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), bos_token_id=1, eos_token_id=1, **shape))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=96,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )


def base(family: str = "llama", seed: int = 0) -> SharedBase:
    return SharedBase(causal(family, seed), tokenizer())


def folder(path: Path, family: str = "llama", seed: int = 0) -> Path:
    causal(family, seed).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def said(case: int, *, words: str = "", length: int = 3) -> str:
    """Filler text that differs per case."""
    return " ".join([*(f"w{(case * 7 + i * 3) % 22}" for i in range(length)), *words.split()])


def reward_row(case: int, better: str, worse: str, *, is_tie: bool = False, **more: Any) -> dict[str, Any]:
    """The better answer stands first in even cases, second in odd ones."""
    texts = [better, worse] if case % 2 == 0 else [worse, better]
    ranks = [1, 1] if is_tie else [1, 2] if case % 2 == 0 else [2, 1]
    row = {
        "case": case,
        "split": ("train", "train", "train", "val", "test")[case % 5],
        "conversation": [{"role": "user", "content": said(case)}],
        "answers": [{"completion": 10 * case + i, "text": text, "ended": True} for i, text in enumerate(texts)],
        "ranks": ranks,
        "weight": 1.0,
        "strength": None,
        "judgements": [case],
        "both_bad": False,
    }
    return {**row, **more}


def separable_rows(count: int = 80) -> list[dict[str, Any]]:
    """The answer with "good" beats the one with "bad"; lengths say nothing."""
    return [
        reward_row(i, said(i + 1, words="good", length=2 + i % 3), said(i + 2, words="bad", length=2 + (i // 3) % 3))
        for i in range(count)
    ]


def prompt_row(case: int) -> dict[str, Any]:
    turns = [{"role": "user", "content": said(case, length=2 + case % 4)}]
    return {
        "case": case,
        "split": ("train", "train", "train", "val", "test")[case % 5],
        "messages": [{"role": "system", "content": "hello"}, *turns],
        "conversation": turns,
    }


def preference_row(case: int, **more: Any) -> dict[str, Any]:
    """A pair as DPO reads it: the answer with "good" won, both answer one prompt."""
    better, worse = said(case + 1, words="good", length=2 + case % 3), said(case + 2, words="bad", length=2 + case % 2)
    row = reward_row(case, better, worse)
    return {**row, "prompts": [prompt_row(case)["messages"]] * 2, **more}


def unpaired_row(number: int, **more: Any) -> dict[str, Any]:
    """One answer as KTO reads it; two neighbours answer one case: "good" is desirable, "bad" is not."""
    is_desirable = number % 2 == 0
    row, words = prompt_row(number // 2), "good" if is_desirable else "bad"
    answer = {"completion": number, "text": said(number + 1, words=words, length=2 + number // 2 % 3), "ended": True}
    return {
        **{k: row[k] for k in ("case", "split", "messages")},
        "answer": answer,
        "desirable": is_desirable,
        "weight": 1.0,
        "source": "winner" if is_desirable else "loser",
        "is_contradicted": False,
        **more,
    }


def answer_row(case: int, **more: Any) -> dict[str, Any]:
    """Every prompt is answered by "good please" and an end."""
    row = prompt_row(case)
    answer = {"completion": case, "text": "good please", "ended": True}
    return {**{k: row[k] for k in ("case", "split", "messages")}, "answer": answer, "source": "winner", **more}


def good_row(case: int, text: str = "good please") -> dict[str, Any]:
    """An answer worth learning from, with prompt and case; every seventh is a demonstration, which belongs to no case."""
    row = answer_row(case, conversation=prompt_row(case)["conversation"])
    return {**row, "answer": {**row["answer"], "text": text}, **({"case": None} if case % 7 == 0 else {})}
