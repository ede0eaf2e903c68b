"""Measure the starter model on held-out cases and write evaluation.json: `python -m backend.starter.evaluate`."""

import argparse
import json
import math
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from backend.starter import corpus, service
from backend.starter.probes import LABEL_KINDS, answers, choices, probes
from backend.starter.words import LANGUAGES

HERE = Path(__file__).parent
SHOTS = (0, 1, 2, 4, 8)
LONGEST_TOKENS = 64
Z95 = 1.959964  # two-sided 95 %


class Sampled(NamedTuple):
    text: str
    tokens: int  # without eos
    has_ended: bool
    is_repeating: bool  # some 4-gram of tokens stands there three times or more


def evaluate(folder: Path, count: int, questions: int, samples: int, seed: int) -> dict:
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return {
        "seed": seed,
        "parameters": model.num_parameters(),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "sentiment": sentiment_figures(model, tokenizer, count, seed),
        "service": [service_figures(model, tokenizer, language, questions, samples, seed) for language in LANGUAGES],
        "held_out": held_out_loss(model, tokenizer, 1000, seed),
    }


def sentiment_figures(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int, seed: int) -> list[dict]:
    """Accuracy by number of demonstrations: the greedy answer exactly right, and the better of the two labels."""
    rows = []
    for language in LANGUAGES:
        for labels in LABEL_KINDS:
            for shots in SHOTS:
                asked = probes(seed, count, language, shots, labels)
                given = answers(model, tokenizer, [one.prompt for one in asked])
                chosen = choices(model, tokenizer, asked)
                exact = sum(text == one.right for text, one in zip(given, asked, strict=True))
                better = sum(label == one.right for label, one in zip(chosen, asked, strict=True))
                row = {
                    "language": language,
                    "labels": labels,
                    "k": shots,
                    "exact": share(exact, count),
                    "choice": share(better, count),
                }
                rows.append(row)
    return rows


def service_figures(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, language: str, questions: int, samples: int, seed: int
) -> dict:
    """Plain samples at temperature 1 for held-out questions, read by the hidden rule."""
    torch.manual_seed(seed)
    asked = service.questions(seed, questions, language, "test")
    found = [(one, sample) for one in asked for sample in sample_answers(model, tokenizer, one.text, samples)]
    verdicts = [service.judge(one.intent, sample.text) for one, sample in found]
    distinct = [len({sample.text for one, sample in found if one is question}) for question in asked]
    total = len(found)
    return {
        "language": language,
        "questions": questions,
        "samples_per_question": samples,
        "ended": share(sum(sample.has_ended for _, sample in found), total),
        "repeating": share(sum(sample.is_repeating for _, sample in found), total),
        "polite": share(sum(verdict.polite for verdict in verdicts), total),
        "right": share(sum(verdict.right for verdict in verdicts), total),
        "polite_and_right": share(sum(verdict.score == 2 for verdict in verdicts), total),
        "mean_score": round(sum(verdict.score for verdict in verdicts) / total, 4),
        "mean_tokens": round(sum(sample.tokens for _, sample in found) / total, 2),
        "most_tokens": max(sample.tokens for _, sample in found),
        "distinct_per_question": round(sum(distinct) / len(distinct), 2),
    }


@torch.no_grad()
def sample_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, question: str, samples: int
) -> list[Sampled]:
    """Samples from the whole distribution: temperature 1, no top-k, no top-p."""
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    out = model.generate(
        **prompt,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=samples,
        max_new_tokens=LONGEST_TOKENS,
    )
    return [_sampled(tokenizer, row.tolist()) for row in out[:, prompt["input_ids"].shape[1] :]]


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int, seed: int) -> dict:
    """Perplexity per token on documents of held-out texts: of every token, and of the assistant's answers and labels alone."""
    total, tokens, answer_total, answer_tokens = 0.0, 0, 0.0, 0
    for document in islice(corpus.documents(seed, "test"), count):
        text, weights = corpus.render(document)
        encoding = tokenizer(text, return_offsets_mapping=True, return_token_type_ids=False)
        ids = torch.tensor([encoding["input_ids"]])
        logits = model(input_ids=ids).logits[0, :-1]  # (T-1, V)
        loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        is_answer = torch.tensor(
            [weights[start] in (corpus.PLAIN, corpus.LABEL) for start, _ in encoding["offset_mapping"]]
        )[1:]
        total, tokens = total + loss.sum().item(), tokens + len(loss)
        answer_total, answer_tokens = answer_total + loss[is_answer].sum().item(), answer_tokens + int(is_answer.sum())
    return {
        "documents": count,
        "tokens": tokens,
        "perplexity": round(math.exp(total / tokens), 3),
        "answer_tokens": answer_tokens,
        "answer_perplexity": round(math.exp(answer_total / answer_tokens), 3),
    }


def share(hits: int, total: int) -> dict:
    """A share with its Wilson 95 % interval."""
    p, z = hits / total, Z95
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return {
        "value": round(p, 4),
        "low": round(max(0.0, middle - half), 4),
        "high": round(min(1.0, middle + half), 4),
        "n": total,
    }


def _sampled(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> Sampled:
    has_ended = tokenizer.eos_token_id in ids
    ids = ids[: ids.index(tokenizer.eos_token_id)] if has_ended else ids
    grams = Counter(tuple(ids[place : place + 4]) for place in range(len(ids) - 3))
    return Sampled(tokenizer.decode(ids), len(ids), has_ended, max(grams.values(), default=0) >= 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=HERE / "weights")
    parser.add_argument("--out", type=Path, default=HERE / "evaluation.json")
    parser.add_argument("--count", type=int, default=200, help="few-shot cases per language, labels and k")
    parser.add_argument("--questions", type=int, default=120, help="service questions per language")
    parser.add_argument("--samples", type=int, default=8, help="answers per service question")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    report = evaluate(chosen.weights, chosen.count, chosen.questions, chosen.samples, chosen.seed)
    chosen.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
