"""Scores and embeddings over HTTP: the numbers of the training code and of transformers, beside rows that are written."""

from __future__ import annotations

import base64
import json
import math
import shutil
import struct
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from transformers import AutoModel

from backend import labelling, looking_back
from backend.engines.client import EngineClient
from backend.engines.kept import SamplingSettings
from backend.engines.local.reading import parts
from backend.engines.local.resolver import Resolved, StoreResolver
from backend.registry import artifacts
from backend.training import judge
from backend.training.data import Tokens
from backend.training.shared_base import Shape, SharedBase, load_base
from feedback_db import Store, models
from feedback_db.cases import conversation
from feedback_db.types import Case, Cell, Completion, Model, Person, Project
from tests.backend.engines.tiny import KEY, Served, save_adapter
from tests.backend.suites.house import finished, pasted, started, words
from tests.ui import house

HELLO = [{"role": "user", "content": "where is my parcel"}]
ANSWERS = ["please help me", "the film was kind and the story was good", "好", ""]
ENDED = [True, False, True, True]


@pytest.fixture(scope="module")
def trained(base_folder: Path) -> SharedBase:
    return load_base(str(base_folder))


def save_judge(base: SharedBase, folder: Path, base_folder: Path, members: int, **settings: Any) -> artifacts.Saved:
    """A reward model that disagrees with itself, saved by the training code."""
    torch.manual_seed(members)
    made = []
    for number in range(1, members + 1):
        name = f"{folder.name}-{members}-{number}"
        base.add(name, Shape(4, 16), seed=number)
        for weight in base.weights(name):
            weight.data += 0.05 * torch.randn_like(weight)
        head = judge.Head(base.width)
        head.weight.data = torch.randn_like(head.weight)
        judge.normalise(head, [[-9.0, 0.5 * number, 8.0]])
        made.append(judge.Member(name, head.requires_grad_(False)))
    facts = {"kind": "reward", "base_fingerprint": artifacts.fingerprint(base_folder), "settings": settings}
    return artifacts.save(folder, lambda target: judge.save(base, judge.Judge(tuple(made)), target), facts)


@pytest.fixture(scope="module")
def rewards(
    engine: Served, trained: SharedBase, base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Reward models the engine knows by name: one member, three members, and one trained on short texts."""
    folder = tmp_path_factory.mktemp("judges")
    shapes = {"model-11": (1, {"max_length": 200}), "model-12": (3, {}), "model-13": (2, {"max_length": 8})}
    found = {}
    for name, (members, settings) in shapes.items():
        saved = save_judge(trained, folder, base_folder, members, **settings)
        found[name] = folder / saved.folder
        engine.resolver.rewards[name] = Resolved(name, found[name], saved.digest)
    return found


def score(raw: httpx.Client, model: str, **asked: Any) -> dict[str, Any]:
    reply = raw.post("/v1/rewards", json={"model": model, "messages": HELLO, **asked})
    assert reply.status_code == 200, reply.text
    return reply.json()


def training_scores(base: SharedBase, folder: Path, answers: list[tuple[str, bool]], longest: int) -> torch.Tensor:
    """What the training code says of the same conversation and answers. (members, N)"""
    loaded = judge.load(base, folder, adapter=f"loaded-{folder.name}-{len(base.peft.peft_config)}")
    tokens = Tokens(base.tokenizer, longest)
    sequences = tokens.joined(tokens.prefix(HELLO), [tokens.answer(text, ended) for text, ended in answers])
    return judge.scores(base, loaded, sequences, 4096)


@pytest.mark.parametrize(("name", "longest"), [("model-11", 200), ("model-12", 256), ("model-13", 8)])
def test_scores_are_those_of_the_training_code(
    raw: httpx.Client, rewards: dict[str, Path], trained: SharedBase, name: str, longest: int
):
    answers = list(zip(ANSWERS, ENDED, strict=True))
    if longest == 8:
        answers = [answers[0], answers[3]]
    told = score(raw, name, answer=[text for text, _ in answers], has_ended=[ended for _, ended in answers])
    expected = training_scores(trained, rewards[name], answers, longest)
    assert [one["score"] for one in told["data"]] == pytest.approx(expected.mean(0).tolist(), abs=1e-5)
    assert len({round(one["score"], 3) for one in told["data"]}) == len(answers)
    assert (told["cut_tokens"] > 0) == (longest == 8)
    for one, members in zip(told["data"], expected.T.tolist(), strict=True):
        assert one.get("members", [one["score"]]) == pytest.approx(members, abs=1e-5)


def test_one_answer_scores_as_it_does_beside_others_and_says_who_scored(
    raw: httpx.Client, rewards: dict[str, Path], engine: Served
):
    several = score(raw, "model-12", answer=ANSWERS, has_ended=ENDED)["data"]
    for at, text in enumerate(ANSWERS):
        alone = score(raw, "model-12", answer=text, has_ended=ENDED[at])
        assert alone["data"][0]["score"] == pytest.approx(several[at]["score"], abs=1e-5)
    digest = engine.resolver.rewards["model-12"].digest
    assert (alone["model"], alone["system_fingerprint"], alone["adapter_digest"]) == ("model-12", digest, digest)
    assert alone["base_digest"] == engine.base.digest
    assert alone["usage"]["prompt_tokens"] == len(engine.base.chat_tokens(HELLO)) + 1


def test_the_credit_of_a_token_is_the_score_of_the_answer_up_to_it(
    raw: httpx.Client, rewards: dict[str, Path], trained: SharedBase, engine: Served
):
    text = ANSWERS[1]
    credit = score(raw, "model-12", answer=text, credit=True)["data"][0]
    tokens = [*engine.base.tokenizer.encode(text, add_special_tokens=False), engine.base.tokenizer.eos_token_id]
    assert b"".join(bytes(one["bytes"]) for one in credit["credit"][:-1]).decode() == text
    assert credit["credit"][-1]["value"] == credit["score"]
    prefix = engine.base.chat_tokens(HELLO)
    loaded = judge.load(trained, rewards["model-12"], adapter="for credit")
    begun = [prefix + tokens[: at + 1] for at in range(len(tokens))]
    expected = judge.scores(trained, loaded, begun, 4096).mean(0).tolist()
    assert [one["value"] for one in credit["credit"]] == pytest.approx(expected, abs=1e-5)
    assert "credit" not in score(raw, "model-12", answer=text)["data"][0]


def test_rows_that_are_written_do_not_feel_what_is_read_between_their_steps(
    raw: httpx.Client, rewards: dict[str, Path], engine: Served
):
    client = EngineClient(engine.url, KEY)
    asked: dict[str, Any] = {"model": "model-1", "n": 2, "seed": 4, "max_tokens": 60}
    alone = [answer.text for answer in client.complete(HELLO, **asked)]
    expected = score(raw, "model-12", answer=ANSWERS, has_ended=ENDED)["data"]
    vector = raw.post("/v1/embeddings", json={"model": "base", "input": "hello"}).json()["data"]

    def read(at: int) -> None:
        assert raw.post("/v1/embeddings", json={"model": "base", "input": "hello"}).json()["data"] == vector
        again = score(raw, "model-12", answer=ANSWERS, has_ended=ENDED)["data"]
        for one, other in zip(again, expected, strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=1e-6)

    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read, at) for at in range(12)]
        beside = [answer.text for answer in client.complete(HELLO, **asked)]
        for one in reading:
            one.result(60)
    client.close()
    assert beside == alone


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        ({"model": "model-1"}, 404, "model_not_found", "model"),
        ({"model": "base"}, 404, "model_not_found", "model"),
        ({"answer": []}, 400, "invalid_value", "answer"),
        ({"answer": ["a", "b"], "has_ended": [True]}, 400, "invalid_value", "has_ended"),
        ({"answer": "", "has_ended": False}, 400, "invalid_messages", "messages"),
        ({"model": "model-13", "answer": "the film was good and the story was kind " * 4}, 400, None, "messages"),
        ({"temperature": 1}, 400, "unknown_parameter", "temperature"),
    ],
)
def test_a_bad_question_to_a_reward_model_is_answered_with_its_reason(
    raw: httpx.Client, rewards: dict[str, Path], asked: dict[str, Any], status: int, code: str | None, param: str
):
    reply = raw.post("/v1/rewards", json={"model": "model-11", "messages": HELLO, "answer": "a", **asked})
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error["param"] == param
    assert code in (None, error["code"])


def test_a_reward_model_whose_files_were_changed_is_not_loaded(
    raw: httpx.Client, engine: Served, rewards: dict[str, Path], tmp_path: Path
):
    known = engine.resolver.rewards["model-11"]
    copy = tmp_path / known.adapter.name
    shutil.copytree(known.adapter, copy)
    content = bytearray((copy / "head.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "head.safetensors").write_bytes(content)
    engine.resolver.rewards["model-19"] = Resolved("model-19", copy, "1" * 64)
    reply = raw.post("/v1/rewards", json={"model": "model-19", "messages": HELLO, "answer": "a"})
    assert reply.status_code == 500
    assert "was changed after it was saved" in reply.json()["error"]["message"]


class Beside:
    """What a page asks through; counts how often."""

    def __init__(self, url: str) -> None:
        self.opened, self._client = 0, EngineClient(url, KEY)

    def client(self) -> EngineClient:
        self.opened += 1
        return self._client


def test_after_the_vote_and_never_before_it_the_reward_model_itself_says_what_it_thought(
    raw: httpx.Client, engine: Served, rewards: dict[str, Path], tmp_path: Path
):
    made = house.build(tmp_path, comparisons=0)
    store, project = made.store, made.project.id or 0
    house.add_comparisons(store, made.project, 2, texts=("please help me ", "the film was kind "))
    row = Model(
        id=11, project_id=project, name="judge", kind="reward", base="x", base_fingerprint=bytes(32), adapter="f", digest=bytes(32),
        source="test",
    )  # fmt: skip
    with store.write() as db:
        models.move(store, store.add(row), "live", reason="test", person_id=None)
        form = json.dumps({"reveal": "margin", "reveal_holdout": 0.0})
        db.conn.execute("update projects set label_form = ? where id = ?", [form, project])
    beside = Beside(engine.url)
    desk = labelling.next_desk(store, made.ann, project)
    assert desk is not None
    with pytest.raises(labelling.LabellingProblem):
        looking_back.reveal(store, beside, made.ann, 1)  # there is no judgement yet
    assert beside.opened == 0, "nobody asked before the vote"
    answer = labelling.Answer(ranks=(2, 1), strength=1, seconds=1.0)
    said = labelling.submit(store, made.ann, desk.assignment, uuid.uuid4().bytes, answer)
    told = looking_back.reveal(store, beside, made.ann, said.judgement)
    assert told is not None and told.kind == "margin" and beside.opened == 1
    asked = {"model": "model-11", "messages": list(desk.conversation), "answer": list(desk.answers)}
    scores = [one["score"] for one in raw.post("/v1/rewards", json=asked).json()["data"]]
    assert told.scores == pytest.approx(scores, abs=1e-3) and told.scores[0] != told.scores[1]
    assert store.value("select count(*) from assignments where revealed_at is not null") == 1
    beside.client().close()
    store.close()


def test_a_policy_is_no_reward_model(raw: httpx.Client, engine: Served, base_folder: Path, tmp_path: Path):
    saved = save_adapter(tmp_path, base_folder, 5)
    engine.resolver.rewards["model-18"] = Resolved("model-18", tmp_path / saved.folder, saved.digest)
    reply = raw.post("/v1/rewards", json={"model": "model-18", "messages": HELLO, "answer": "a"})
    assert "has no head.safetensors: it is not a reward model" in reply.json()["error"]["message"]


def test_the_store_knows_reward_models_by_number_and_by_project(tmp_path: Path):
    store = Store(tmp_path / "feedback.db")
    project = store.add(Project(name="p"))
    row = Model(name="r", kind="reward", base="b", source="t", project_id=project.id, adapter="ab", digest=bytes(32))
    kept = store.add(row)
    resolver = StoreResolver(tmp_path, "d")
    policy = store.add(Model(name="p", kind="policy", base="b", source="t", adapter="cd", digest=bytes(32)))
    known = Resolved(f"model-{kept.id}", tmp_path / "models" / "ab", "00" * 32)
    assert resolver.resolve_reward(f"model-{kept.id}") == known
    assert resolver.resolve(f"model-{kept.id}") is None
    assert resolver.resolve_reward(f"live-{project.id}") is resolver.resolve_reward(f"model-{policy.id}") is None
    models.move(store, kept, "live", reason="a test", person_id=None)
    assert resolver.resolve_reward(f"live-{project.id}") == known
    assert [resolver.resolve_reward(name) for name in ("live", "base", "model-x", "model-99", "live-9")] == [None] * 5
    store.close()
    resolver.close()


# embeddings


def test_embeddings_are_the_mean_of_the_last_states_at_length_one(raw: httpx.Client, engine: Served, base_folder: Path):
    texts = ["the film was good", "where is my parcel, please help me", "好"]
    told = raw.post("/v1/embeddings", json={"model": "base", "input": texts}).json()
    plain = AutoModel.from_pretrained(base_folder, dtype=torch.float32).eval()
    for text, one in zip(texts, told["data"], strict=True):
        tokens = torch.tensor([engine.base.text_tokens(text)])
        with torch.inference_mode():
            mean = plain(input_ids=tokens).last_hidden_state[0].mean(0)
        assert one["embedding"] == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    assert told["system_fingerprint"] == engine.base.digest
    packed = raw.post("/v1/embeddings", json={"model": "base", "input": texts, "encoding_format": "base64"}).json()
    raw_floats = base64.b64decode(packed["data"][1]["embedding"])
    assert list(struct.unpack(f"<{len(raw_floats) // 4}f", raw_floats)) == pytest.approx(told["data"][1]["embedding"])


def test_the_openai_client_reads_embeddings_of_texts_and_tokens(engine: Served):
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key=KEY, max_retries=0) as api:
        packed = api.embeddings.create(model="base", input=["the film", "where is"])  # it asks for base64
        plain = api.embeddings.create(
            model="base", input=[engine.base.text_tokens("the film")], encoding_format="float"
        )
        assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
        assert sum(number**2 for number in packed.data[1].embedding) == pytest.approx(1, abs=1e-5)
        assert packed.usage.prompt_tokens == sum(
            len(engine.base.text_tokens(text)) for text in ("the film", "where is")
        )
        for asked, param in (
            ({"input": "the film", "model": "model-1"}, "model"),
            ({"input": ""}, "input"),
            ({"input": "a b c " * 200}, "input"),
            ({"input": "a", "dimensions": 8}, "dimensions"),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                api.embeddings.create(**{"model": "base", **asked})
            assert refused.value.param == param


def test_texts_are_read_in_parts_of_bounded_size_each_once():
    lengths = [5, 300, 7, 90, 1, 80, 4000, 9000]
    found = parts(lengths, 600)
    assert sorted(at for part in found for at in part) == list(range(len(lengths)))
    assert all(len(part) == 1 or max(lengths[at] for at in part) * len(part) <= 600 for part in found)
    assert found == [[4, 0, 2, 5, 3], [1], [6], [7]]


class Running:
    """The engine as a run of a suite asks it."""

    def __init__(self, asked: EngineClient) -> None:
        self.asked = asked

    def client(self) -> EngineClient:
        return self.asked

    def client_for(self, model: Model) -> EngineClient:
        return self.asked


def test_the_check_of_a_suite_gives_the_score_of_a_trained_reward_adapter(
    rewards: dict[str, Path], trained: SharedBase, engine: Served, tmp_path: Path
):
    store = Store(tmp_path / "feedback.db")
    engineer = store.add(Person(pseudonym="e", name="eve", role="engineer"))
    project = store.add(Project(name="p"))
    given: dict[str, Any] = {"base": "tiny", "source": "test", "base_fingerprint": bytes(32)}
    store.add(Model(id=1, name="policy", kind="policy", adapter="f", digest=b"p" * 32, stage="live", **given))
    store.add(
        Model(
            id=12,
            name="three",
            kind="reward",
            adapter="r",
            digest=b"r" * 32,
            stage="live",
            project_id=project.id,
            **given,
        )
    )
    suite = pasted(store, engineer, project, words(3), "reward(0)\nreward(-1000):three")
    run = started(store, engineer, project, suite, samplings=[SamplingSettings(temperature=0.0, max_tokens=8)])
    client = EngineClient(engine.url, KEY)
    assert finished(store, Running(client), run).state == "done"  # type: ignore[arg-type]
    client.close()
    loaded, tokens = judge.load(trained, rewards["model-12"], adapter="for a suite"), Tokens(trained.tokenizer, 256)
    for cell in store.find(Cell, "run_id = ?", [run.id], "case_id"):
        said, case = store.get(Completion, cell.completion_id or 0), store.get(Case, cell.case_id)
        asked = conversation(case.values, case.conversation)
        ids = tokens.joined(tokens.prefix(asked), [tokens.answer(said.text, True)])
        expected = judge.scores(trained, loaded, ids, 4096).mean().item()
        scores = [one[0] for one in cell.results]
        assert scores == pytest.approx([1 / (1 + math.exp(-expected)), 1.0], abs=1e-4)
    store.close()
