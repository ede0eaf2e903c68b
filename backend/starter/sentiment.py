"""Sentences of film reviews with a known sentiment, in English and Chinese, made from templates and word lists."""

import re
from random import Random
from typing import NamedTuple

from backend.starter.words import split_of

POSITIVE, NEGATIVE = "positive", "negative"
NEGATION_SHARE = 0.08  # "not dull" is positive; few enough that a small model still learns the words themselves

_SUBJECTS = {
    "en": "film movie plot acting ending music story cast script dialogue camera opening pace humour scenery".split(),
    "zh": "电影 剧情 表演 结局 音乐 故事 演员 剧本 对白 镜头 开头 节奏 配乐 画面".split(),
}
_ADJECTIVES = {
    ("en", POSITIVE): "great wonderful brilliant lovely superb charming excellent delightful moving clever "
    "fresh beautiful touching amazing perfect fun gripping warm smart graceful".split(),
    ("en", NEGATIVE): "awful dull terrible boring weak clumsy horrible lazy stupid flat "
    "tedious ugly bland dreadful poor messy annoying cold silly painful".split(),
    ("zh", POSITIVE): "精彩 动人 出色 优秀 感人 完美 有趣 美妙 迷人 温暖 巧妙 震撼 流畅 细腻 好看 一流".split(),
    ("zh", NEGATIVE): "无聊 糟糕 乏味 差劲 沉闷 混乱 拖沓 俗套 难看 生硬 空洞 失败 粗糙 平庸 尴尬 烂透".split(),
}
_VERBS = {
    ("en", POSITIVE): "loved enjoyed adored admired praised".split(),
    ("en", NEGATIVE): "hated disliked regretted despised loathed".split(),
    ("zh", POSITIVE): "喜欢 欣赏 享受 佩服 热爱".split(),
    ("zh", NEGATIVE): "讨厌 厌恶 受不了 后悔看 反感".split(),
}
_FEELINGS = {
    ("en", POSITIVE): "happy smiling delighted inspired thrilled".split(),
    ("en", NEGATIVE): "bored angry sleepy disappointed annoyed".split(),
    ("zh", POSITIVE): "开心 感动 惊喜 难忘 着迷".split(),
    ("zh", NEGATIVE): "失望 生气 想睡 心烦 后悔".split(),
}
_INTENSIFIERS = {"en": "very really quite truly so simply".split(), "zh": "非常 真的 特别 实在 十分 太".split()}
_OPENERS = {
    "en": "I saw it on Friday.|My friend chose it.|We watched it at home.|It runs two hours.|I went alone.".split("|"),
    "zh": "周五看的。|朋友选的片子。|在家看的。|片长两小时。|我一个人去的。".split("|"),
}
_TEMPLATES = {
    "en": (
        "The {subject} was {strong}.",
        "The {subject} is {strong}.",
        "I found the {subject} {strong}.",
        "What {a_plain} {subject}!",
        "It was {a_plain} {subject}.",
        "I {verb} the {subject}.",
        "We {verb} the {subject}.",
        "The {subject} left me {feeling}.",
        "The {subject} made us {feeling}.",
        "The {subject} was {strong} and the {other} was {second}.",
        "{Plain} {subject}, {second} {other}.",
        "I {verb} it, the {subject} was {strong}.",
    ),
    "zh": (
        "{subject}{strong}。",
        "这部电影的{subject}{strong}。",
        "我觉得{subject}{strong}。",
        "真是{plain}的{subject}！",
        "{plain}的{subject}。",
        "我{verb}这个{subject}。",
        "我们都{verb}它的{subject}。",
        "{subject}让我{feeling}。",
        "看完{subject}让人{feeling}。",
        "{subject}{strong}，{other}也{second}。",
        "{subject}{plain}，{other}{second}。",
        "我{verb}它，{subject}{strong}。",
    ),
}
_NEGATED = {
    "en": (
        "The {subject} was not {plain}.",
        "The {subject} was never {plain}.",
        "I did not find the {subject} {plain}.",
    ),
    "zh": ("{subject}一点也不{plain}。", "{subject}并不{plain}。", "我不觉得{subject}{plain}。"),
}


class Review(NamedTuple):
    language: str
    text: str
    sentiment: str
    split: str


def review(rng: Random, language: str, split: str, sentiment: str | None = None, short: bool = False) -> Review:
    """One sentence of the asked split; short keeps to the first five templates, which a model learns first."""
    sentiment = sentiment or rng.choice((POSITIVE, NEGATIVE))
    while True:
        text = _sentence(rng, language, sentiment, short)
        if split_of(text) == split:
            return Review(language, text, sentiment, split)


def reviews(seed: int, count: int, language: str, split: str) -> list[Review]:
    """Distinct sentences, both sentiments in turn; the same seed gives the same list."""
    rng = Random(f"reviews {seed} {language} {split}")
    found: dict[str, Review] = {}
    while len(found) < count:
        one = review(rng, language, split, (POSITIVE, NEGATIVE)[len(found) % 2])
        found.setdefault(one.text, one)
    return list(found.values())


def words() -> list[str]:
    """Every word and every stretch of a template, each by itself."""
    lists = [
        *_SUBJECTS.values(),
        *_ADJECTIVES.values(),
        *_VERBS.values(),
        *_FEELINGS.values(),
        *_INTENSIFIERS.values(),
        *_OPENERS.values(),
    ]
    found = [word for words in lists for word in words]
    found += [word.capitalize() for word in _ADJECTIVES["en", POSITIVE] + _ADJECTIVES["en", NEGATIVE]]
    templates = [
        template for by_language in (_TEMPLATES, _NEGATED) for group in by_language.values() for template in group
    ]
    return found + [stretch for template in templates for stretch in re.split(r"\{\w+\}", template) if stretch.strip()]


def plain_words(language: str) -> list[str]:
    """The words of a language that stand for a thing, a judgement or a feeling."""
    lists = [words for (of, _), words in (_ADJECTIVES | _FEELINGS).items() if of == language]
    return list(dict.fromkeys(word for words in (*lists, _SUBJECTS[language]) for word in words))


def _sentence(rng: Random, language: str, sentiment: str, short: bool) -> str:
    if not short and rng.random() < NEGATION_SHARE:
        opposite = NEGATIVE if sentiment == POSITIVE else POSITIVE
        return rng.choice(_NEGATED[language]).format(**_fillers(rng, language, opposite))
    templates = _TEMPLATES[language][:5] if short else _TEMPLATES[language]
    text = rng.choice(templates).format(**_fillers(rng, language, sentiment))
    if short or rng.random() > 0.15:
        return text
    return rng.choice(_OPENERS[language]) + (" " if language == "en" else "") + text


def _fillers(rng: Random, language: str, sentiment: str) -> dict[str, str]:
    subject, other = rng.sample(_SUBJECTS[language], 2)
    plain, second = rng.sample(_ADJECTIVES[language, sentiment], 2)
    join = " " if language == "en" else ""
    intensifier = rng.choice(_INTENSIFIERS[language]) + join if rng.random() < 0.4 else ""
    article = "an " if plain[0] in "aeiou" else "a "
    return {
        "a_plain": article + plain,
        "subject": subject,
        "other": other,
        "plain": plain,
        "Plain": plain.capitalize(),
        "second": second,
        "strong": intensifier + plain,
        "verb": rng.choice(_VERBS[language, sentiment]),
        "feeling": rng.choice(_FEELINGS[language, sentiment]),
    }
