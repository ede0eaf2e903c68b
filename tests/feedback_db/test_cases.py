"""A case as people read it: its turns, its values, or both."""

from feedback_db.cases import asked_of, conversation

EARLIER = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]


def test_a_case_whose_turns_end_with_an_answer_shows_what_it_asks_next():
    assert conversation({"input": "When?"}, EARLIER) == [*EARLIER, {"role": "user", "content": "When?"}]
    assert conversation({"order": "7", "day": "Monday"}, EARLIER)[-1]["content"] == "order: 7\nday: Monday"


def test_turns_that_ask_by_themselves_stand_alone():
    asked = [*EARLIER, {"role": "user", "content": "When?"}]
    assert conversation({"order": "7"}, asked) == asked
    assert conversation(None, EARLIER) == EARLIER
    row = {"values": '{"input":"x"}', "conversation": None}
    assert asked_of(row) == [{"role": "user", "content": "x"}]
