"""The batch: who shares it does not change what a request gets."""

from __future__ import annotations

import itertools
import queue
import random
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM

from backend.engines.local.asking import Failed, Piece, PromptScores, QueueFull, Request, Resting, Ticket
from backend.engines.local.mixed import fewest_rows
from backend.engines.local.model import Base
from backend.engines.local.resolver import Resolved
from backend.engines.local.sampling import Sampling
from backend.engines.local.scheduler import Scheduler
from tests.backend.engines.tiny import wait_until

GREEDY = Sampling(temperature=0)


@pytest.fixture(params=[False, True], ids=["one thread", "two"])
def scheduler(load: Callable[[], Base], request: pytest.FixtureRequest) -> Iterator[Scheduler]:
    made = Scheduler(load(), row_limit=16, waiting_limit=4, has_second=request.param)
    yield made
    made.close()


class Asked:
    """A request under way and what came of it."""

    def __init__(self, scheduler: Scheduler, request: Request) -> None:
        self.events: queue.Queue[object] = queue.Queue()
        self.request = request
        self.scores: dict[int, PromptScores] = {}
        self.ticket: Ticket = scheduler.submit(request, self.events.put)

    def texts(self) -> list[str]:
        texts = [""] * (self.request.n * len(self.request.prompts))
        for piece in self.pieces():
            texts[piece.sample] += piece.text
        return texts

    def pieces(self) -> list[Piece]:
        found: list[Piece] = []
        wanted = self.request.n * len(self.request.prompts)
        while sum(piece.finish_reason is not None for piece in found) < wanted:
            event = self.events.get(timeout=60)
            assert not isinstance(event, Failed), event
            if isinstance(event, PromptScores):
                self.scores[event.prompt] = event
            if isinstance(event, Piece):
                found.append(event)
        return found


def request(base: Base, prompt: list[int], model: Resolved | None = None, **options: object) -> Request:
    settings = {"max_tokens": 20, "seed": 1, **options}
    return Request(model or Resolved("base", None, base.digest), [prompt], **settings)


def draw_prompt(draw: random.Random) -> list[int]:
    return [draw.randrange(5, 300) for _ in range(draw.randrange(1, 40))]


def test_greedy_equals_generate_token_for_token(scheduler: Scheduler, base_folder):
    base = scheduler.base
    reference = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    draw = random.Random(0)
    prompts = [draw_prompt(draw) for _ in range(5)]
    asked = Asked(scheduler, Request(Resolved("base", None, base.digest), prompts, 24, 0, sampling=GREEDY, top_logps=0))
    got = {piece.sample: [item.token for item in piece.tokens] for piece in asked.pieces()}
    for at, prompt in enumerate(prompts):
        tokens = torch.tensor([prompt])
        expected = reference.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=24, eos_token_id=1
        )
        assert got[at] == expected[0, len(prompt) :].tolist()


def test_greedy_with_a_repetition_penalty_equals_generate_token_for_token(scheduler: Scheduler, base_folder):
    reference = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    draw = random.Random(7)
    for penalty in (1.2, 2.0):
        prompt = draw_prompt(draw)
        sampling = Sampling(temperature=0, repetition_penalty=penalty)
        asked = Asked(
            scheduler, request(scheduler.base, prompt, sampling=sampling, max_tokens=40, top_logps=0, n=2, seed=0)
        )
        tokens = torch.tensor([prompt])
        expected = reference.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=40,
            repetition_penalty=penalty,
            eos_token_id=1,
        )
        for piece in asked.pieces():
            assert [item.token for item in piece.tokens] == expected[0, len(prompt) :].tolist()


SAMPLINGS = (
    Sampling(),
    GREEDY,
    Sampling(temperature=0.7, top_p=0.9),
    Sampling(top_k=5, min_p=0.1),
    Sampling(min_p=0.05, repetition_penalty=1.3),
    Sampling(temperature=0, repetition_penalty=1.5),
)
STOPS = ((), ("e",), ("th", "zz"))


def told(asked: Asked) -> list[tuple[str, str | None, list[int], list[float]]]:
    """Of each sample: text, why it ended, tokens, their log-probabilities."""
    found = sorted(asked.pieces(), key=lambda piece: piece.sample)
    return [
        (piece.text, piece.finish_reason, [t.token for t in piece.tokens], [t.logp for t in piece.tokens])
        for piece in found
    ]


def test_a_seed_gives_the_same_text_whatever_else_is_in_the_batch(scheduler: Scheduler, adapters: dict[str, Resolved]):
    base, draw = scheduler.base, random.Random(1)
    models = [None, adapters["model-1"], adapters["model-2"]]
    requests = [
        request(
            base,
            draw_prompt(draw),
            models[at % 3],
            seed=at,
            n=1 + at % 4,
            top_logps=at % 3,
            sampling=SAMPLINGS[at % len(SAMPLINGS)],
            stop=draw.choice(STOPS),
            max_tokens=draw.choice([1, 8, 20, 30]),
        )
        for at in range(50)
    ]
    alone = [told(Asked(scheduler, item)) for item in requests]
    assert len({text for answers in alone for text, *_ in answers}) > 12
    assert {reason for answers in alone for _, reason, *_ in answers} == {"stop", "length"}
    scheduler.waiting_limit = 100
    order = list(range(50))
    for _ in range(2):
        draw.shuffle(order)
        together = {at: Asked(scheduler, requests[at]) for at in order}
        for at, asked in together.items():
            for one, other in zip(told(asked), alone[at], strict=True):
                assert one[:3] == other[:3]
                assert one[3] == pytest.approx(other[3], abs=1e-4)


def test_one_sample_of_many_equals_the_same_sample_of_fewer(scheduler: Scheduler):
    prompt = [5, 6, 7, 8, 9]
    four = Asked(scheduler, request(scheduler.base, prompt, n=4)).texts()
    assert Asked(scheduler, request(scheduler.base, prompt, n=2)).texts() == four[:2]
    assert len(set(four)) == 4


def test_a_stream_and_a_whole_answer_give_the_same_text(scheduler: Scheduler):
    whole = Asked(scheduler, request(scheduler.base, [5, 6, 7], n=3)).texts()
    stream = Asked(scheduler, request(scheduler.base, [5, 6, 7], n=3, is_streamed=True))
    assert stream.texts() == whole
    assert len(whole[0]) > 0


def test_a_late_request_joins_a_running_batch_of_its_model(scheduler: Scheduler):
    base = scheduler.base
    first = Asked(scheduler, request(base, [5] * 30, max_tokens=200, is_streamed=True, stop=("never",)))
    first.events.get(timeout=60)
    seen: list[int] = []
    step = scheduler._step

    def counted(group):
        seen.append(len(group.rows))
        step(group)

    scheduler._step = counted
    Asked(scheduler, request(base, [6, 7], max_tokens=10)).texts()
    first.ticket.cancel()
    assert 2 in seen


def test_two_models_are_streamed_at_the_same_time(scheduler: Scheduler, adapters: dict[str, Resolved]):
    heard: list[str] = []
    done = threading.Barrier(3)

    def hear(name: str) -> Callable[[object], None]:
        def emit(event: object) -> None:
            heard.append(name)
            if isinstance(event, Piece) and event.finish_reason:
                threading.Thread(target=done.wait, daemon=True).start()

        return emit

    for name in ("model-1", "model-2"):
        made = request(scheduler.base, [5, 6, 7], adapters[name], max_tokens=60, is_streamed=True)
        scheduler.submit(made, hear(name))
    done.wait(60)
    switches = sum(one != other for one, other in itertools.pairwise(heard))
    assert switches > 20


def test_a_cancelled_request_leaves_before_the_next_token(scheduler: Scheduler):
    asked = Asked(scheduler, request(scheduler.base, [5, 6], n=8, max_tokens=250, is_streamed=True))
    asked.events.get(timeout=60)
    wait_until(lambda: scheduler.health()["active"] > 0)
    asked.ticket.cancel()
    wait_until(lambda: scheduler.health()["active"] == 0, 2)


def test_a_full_queue_refuses_with_a_time_to_wait(scheduler: Scheduler):
    hold = [Asked(scheduler, request(scheduler.base, [5, 6], n=16, max_tokens=250)) for _ in range(4)]
    with pytest.raises(QueueFull) as caught:
        for _ in range(3):
            hold.append(Asked(scheduler, request(scheduler.base, [5, 6], n=16, max_tokens=250)))
    assert 1 <= caught.value.retry_after_seconds <= 30
    assert scheduler.health()["waiting"] > 0
    for asked in hold:
        asked.ticket.cancel()
    wait_until(lambda: scheduler.health()["waiting"] == 0 and scheduler.health()["active"] == 0)


def test_prompt_scores_equal_the_plain_log_softmax_with_and_without_company(scheduler: Scheduler):
    base = scheduler.base
    prompts = [[5, 6, 7, 8, 9, 10], [11, 12], [13]]
    wanted = Request(
        Resolved("base", None, base.digest), prompts, max_tokens=0, seed=0, top_logps=2, wants_prompt_scores=True
    )
    asked = Asked(scheduler, wanted)
    asked.pieces()
    assert len(asked.scores) == 3
    with torch.inference_mode():
        for prompt in prompts:
            scores = asked.scores[prompts.index(prompt)].tokens
            logps = base.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
            assert scores[0].logp is None
            expected = [float(logps[at, token]) for at, token in enumerate(prompt[1:])]
            assert [score.logp for score in scores[1:]] == pytest.approx(expected, abs=1e-4)
            assert all(score.top[0][1] >= score.logp for score in scores[1:])


def test_what_has_its_first_token_and_no_row_yet_is_under_way(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch):
    join, may_join = scheduler._join, threading.Event()
    monkeypatch.setattr(scheduler, "_join", lambda begun: (may_join.wait(20), join(begun))[1])
    events: queue.Queue[object] = queue.Queue()
    asked = request(scheduler.base, [5, 6, 7], max_tokens=5, top_logps=0, is_streamed=True)
    scheduler.submit(asked, events.put)
    wait_until(lambda: scheduler._starting and not scheduler._waiting)
    assert not scheduler.wait_until_idle(0.1)
    may_join.set()
    assert scheduler.wait_until_idle(20)


def test_an_adapter_that_cannot_be_loaded_fails_its_own_request_only(
    scheduler: Scheduler, adapters: dict[str, Resolved], tmp_path
):
    running = Asked(scheduler, request(scheduler.base, [5, 6], max_tokens=100, top_logps=0))
    lost = Resolved("model-9", tmp_path / "gone", "0" * 64)
    events: queue.Queue[object] = queue.Queue()
    scheduler.submit(request(scheduler.base, [5, 6], lost), events.put)
    failed = events.get(timeout=60)
    assert isinstance(failed, Failed)
    assert failed.is_fault_of_model
    assert "missing" in failed.message
    running.pieces()
    assert Asked(scheduler, request(scheduler.base, [5, 6], adapters["model-1"])).texts()


def test_an_errand_is_done_between_two_steps_and_its_failure_is_its_own(scheduler: Scheduler):
    running = Asked(scheduler, request(scheduler.base, [5, 6], max_tokens=100, is_streamed=True))
    running.events.get(timeout=60)
    assert scheduler.do(sorted).result(10) == [scheduler.base.digest]
    with pytest.raises(ZeroDivisionError):
        scheduler.do(lambda _: 1 // 0).result(10)
    running.texts()


def test_errands_are_refused_when_too_many_wait_and_told_when_the_engine_stops(scheduler: Scheduler):
    may_go_on = threading.Event()
    held = scheduler.do(lambda _: may_go_on.wait(60))
    wait_until(held.running)
    waiting = [scheduler.do(lambda _: 1) for _ in range(scheduler.waiting_limit)]
    with pytest.raises(QueueFull):
        scheduler.do(lambda _: 1)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    wait_until(lambda: scheduler._is_closed)
    may_go_on.set()
    closing.join(60)
    for future in waiting:
        with pytest.raises(Resting, match="is stopping"):
            future.result(10)


def test_rows_of_several_adapters_share_every_step(scheduler: Scheduler, adapters: dict[str, Resolved]):
    shared: list[int] = []
    step = scheduler._step
    scheduler._step = lambda group: (  # type: ignore[method-assign, assignment]
        shared.append(len({row.ticket.request.model.name for row in group.rows})),
        step(group),
    )
    models = [None, adapters["model-1"], adapters["model-2"]]
    asked = [Asked(scheduler, request(scheduler.base, [5, 6, 7], model, max_tokens=60)) for model in models]
    for one in asked:
        one.pieces()
    assert max(shared) == 3


def test_a_request_that_would_take_too_much_memory_beside_others_waits_for_them(load: Callable[[], Base]):
    base = load()
    assert base.stack is not None
    room_for_two = 2 * 100 * base.stack.room(1, 1).nbytes
    scheduler = Scheduler(base, memory_limit=room_for_two)
    beside: list[int] = []
    step = scheduler._step
    scheduler._step = lambda group: (beside.append(len(group.rows)), step(group))  # type: ignore[method-assign, assignment]
    asked = [Asked(scheduler, request(base, [5, 6, 7, at], max_tokens=90, sampling=GREEDY)) for at in range(8, 13)]
    texts = [one.texts() for one in asked]
    scheduler.close()
    assert max(beside) == 2
    alone = Scheduler(load())
    assert texts == [Asked(alone, one.request).texts() for one in asked]
    alone.close()


def test_a_request_larger_than_the_memory_limit_is_served_alone(load: Callable[[], Base]):
    scheduler = Scheduler(load(), memory_limit=1)
    assert [len(Asked(scheduler, request(scheduler.base, [5, 6], n=3)).texts()) for _ in range(2)] == [3, 3]
    scheduler.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_models_thread_alone_computes_on_several(load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch):
    seen, tried = [], fewest_rows
    monkeypatch.setattr(
        "backend.engines.local.scheduler.fewest_rows",
        lambda stack: (seen.append(torch.get_num_threads()), tried(stack))[1],
    )
    scheduler = Scheduler(load(), threads=2)
    assert seen == [2], "the fewest rows depend on how many threads share a product"
    assert scheduler.do(lambda _: torch.get_num_threads()).result(20) == 2
    assert torch.get_num_threads() == 1
    scheduler.close()


def test_a_model_that_cannot_be_settled_is_said_where_it_was_given(
    load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Scheduler, "settle", lambda self: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        Scheduler(load())


def test_nothing_is_switched_for_rows_that_share_steps(load: Callable[[], Base], monkeypatch: pytest.MonkeyPatch):
    scheduler, scopes = Scheduler(load()), []
    scope = scheduler.base.scope
    monkeypatch.setattr(scheduler.base, "scope", lambda name: (scopes.append(name), scope(name))[1])
    Asked(scheduler, request(scheduler.base, [5, 6, 7])).texts()
    assert not scopes
    Asked(scheduler, request(scheduler.base, [5, 6, 7], wants_prompt_scores=True)).texts()
    assert scopes == [None]
    scheduler.close()


def test_rows_of_which_everyone_has_hung_up_are_not_in_the_next_ones_way(load: Callable[[], Base]):
    scheduler = Scheduler(load())
    wanted = request(scheduler.base, [5, 6, 7], sampling=GREEDY)
    expected = Asked(scheduler, wanted).texts()
    for n in (3, 9):
        gone = Asked(scheduler, request(scheduler.base, [8, 9], n=n, max_tokens=200, is_streamed=True))
        gone.events.get(timeout=60)
        gone.ticket.cancel()
        wait_until(lambda: not scheduler._groups)
        assert Asked(scheduler, wanted).texts() == expected
    scheduler.close()


def test_memory_that_stays_between_requests_is_let_go_when_asked(load: Callable[[], Base]):
    scheduler = Scheduler(load())
    prompt = list(range(5, 105))
    first = Asked(scheduler, request(scheduler.base, prompt, n=9)).texts()
    wait_until(lambda: not scheduler._groups)
    held = scheduler._mixed
    assert held is not None and held._memory.nbytes > 0 and scheduler.prefixes.held_bytes > 0
    assert Asked(scheduler, request(scheduler.base, prompt, n=9)).texts() == first and scheduler._mixed is held
    wait_until(lambda: not scheduler._groups)
    scheduler.do(lambda _: scheduler.forget()).result(timeout=60)
    assert scheduler._mixed is None and scheduler.prefixes.held_bytes == 0
    assert Asked(scheduler, request(scheduler.base, prompt, n=9)).texts() == first
    scheduler.close()


def test_a_prompt_that_was_read_before_is_found_again(load: Callable[[], Base]):
    scheduler = Scheduler(load())
    prompt = list(range(5, 105))
    first = Asked(scheduler, request(scheduler.base, prompt)).texts()
    assert scheduler.health()["cache_hits"] == 0
    assert Asked(scheduler, request(scheduler.base, prompt)).texts() == first
    assert scheduler.health()["cache_hits"] == pytest.approx(96 / 198, abs=1e-3)
    scheduler.close()
