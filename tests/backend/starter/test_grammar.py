"""The grammar's promises: splits that never meet, labels that are true, a rule that reads what the generator wrote."""

import re
from random import Random

import pytest

from backend.starter import corpus, sentiment, service
from backend.starter.service_text import INTENTS
from backend.starter.words import LABEL_WORDS, LANGUAGES, arbitrary_labels, split_of

KNOWN_LABELS = {word for words in (*LABEL_WORDS.values(), *corpus.USUAL_LABELS.values()) for word in words} | {
    word for pairs in corpus.OTHER_LABELS.values() for pair in pairs for word in pair
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_thousands_of_distinct_reviews_and_the_splits_share_none(language):
    train = sentiment.reviews(0, 2000, language, "train")
    test = sentiment.reviews(0, 300, language, "test")
    assert len({one.text for one in train}) == 2000
    assert not {one.text for one in train} & {one.text for one in test}
    assert {split_of(one.text) for one in test} == {"test"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_review_has_one_sentiment_whatever_the_seed(language):
    known = {}
    for seed in range(4):
        for one in sentiment.reviews(seed, 500, language, "train"):
            assert known.setdefault(one.text, one.sentiment) == one.sentiment


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_seed_gives_the_same_questions(language):
    first = service.questions(3, 60, language, "test")
    assert first == service.questions(3, 60, language, "test")
    assert first != service.questions(4, 60, language, "test")
    assert {one.intent for one in first} == set(INTENTS[language])
    assert not {one.text for one in first} & {one.text for one in service.questions(3, 500, language, "train")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_rule_reads_what_the_generator_wrote(language):
    rng = Random(0)
    agreed = 0
    asked = service.questions(1, 1000, language, "train")
    for one in asked:
        style = service.draw_style(rng)
        verdict = service.judge(one.intent, service.answer(rng, one, style))
        agreed += verdict == (style.tone == "polite", style.remedy == "right")
    assert agreed >= 0.99 * len(asked)


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_polite_and_right_as_often_as_planned_and_independently(language):
    rng = Random(0)
    asked = service.questions(2, 2000, language, "train")
    verdicts = [service.judge(one.intent, service.answer(rng, one)) for one in asked]
    polite = sum(one.polite for one in verdicts) / len(verdicts)
    right = sum(one.right for one in verdicts) / len(verdicts)
    both = sum(one.score == 2 for one in verdicts) / len(verdicts)
    assert polite == pytest.approx(service.POLITE_SHARE, abs=0.05)
    assert right == pytest.approx(service.RIGHT_SHARE, abs=0.05)
    assert both == pytest.approx(polite * right, abs=0.03)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_intent_of_a_question_is_known_from_its_text(language):
    for one in service.questions(5, 1000, language, "test"):
        assert service.intent_of(one.text) == one.intent
    assert service.intent_of("What is the weather like?") is None
    assert service.judge_question("What is the weather like?", "Fine.") is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_question_template_belongs_to_one_intent(language):
    templates = [template for entry in INTENTS[language].values() for template in entry.questions]
    assert len(set(templates)) == len(templates)
    keys = {intent: entry.key for intent, entry in INTENTS[language].items()}
    for intent, entry in INTENTS[language].items():
        for text in entry.remedies + entry.steps:
            assert [other for other, key in keys.items() if key in text] == ([intent] if text in entry.remedies else [])


def test_a_rude_word_outweighs_a_polite_one():
    assert service.judge("refund", "Thank you! The money goes back to your card.") == (True, True)
    assert service.judge("refund", "Thank you! Calm down.") == (False, False)
    assert service.judge("refund", "It is back to your card, or a free replacement.").right is False
    assert service.judge("refund", "谢谢您！钱会在五天内原路退回。").score == 2
    assert service.judge("refund", "").score == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_label_word_stands_for_either_sentiment_and_in_no_text(language):
    rng = Random(0)
    drawn = [arbitrary_labels(rng, language) for _ in range(1000)]
    assert all(first != second for first, second in drawn)
    assert {first for first, _ in drawn} == {second for _, second in drawn} == set(LABEL_WORDS[language])
    assert len(set(drawn)) > 700  # hardly a pair twice
    said = {one.text for one in sentiment.reviews(0, 500, language, "train")}
    said |= {one.text for one in service.questions(0, 500, language, "train")}
    for word in LABEL_WORDS[language]:
        assert not any(re.search(rf"\b{word}\b" if language == "en" else word, text) for text in said), word


def test_every_character_of_a_document_has_a_weight_and_no_text_is_of_the_other_split():
    rng = Random(0)
    for _ in range(300):
        text, weights = corpus.render(corpus.document(rng, "test", 1.0))
        assert len(text) == len(weights)
        for line in text.replace("<user>", "\n").replace("<eos>", "\n").split("\n"):
            if service.intent_of(line.removeprefix("Input: ")):
                assert split_of(line.removeprefix("Input: ")) == "test"


def test_the_curriculum_asks_for_labels_alone_and_the_mixture_for_all():
    rng = Random(0)
    for progress in (0.0, corpus.PAIRS_UNTIL, corpus.SHORT_UNTIL, 0.99):
        for _ in range(50):
            for piece in corpus.document(rng, "train", progress):
                is_label = piece.text in KNOWN_LABELS
                assert piece.weight in ((corpus.INPUT, corpus.LABEL, 0) if is_label else (corpus.PLAIN, 0)), piece
                assert piece.weight != corpus.PLAIN or piece.text == corpus.EOS
    weights = {piece.weight for _ in range(50) for piece in corpus.document(rng, "train", 1.0)}
    assert weights == {corpus.INPUT, corpus.PLAIN, corpus.REACTION, corpus.LABEL}


def test_a_pair_counts_once_it_has_been_shown():
    for seed in range(20):
        pieces = corpus.pairs(Random(seed))[1:]
        shown: dict[str, str] = {}
        for word, label in zip(pieces[::3], pieces[1::3], strict=True):
            assert label.weight == (corpus.LABEL if word.text in shown else corpus.INPUT)
            assert shown.setdefault(word.text, label.text) == label.text


def test_the_few_shot_form_is_exact():
    document = corpus.few_shot(Random(1), "task", [("one", "a"), ("two", "b"), ("three", "a")])
    text, _ = corpus.render(document)
    assert text == (
        "<user>Perform the following task:\n\nInput: one\nOutput: a\n\nInput: two\nOutput: b\n\n"
        "Input: three\nOutput:<eos><assistant>a<eos>"
    )
