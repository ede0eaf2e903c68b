"""What is measured on the starter model: few-shot answers on held-out sentences."""

from random import Random
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from backend.prompts import build_prompt
from backend.starter import corpus, sentiment
from backend.starter.words import LANGUAGES, arbitrary_labels


class Probe(NamedTuple):
    prompt: str  # the user message
    labels: tuple[str, str]
    right: str


# What the labels are: the usual words, or two words that mean nothing here, drawn anew for every prompt.
LABEL_KINDS = ("natural", "arbitrary")


def probes(seed: int, count: int, language: str, shots: int, labels: str) -> list[Probe]:
    """Prompts of held-out sentences, as many demonstrations of either sentiment as the number of shots allows."""
    rng = Random(f"probes {seed} {language} {shots} {labels}")
    found = []
    for place in range(count):
        names = _label_words(rng, language, labels)
        word = dict(zip((sentiment.POSITIVE, sentiment.NEGATIVE), names, strict=True))
        both = [sentiment.POSITIVE, sentiment.NEGATIVE]
        rng.shuffle(both)
        wanted = (both * shots)[:shots]
        rng.shuffle(wanted)
        shown = [sentiment.review(rng, language, "test", one) for one in wanted]
        asked = sentiment.review(rng, language, "test", (sentiment.POSITIVE, sentiment.NEGATIVE)[place % 2])
        task = corpus.TASKS[language][0]
        text = build_prompt(task, asked.text, [(one.text, word[one.sentiment]) for one in shown])
        found.append(Probe(text, (names[0], names[1]), word[asked.sentiment]))
    return found


def _label_words(rng: Random, language: str, labels: str) -> tuple[str, str]:
    """The word for positive and the word for negative."""
    return corpus.USUAL_LABELS[language] if labels == "natural" else arbitrary_labels(rng, language)


@torch.no_grad()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[str], longest: int = 8
) -> list[str]:
    """The greedy answer to each prompt, as plain text."""
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": one}], tokenize=False, add_generation_prompt=True)
        for one in prompts
    ]
    texts: list[str] = []
    for start in range(0, len(chats), 50):
        batch = tokenizer(
            chats[start : start + 50],
            return_tensors="pt",
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
        )
        out = model.generate(**batch, do_sample=False, max_new_tokens=longest)
        texts += tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


@torch.no_grad()
def choices(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: list[Probe]) -> list[str]:
    """Of each probe's two labels the one the model finds likelier, summed over its tokens and the eos after it."""
    chosen = []
    for one in asked:
        scores = []
        for label in one.labels:
            chat = [{"role": "user", "content": one.prompt}, {"role": "assistant", "content": label}]
            whole = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False, return_tensors="pt")
            tail = len(tokenizer(label)["input_ids"]) + 1
            logp = model(input_ids=whole).logits[0, :-1].log_softmax(-1)  # (T-1, V)
            scores.append(logp.gather(1, whole[0, 1:, None])[-tail:].sum().item())
        chosen.append(one.labels[scores[1] > scores[0]])
    return chosen


def in_context_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int, count: int
) -> dict[str, float]:
    """Share of exactly right answers with four demonstrations, in each language and for each kind of labels."""
    out = {}
    for language in LANGUAGES:
        for labels in LABEL_KINDS:
            asked = probes(seed, count, language, 4, labels)
            given = answers(model, tokenizer, [one.prompt for one in asked])
            right = sum(text == one.right for text, one in zip(given, asked, strict=True))
            out[f"{language}_{labels}"] = right / count
    return out
