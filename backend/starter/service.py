"""Customer-service questions, answers that vary in tone, length, help and truth, and the rule that reads both from a text."""

import re
from random import Random
from typing import NamedTuple

from backend.starter import service_text as said
from backend.starter.words import LANGUAGES, split_of

POLITE_SHARE, RUDE_SHARE, RIGHT_SHARE, EVASIVE_SHARE = 0.45, 0.25, 0.60, 0.12  # our choice; independent of each other


class Question(NamedTuple):
    language: str
    intent: str
    text: str
    split: str


class Style(NamedTuple):
    tone: str  # polite, neutral or rude
    remedy: str  # right, wrong or evasive
    long: bool
    helpful: bool


class Verdict(NamedTuple):
    polite: bool
    right: bool

    @property
    def score(self) -> int:
        return int(self.polite) + int(self.right)


def question(rng: Random, language: str, split: str, intent: str | None = None) -> Question:
    intent = intent or rng.choice(tuple(said.INTENTS[language]))
    while True:
        pattern = rng.choice(said.INTENTS[language][intent].questions)
        text = rng.choice(said.QUESTION_OPENERS[language]) + pattern.format(
            product=rng.choice(said.PRODUCTS[language]), order=rng.randrange(1000, 10000), days=rng.randrange(2, 10)
        )
        if split_of(text) == split:
            return Question(language, intent, text, split)


def questions(seed: int, count: int, language: str, split: str) -> list[Question]:
    """Distinct questions, the intents in turn; the same seed gives the same list."""
    rng = Random(f"questions {seed} {language} {split}")
    intents = tuple(said.INTENTS[language])
    found: dict[str, Question] = {}
    tries = 0
    while len(found) < count:
        one = question(rng, language, split, intents[tries % len(intents)])
        found.setdefault(one.text, one)
        tries += 1
    return list(found.values())


def draw_style(rng: Random) -> Style:
    tone = _draw(rng, ("polite", POLITE_SHARE), ("rude", RUDE_SHARE), ("neutral", 1.0))
    remedy = _draw(rng, ("right", RIGHT_SHARE), ("evasive", EVASIVE_SHARE), ("wrong", 1.0))
    return Style(tone, remedy, long=rng.random() < 0.5, helpful=rng.random() < 0.4)


def answer(rng: Random, asked: Question, style: Style | None = None) -> str:
    """An answer in the style; without one, a style drawn from the shares above."""
    style = style or draw_style(rng)
    parts = [_opener(rng, asked.language, style), *_remedy(rng, asked, style), _closer(rng, asked.language, style)]
    return (" " if asked.language == "en" else "").join(part for part in parts if part)


def judge(intent: str, answer_text: str) -> Verdict:
    """Read politeness and truth from any text, in either language.

    Right: it holds the key phrase of the intent's remedy and of no other intent. Polite: it holds a polite marker
    and no rude one.
    """
    text = answer_text.lower()
    return Verdict(_is_polite(text), _remedies_in(text) == {intent})


def judge_question(question_text: str, answer_text: str) -> Verdict | None:
    """The verdict for a question known by its text only; None where the grammar does not know the question."""
    intent = intent_of(question_text)
    return judge(intent, answer_text) if intent else None


def intent_of(question_text: str) -> str | None:
    """The intent of a question of this grammar; None for any other text."""
    for intent, pattern in _QUESTION_PATTERNS:
        if pattern.fullmatch(question_text.strip()):
            return intent
    return None


def reaction(rng: Random, language: str, verdict: Verdict) -> str:
    """What the customer says to an answer: it tells both whether it was polite and whether it was right."""
    return rng.choice(said.REACTIONS[language][verdict.polite, verdict.right])


def sentences() -> list[str]:
    """Every sentence and every stretch of a question template, each by itself."""
    found: list[str] = []
    for language in LANGUAGES:
        for entry in said.INTENTS[language].values():
            found += [stretch for text in entry.questions for stretch in re.split(r"\{\w+\}", text) if stretch.strip()]
            found += entry.remedies + entry.steps
        for group in (said.PRODUCTS, said.QUESTION_OPENERS, said.POLITE_OPENERS, said.POLITE_CLOSERS, said.RUDE_OPENERS,
                      said.RUDE_CLOSERS, said.NEUTRAL_OPENERS, said.EVASIVE, said.FOLLOW_UPS, said.SYSTEM_TEXTS, said.SERVICE_TASKS):  # fmt: skip
            found += group[language]
        found += [text for texts in said.REACTIONS[language].values() for text in texts]
        found += said.INTENTS[language]
    return found


def _draw(rng: Random, *shares: tuple[str, float]) -> str:
    """The first name whose share, added to those before it, exceeds the draw; the last takes the rest."""
    draw, total = rng.random(), 0.0
    for name, share in shares:
        total += share
        if draw < total:
            return name
    return shares[-1][0]


def _opener(rng: Random, language: str, style: Style) -> str:
    if style.tone == "polite":
        return rng.choice(said.POLITE_OPENERS[language])
    if style.tone == "rude":
        return rng.choice(said.RUDE_OPENERS[language])
    return rng.choice(said.NEUTRAL_OPENERS[language]) if style.long else ""


def _remedy(rng: Random, asked: Question, style: Style) -> list[str]:
    intents = said.INTENTS[asked.language]
    intent = asked.intent
    if style.remedy == "wrong":
        intent = rng.choice([other for other in intents if other != asked.intent])
    if style.remedy == "evasive":
        sentences = [rng.choice(said.EVASIVE[asked.language])]
    else:
        sentences = [rng.choice(intents[intent].remedies)]
        sentences += [rng.choice(intents[intent].steps)] if style.long else []
    return sentences + ([rng.choice(said.FOLLOW_UPS[asked.language])] if style.helpful else [])


def _closer(rng: Random, language: str, style: Style) -> str:
    if style.tone == "neutral" or rng.random() < (0.3 if style.long else 0.7):
        return ""
    closers = said.POLITE_CLOSERS if style.tone == "polite" else said.RUDE_CLOSERS
    return rng.choice(closers[language])


def _is_polite(text: str) -> bool:
    polite = any(marker in text for language in LANGUAGES for marker in said.POLITE_MARKERS[language])
    rude = any(marker in text for language in LANGUAGES for marker in said.RUDE_MARKERS[language])
    return polite and not rude


def _remedies_in(text: str) -> set[str]:
    return {
        intent
        for language in LANGUAGES
        for intent, entry in said.INTENTS[language].items()
        if entry.key.lower() in text
    }


def _question_patterns() -> list[tuple[str, re.Pattern[str]]]:
    patterns = []
    for language in LANGUAGES:
        openers = "|".join(re.escape(opener) for opener in sorted(set(said.QUESTION_OPENERS[language])))
        products = "|".join(map(re.escape, said.PRODUCTS[language]))
        for intent, entry in said.INTENTS[language].items():
            for template in entry.questions:
                body = re.escape(template).replace(r"\{product\}", f"(?:{products})")
                body = body.replace(r"\{order\}", r"\d{4}").replace(r"\{days\}", r"\d")
                patterns.append((intent, re.compile(f"(?:{openers}){body}")))
    return patterns


_QUESTION_PATTERNS = _question_patterns()
