"""What was asked when our engine ended is asked again, a few times at most."""

from __future__ import annotations

import pytest

from backend.engines.again import ENDED, PAUSES_SECONDS, asked_again
from backend.engines.answers import EngineError


def failing(*codes: str) -> tuple[list[str], object]:
    """Fails with these codes, one after another, then answers; and what was asked so far."""
    left, asked = list(codes), list[str]()

    def ask() -> str:
        asked.append("")
        if left:
            raise EngineError("The engine ended.", left.pop(0))
        return "yes"

    return asked, ask


def test_what_ended_with_the_engine_is_asked_again_after_growing_pauses():
    for code in sorted(ENDED):
        pauses: list[float] = []
        asked, ask = failing(code, code)
        assert asked_again(ask, pauses.append) == "yes"  # type: ignore[arg-type]
        assert len(asked) == 3 and tuple(pauses) == PAUSES_SECONDS == tuple(sorted(pauses))


def test_what_ends_the_engine_every_time_is_told():
    asked, ask = failing(*["engine_ended"] * 9)
    with pytest.raises(EngineError, match="ended"):
        asked_again(ask, lambda seconds: None)  # type: ignore[arg-type]
    assert len(asked) == 1 + len(PAUSES_SECONDS)


@pytest.mark.parametrize("code", ["engine_slow", "refused_key", "engine_broke_off", ""])
def test_what_would_fail_again_or_was_another_engines_is_not_asked_again(code: str):
    asked, ask = failing(code)
    with pytest.raises(EngineError):
        asked_again(ask, lambda seconds: pytest.fail("it waits"))  # type: ignore[arg-type]
    assert len(asked) == 1
