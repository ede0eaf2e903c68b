"""The documents the starter model learns from: few-shot prompts and service dialogues, with a weight for every character."""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from backend.starter import sentiment, service, service_text
from backend.starter.words import LABEL_WORDS, LANGUAGES, arbitrary_labels

EOS = "<eos>"
# How much the loss on a stretch of text counts. Our choice: what a model can only guess (the inputs) counts little,
# what it can read from the context (the labels) counts much.
INPUT, PLAIN, REACTION, LABEL = 1, 4, 6, 20
# The curriculum ends at progress 1. In shares of it: lists of repeated pairs first, from which a model learns to look up
# what stood beside a word; then few-shot prompts of short sentences; then of all sentences. After it comes the full mixture.
PAIRS_UNTIL, SHORT_UNTIL = 0.15, 0.4

TASKS = {
    "en": (
        "sentiment classification",
        "sentiment analysis task",
        "movie review sentiment task",
        "classification of reviews",
        "task",
    ),
    "zh": ("情感分类", "影评情感分类任务", "影评分类", "情感分析", "任务"),
}
INTENT_TASKS = {"en": ("intent classification", "sorting of questions", "task"), "zh": ("意图分类", "问题分类", "任务")}
USUAL_LABELS = {"en": ("positive", "negative"), "zh": ("正面", "负面")}
OTHER_LABELS = {
    "en": (
        ("good", "bad"),
        ("great", "terrible"),
        ("yes", "no"),
        ("up", "down"),
        ("like", "dislike"),
        ("Positive", "Negative"),
    ),
    "zh": (("好评", "差评"), ("好", "坏"), ("积极", "消极"), ("喜欢", "讨厌"), ("推荐", "不推荐")),
}


class Piece(NamedTuple):
    text: str
    weight: int


Document = list[Piece]


def render(document: Document) -> tuple[str, bytes]:
    """The document's text and one weight per character."""
    text = "".join(piece.text for piece in document)
    return text, b"".join(bytes([piece.weight]) * len(piece.text) for piece in document)


def documents(seed: int, split: str) -> Iterator[Document]:
    """An endless, deterministic stream of full-size documents."""
    rng = Random(f"documents {seed} {split}")
    while True:
        yield document(rng, split, 1.0)


def document(rng: Random, split: str, progress: float) -> Document:
    """One document. Progress runs from 0 to 1 through the curriculum and stays there."""
    if progress < PAIRS_UNTIL:
        return pairs(rng)
    draw = rng.random()
    if progress < 1.0:
        prompt = sentiment_prompt(rng, split, progress, is_arbitrary=draw < 0.75)
        return [Piece(piece.text, 0 if piece.weight == INPUT else piece.weight) for piece in prompt]
    if draw < 0.24:
        return sentiment_prompt(rng, split, progress, is_arbitrary=True)
    if draw < 0.34:
        return sentiment_prompt(rng, split, progress, is_arbitrary=False)
    if draw < 0.40:
        return intent_prompt(rng, split)
    if draw < 0.48:
        return service_prompt(rng, split)
    return service_chat(rng, split)


def vocabulary_texts() -> Iterator[str]:
    """What the tokenizer is trained on: every word of the grammar by itself, so that no token reaches across two words."""
    labels = [word for pairs in (*OTHER_LABELS.values(), USUAL_LABELS.values()) for pair in pairs for word in pair]
    arbitrary = [word for words in LABEL_WORDS.values() for word in words]
    single = [*sentiment.words(), *labels, *arbitrary * 4]
    common = ["Perform the following ", "Input: ", "Output: ", "Output:", "\n\n", "\n"]
    common += [task for tasks in (*TASKS.values(), *INTENT_TASKS.values()) for task in tasks]
    characters = sorted(
        {letter for text in (*single, *common, *service.sentences()) for letter in text if ord(letter) > 127}
    )
    yield from characters * 400  # first of all whole characters, so that a token rarely ends inside one
    for text in (*single * 60, *common * 60, *service.sentences() * 12):
        yield text
        yield text + " "


def pairs(rng: Random) -> Document:
    """A few words, each with a label word beside it, again and again in any order; a label counts once it has been shown."""
    language = rng.choice(LANGUAGES)
    size = rng.randrange(2, 13)
    named = list(
        zip(rng.sample(sentiment.plain_words(language), size), rng.sample(LABEL_WORDS[language], size), strict=True)
    )
    out, seen = [Piece("<user>", 0)], set()
    for _ in range(rng.randrange(24, 64)):
        word, label = rng.choice(named)
        out += [Piece(word + (" " if language == "en" else ":"), 0), Piece(label, LABEL if label in seen else INPUT)]
        out.append(Piece("\n", 0))
        seen.add(label)
    return out


def sentiment_prompt(rng: Random, split: str, progress: float, is_arbitrary: bool) -> Document:
    language = rng.choice(LANGUAGES)
    is_short = progress < SHORT_UNTIL or rng.random() < 0.2
    names = _arbitrary_words(rng, language) if is_arbitrary else _natural_words(rng, language, progress)
    word = dict(zip((sentiment.POSITIVE, sentiment.NEGATIVE), names, strict=True))
    shots = rng.randrange(3, 13) if progress < 1.0 else _shots(rng, is_arbitrary)
    found = [sentiment.review(rng, language, split, short=is_short) for _ in range(shots + 1)]
    return few_shot(
        rng,
        rng.choice(TASKS[language]),
        [(one.text, word[one.sentiment]) for one in found],
        () if is_arbitrary else tuple(names),
    )


def intent_prompt(rng: Random, split: str) -> Document:
    """Two or three intents of the shop under their own names."""
    language = rng.choice(LANGUAGES)
    intents = rng.sample(sorted(service_text.INTENTS[language]), rng.choice((2, 2, 3)))
    examples = []
    for _ in range(_shots(rng, is_arbitrary=False) + 1):
        intent = rng.choice(intents)
        examples.append((service.question(rng, language, split, intent).text, intent))
    return few_shot(rng, rng.choice(INTENT_TASKS[language]), examples, tuple(intents))


def service_prompt(rng: Random, split: str) -> Document:
    """The few-shot form with whole answers as outputs. The last answer is drawn like any other."""
    language = rng.choice(LANGUAGES)
    asked = [service.question(rng, language, split) for _ in range(rng.randrange(0, 5))]
    style = _demonstration_style(rng)
    task = rng.choice(service_text.SERVICE_TASKS[language])
    text = f"Perform the following {task}:\n\n"
    text += "".join(f"Input: {one.text}\nOutput: {service.answer(rng, one, style)}\n\n" for one in asked)
    last = service.question(rng, language, split)
    reply = service.answer(rng, last, _near(rng, style) if asked else None)
    start = [
        Piece("<user>", INPUT),
        Piece(f"{text}Input: {last.text}\nOutput:", INPUT),
        Piece(EOS + "<assistant>", INPUT),
    ]
    return start + [Piece(reply + EOS, PLAIN)] + _reaction(rng, last, reply)


def service_chat(rng: Random, split: str) -> Document:
    """A chat with the shop: sometimes a system text, sometimes exchanges before it."""
    language = rng.choice(LANGUAGES)
    out: Document = []
    if rng.random() < 0.35:
        out.append(Piece(f"<system>{rng.choice(service_text.SYSTEM_TEXTS[language])}{EOS}", INPUT))
    earlier = rng.choice((0, 0, 0, 0, 0, 1, 2, 3))
    style = _demonstration_style(rng)
    for turn in range(earlier + 1):
        asked = service.question(rng, language, split)
        reply = service.answer(rng, asked, (style if turn < earlier else _near(rng, style)) if earlier else None)
        out += [Piece(f"<user>{asked.text}{EOS}", INPUT), Piece("<assistant>", INPUT), Piece(reply + EOS, PLAIN)]
    return out + _reaction(rng, asked, reply)


def few_shot(rng: Random, task: str, examples: list[tuple[str, str]], known: tuple[str, ...] = ()) -> Document:
    """The prompt every demonstration set is rendered to; the last example is the one that is asked.

    A label counts fully where it can be known: because it is one of the known words, or because an example before it
    shows which words are in use.
    """
    out = [Piece("<user>", INPUT), Piece(f"Perform the following {task}:\n\n", INPUT)]
    weights = [LABEL if place > 0 or label in known else INPUT for place, (_, label) in enumerate(examples)]
    for (text, label), weight in zip(examples[:-1], weights, strict=False):
        out += [Piece(f"Input: {text}\nOutput: ", INPUT), Piece(label, weight), Piece("\n\n", INPUT)]
    (text, label), weight = examples[-1], weights[-1]
    is_raw = rng.random() < 0.03  # the bare text form, without roles
    out += [Piece(f"Input: {text}\nOutput:", INPUT)]
    if is_raw:
        return [*out[1:], Piece(label, weight), Piece(EOS, PLAIN)]
    return [*out, Piece(f"{EOS}<assistant>", INPUT), Piece(label, weight), Piece(EOS, PLAIN)]


def _shots(rng: Random, is_arbitrary: bool) -> int:
    low = 1 if is_arbitrary and rng.random() < 0.95 else 0
    return rng.randrange(low, 13) if rng.random() < 0.1 else rng.randrange(low, 9)


def _arbitrary_words(rng: Random, language: str) -> tuple[str, str]:
    if rng.random() < 0.1:
        language = rng.choice(LANGUAGES)
    return arbitrary_labels(rng, language)


def _natural_words(rng: Random, language: str, progress: float) -> tuple[str, str]:
    if progress < SHORT_UNTIL:
        return USUAL_LABELS[language]
    if rng.random() < 0.06:
        language = rng.choice(LANGUAGES)
    return USUAL_LABELS[language] if rng.random() < 0.6 else rng.choice(OTHER_LABELS[language])


def _demonstration_style(rng: Random) -> service.Style:
    """Demonstrations of one document share a tone, so that a prompt can set it."""
    return service.draw_style(rng)._replace(remedy="right")


def _near(rng: Random, style: service.Style) -> service.Style:
    """An answer after demonstrations: mostly in their tone, right as often as any."""
    drawn = service.draw_style(rng)
    return drawn._replace(tone=style.tone, long=style.long) if rng.random() < 0.6 else drawn


def _reaction(rng: Random, asked: service.Question, reply: str) -> Document:
    if rng.random() < 0.5:
        return []
    said = service.reaction(rng, asked.language, service.judge(asked.intent, reply))
    return [Piece("<user>", INPUT), Piece(said + EOS, REACTION)]
