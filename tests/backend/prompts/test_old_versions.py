"""Versions saved before templates had rows: the bytes they send and the digests they are known by stay what they were."""

import hashlib
from itertools import product

import pytest

from backend.prompts.chat import PromptProblem, build_messages
from backend.prompts.digest import digest_of, template_digest
from feedback_db.types import Demonstration, Template

SYSTEMS = ("", "Be {{tone}}.", "a\n{{demonstrations}}\nb", " \n", "{% if tone %}{{ tone }}{% endif %} {{x}")
BODIES = (
    "", "{{input}}", "Perform the following {{task}}:\n\n{{demonstrations}}\nInput: {{input}}\nOutput:",
    "评论：{{input}}\n情感：", "{% for w in words %}{{ w }} {% endfor %}{{ input }}\n", "{{tone}}", "no variable {a}", " ",
)  # fmt: skip
TURNS = (
    (),
    ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "{{x}}"}),
    ({"role": "system", "content": "Own."}, {"role": "user", "content": ""}),
)
VALUES = {"input": "q {{tone}}", "tone": "kind", "task": "rating", "words": ["a", "b"]}
SHOTS = (("good film", "positive"), ("{{input}}", "{% x %}\n"), ("差", "负面"))
# SHA-256 over the digests of all prompts of one mode and shape, recorded with the program that had no rows.
RECORDED = {
    ("plain", "turns"): "4f85defa541b92c7423fd7ca96f601cd2979737ad088fb3f876b1ea1d96513ce",
    ("plain", "text"): "2fcb19e7de8621fbf0bbc04d347a0280a7d8e109cf1d602992578ae9c9539149",
    ("logic", "turns"): "2f6e8142677218fa7714008afb261c5ab47df2333e3a629a91aaeea9ff560a74",
    ("logic", "text"): "415edd4fa768429ab4f8835ff47ca4a3a739930c2ab7fc56ea184963cb7dee48",
}


def said(template: Template, turns, count: int, shape: str) -> str:
    """The digest of the prompt, or what is wrong with it."""
    shown = [Demonstration(project_id=1, input=i, output=o, digest=bytes(32)) for i, o in SHOTS[:count]]
    values = VALUES if template.mode == "logic" else {name: value for name, value in VALUES.items() if name != "words"}
    try:
        messages = build_messages(template, values, shown, shape, conversation=turns)
    except PromptProblem as problem:
        return str(problem)
    return digest_of([dict(message) for message in messages]).hex()


def all_of(mode: str, shape: str) -> str:
    whole = hashlib.sha256()
    tried = product(SYSTEMS, BODIES, TURNS, range(4))
    for system_text, body, turns, count in tried:
        template = Template(project_id=1, name="t", body=body, system_text=system_text, mode=mode, digest=b"")
        try:
            whole.update(said(template, turns, count, shape).encode())
        except ValueError as problem:
            whole.update(type(problem).__name__.encode())
    return whole.hexdigest()


@pytest.mark.parametrize(("mode", "shape"), list(RECORDED))
def test_every_old_template_sends_the_bytes_it_always_sent(mode, shape):
    assert all_of(mode, shape) == RECORDED[mode, shape]


def test_an_old_version_keeps_its_digest():
    given = {
        "mode": "plain",
        "system_text": "Be kind.",
        "body": "Say {{input}}",
        "few_shot": {"k": 2},
        "labels": ("a", "b"),
    }
    assert template_digest(**given).hex() == "0f6d02f4693d30fb70a494cce9b3a091d98720a78627fe83b30055410fd0925c"
