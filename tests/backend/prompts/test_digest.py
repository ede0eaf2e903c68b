"""Digests name content; the split follows from them."""

import hashlib
from collections import Counter

from backend.prompts import digest


def test_a_digest_is_the_sha256_of_canonical_json():
    messages = [{"role": "user", "content": "退款"}]
    assert digest.messages_digest(messages) == hashlib.sha256('[{"content":"退款","role":"user"}]'.encode()).digest()


def test_the_order_of_keys_does_not_count_and_the_order_of_messages_does():
    a, b = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
    assert digest.messages_digest([a, b]) == digest.messages_digest([dict(reversed(a.items())), b])
    assert digest.messages_digest([a, b]) != digest.messages_digest([b, a])
    assert digest.sampling_digest({"a": 1, "b": 2}) == digest.sampling_digest({"b": 2, "a": 1})


def test_every_part_that_changes_the_bytes_changes_the_digest():
    base = {"mode": "plain", "system_text": "s", "body": "b", "few_shot": {"k": 1}, "labels": ["x"]}
    changed = [{"mode": "logic"}, {"system_text": ""}, {"body": "c"}, {"few_shot": {"k": 2}}, {"labels": None}]
    digests = {digest.template_digest(**{**base, **change}) for change in [{}, *changed]}
    assert len(digests) == len(changed) + 1
    cases = [
        {"values": {"a": "1"}},
        {"conversation": [{"role": "user", "content": "1"}]},
        {"values": {"a": "1"}, "expected": "1"},
    ]
    assert len({digest.case_digest(**case) for case in cases}) == 3
    shots = [{"input": "a", "output": "b"}, {"input": "ab", "output": ""}, {"input": "a", "output": "b", "label": "0"}]
    assert len({digest.demonstration_digest(**shot) for shot in shots}) == 3


def test_the_split_is_eighty_ten_ten_and_a_function_of_the_digest():
    digests = [digest.digest_of(i) for i in range(10_000)]
    share = Counter(map(digest.split_of, digests))
    assert abs(share["train"] - 8000) < 200 and abs(share["val"] - 1000) < 150 and abs(share["test"] - 1000) < 150
    assert [digest.split_of(d) for d in digests[:50]] == [digest.split_of(digest.digest_of(i)) for i in range(50)]
