"""Which demonstrations are chosen, and that the case itself never is one."""

import math
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from backend.prompts.fewshot import FewShot, FewShotProblem, choose, closeness, leaks
from feedback_db.types import Demonstration


def demonstration(id, input, label=None):
    return Demonstration(id=id, project_id=1, input=input, output="out", label=label, digest=bytes(32))


POOL = [
    demonstration(1, "The delivery of my parcel is late.", "0"),
    demonstration(2, "I want my money back for this order.", "1"),
    demonstration(3, "我要退款，东西坏了。", "1"),
    demonstration(4, "快递还没有到，什么时候送来？", "0"),
    demonstration(5, "Can you change the address of my parcel?", "0"),
    demonstration(6, "The invoice has the wrong name on it.", "0"),
]


def ids(few_shot, query="Something else entirely", pool=POOL):
    return [one.id for one in choose(pool, query, FewShot.parse(few_shot))]


@pytest.mark.parametrize("choose_by", ["nearest", "bm25", "varied"])
def test_of_a_shuffled_order_the_first_choices_are_the_nearest(choose_by: str):
    plain, mixed = (FewShot(k=4, choose=choose_by, order=order, seed=3) for order in ("listed", "seeded"))
    best_last, shown = choose(POOL, POOL[0].input[:4], plain), choose(POOL, POOL[0].input[:4], mixed)
    near = closeness(mixed, len(shown))
    assert (
        [one.id for _, one in sorted(zip(near, shown, strict=True), key=lambda pair: pair[0])]
        == [one.id for one in best_last]
        != [one.id for one in shown]
    )
    assert closeness(plain, 4) is None and closeness(FewShot(k=4, choose="fixed", order="seeded"), 4) is None


def test_fixed_takes_the_ids_in_their_order():
    assert ids({"k": 3, "choose": "fixed", "ids": [5, 1, 3]}) == [5, 1, 3]
    assert ids({"k": 2, "choose": "fixed", "ids": [5, 1, 3]}) == [5, 1]
    assert ids({"k": 2}) == [1, 2]


def test_an_id_that_is_not_in_the_bank_is_named():
    with pytest.raises(FewShotProblem, match="77"):
        ids({"k": 1, "ids": [77]})


def test_no_setting_means_no_demonstrations():
    assert ids({}) == []


def test_nearest_stands_last_and_works_for_two_chinese_characters():
    assert ids({"k": 1, "choose": "nearest"}, "退款") == [3]
    assert ids({"k": 3, "choose": "nearest"}, "Where is my parcel? The delivery is overdue.")[-1] == 1


def test_nearest_last_orders_what_another_chooser_took():
    query = "Where is my parcel? The delivery is overdue."
    assert ids({"k": 3, "ids": [1, 2, 6], "order": "nearest_last"}, query)[-1] == 1


def test_varied_takes_near_ones_that_differ_from_each_other():
    pool = [
        demonstration(1, "Where is my parcel? It is late."),
        demonstration(2, "Where is my parcel? It is very late."),
        demonstration(3, "Is my parcel insured against damage?"),
        demonstration(4, "Completely unrelated words here."),
    ]
    query = "Where is my parcel? It is too late."
    assert ids({"k": 2, "choose": "nearest"}, query, pool) in ([2, 1], [1, 2])
    first, second = ids({"k": 2, "choose": "varied"}, query, pool)[::-1]
    assert first in (1, 2) and second in (3, 4)
    assert sorted(ids({"k": 9, "choose": "varied"}, query, pool)) == [1, 2, 3, 4]


def test_bm25_is_the_formula_over_grams_and_shows_the_best_last():
    texts = ["refund for a chair", "where is my parcel, where is it, where is it now", "my parcel", "退款多久到账"]
    pool = [demonstration(n, text) for n, text in enumerate(texts, 1)]
    query = "where is my parcel"

    def grams(text: str) -> Counter[str]:
        return Counter(text[i : i + n] for n in (2, 3) for i in range(len(text) - n + 1))

    counted = [grams(text) for text in texts]
    mean = sum(sum(one.values()) for one in counted) / 4
    expected = []
    for one in counted:
        total = 0.0
        for gram in grams(query):
            df = sum(gram in other for other in counted)
            idf = math.log((4 - df + 0.5) / (df + 0.5) + 1)
            total += idf * one[gram] * 2.2 / (one[gram] + 1.2 * (0.25 + 0.75 * sum(one.values()) / mean))
        expected.append(total)
    order = sorted(range(4), key=lambda i: expected[i])
    assert ids({"k": 4, "choose": "bm25"}, query, pool) == [i + 1 for i in order] and order[-1] == 1
    assert ids({"k": 1, "choose": "bm25"}, "退款什么时候到", pool) == [4]
    assert ids({"k": 3, "choose": "bm25"}, query, []) == []


def test_a_thousand_are_ranked_for_variety_in_little_time():
    pool = [
        demonstration(i, f"Question number {i} about parcel {i * 7 % 100} and order {i * 13 % 50}.")
        for i in range(1, 1001)
    ]
    ids({"k": 8, "choose": "varied"}, "A question about parcel 21.", pool)
    start = time.process_time()
    assert len(ids({"k": 8, "choose": "varied"}, "A question about parcel 22.", pool)) == 8
    assert time.process_time() - start < 2.0


def test_equal_seeds_choose_equally_in_another_process():
    few_shot = {"k": 4, "choose": "seeded", "seed": 7, "order": "seeded"}
    code = (
        "from backend.prompts.fewshot import FewShot, choose\nfrom feedback_db.types import Demonstration\n"
        "pool = [Demonstration(id=i, project_id=1, input=f'input number {i}', output='o', digest=bytes(32)) for i in range(1, 30)]\n"
        f"print([d.id for d in choose(pool, 'q', FewShot.parse({few_shot}))])"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    pool = [demonstration(i, f"input number {i}") for i in range(1, 30)]
    assert other == str(ids(few_shot, "q", pool)) == str(ids(few_shot, "q", pool[::-1]))
    assert ids(few_shot, "q", pool) != ids({**few_shot, "seed": 8}, "q", pool)


@pytest.mark.parametrize("seed", range(6))
def test_balanced_choosing_counts_the_label_0(seed):
    chosen = choose(POOL, "x", FewShot(k=4, choose="balanced", seed=seed))
    assert sorted(one.label for one in chosen) == ["0", "0", "1", "1"]
    assert {one.label for one in chosen[:2]} == {"0", "1"}


def test_balanced_choosing_counts_an_empty_label_and_needs_some_label():
    pool = [demonstration(1, "a b c", ""), demonstration(2, "d e f", "x"), demonstration(3, "g h i")]
    assert sorted(ids({"k": 9, "choose": "balanced"}, "q", pool)) == [1, 2]
    with pytest.raises(FewShotProblem, match="label"):
        ids({"k": 2, "choose": "balanced"}, "q", pool[2:])


@pytest.mark.parametrize("chooser", ["fixed", "seeded", "nearest", "balanced"])
@pytest.mark.parametrize(
    "asked",
    [
        "The delivery of my parcel is late.",
        "  the DELIVERY of my\n parcel is late. ",
        "Ｔｈｅ delivery of my parcel is late.",
        "The delivery of my parcel is late!",
    ],
)
def test_no_demonstration_is_the_case_asked_or_its_near_duplicate(chooser, asked):
    assert 1 not in ids({"k": 6, "choose": chooser, "ids": [1, 2, 3] if chooser == "fixed" else []}, asked)


def test_similar_but_different_inputs_do_not_leak():
    assert not leaks("I loved the music of this film.", "I hated the ending of this film.")
    assert not leaks("", "a") and leaks("", "")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"k": 33}, "k is 33"),
        ({"k": -1}, "k is -1"),
        ({"k": True}, "k is True"),
        ({"k": "4"}, "k is '4'"),
        ({"kk": 4}, "no setting kk"),
        ({"choose": "random"}, "choose is 'random'"),
        ({"order": "best"}, "order is"),
        ({"shape": "xml"}, "shape is"),
        ({"ids": "12"}, "ids must"),
        ({"ids": [1, 1]}, "ids must"),
        ({"seed": 1.5}, "seed is"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(row, said):
    with pytest.raises(FewShotProblem, match=said):
        FewShot.parse(row)


def test_settings_survive_a_round_trip():
    few_shot = FewShot(k=3, choose="balanced", ids=(4, 2), seed=9, order="seeded", shape="text")
    assert FewShot.parse(few_shot.as_row()) == few_shot


def test_a_thousand_demonstrations_are_ranked_in_a_fifth_of_a_second_once_known():
    pool = [demonstration(i, f"sentence {i * 7919} about subject {i % 13} and some more words") for i in range(1, 1001)]
    ids({"k": 8, "choose": "nearest"}, "warm up", pool)
    started = time.process_time()
    ids({"k": 8, "choose": "nearest"}, "a sentence about subject 12", pool)
    assert time.process_time() - started < 0.2


BASE = "ab" * 32


def drawn_vectors(texts, base):
    """A direction per text, the same whenever it is asked; all of them lean one way, as a language model's do."""
    assert base == BASE
    found = np.stack([np.random.default_rng(list(text.encode())).normal(size=6) for text in texts]) + 5
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def by_embeddings(choose_by, query, k=3, **more):
    return [one.id for one in choose(POOL, query, FewShot(k=k, choose=choose_by, base=BASE, **more), drawn_vectors)]


@pytest.mark.parametrize("query", ["a", "where is it", "退款"])
def test_embeddings_choose_by_the_cosine_of_what_the_pool_does_not_share(query):
    read = drawn_vectors([one.input for one in POOL], BASE)
    asked, shared = drawn_vectors([query], BASE)[0], read.mean(0)
    own = (read - shared) / np.linalg.norm(read - shared, axis=1, keepdims=True)
    near = own @ ((asked - shared) / np.linalg.norm(asked - shared))
    assert by_embeddings("embedded", query) == [POOL[i].id for i in np.argsort(-near)[:3]][::-1]
    assert by_embeddings("embedded", query, order="nearest_last") == by_embeddings("embedded", query)
    taken: list[int] = []
    while len(taken) < 3:
        left = [i for i in range(len(POOL)) if i not in taken]
        taken.append(max(left, key=lambda i: 0.5 * near[i] - 0.5 * max((own[i] @ own[j] for j in taken), default=0.0)))
    assert by_embeddings("embedded_varied", query) == [POOL[i].id for i in taken][::-1]


def test_embeddings_never_choose_the_case_itself():
    shown = by_embeddings("embedded", "the DELIVERY of my parcel is late.", k=6)
    assert sorted(shown) == [2, 3, 4, 5, 6]


def test_choosing_by_embeddings_needs_a_base_and_something_that_reads():
    for few_shot, embed in (
        (FewShot(k=1, choose="embedded"), drawn_vectors),
        (FewShot(k=1, choose="embedded", base=BASE), None),
    ):
        with pytest.raises(FewShotProblem, match="Save it on the Build page"):
            choose(POOL, "x", few_shot, embed)
    with pytest.raises(FewShotProblem, match="64 hexadecimal"):
        FewShot(base="0x12")
