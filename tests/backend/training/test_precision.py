"""The precision of a base is what the settings say, and where they leave it open, fast for large bases only."""

from pathlib import Path

import pytest

from backend.training import precision
from tests.backend.training import tiny


def test_a_precision_that_was_asked_for_is_taken(tmp_path: Path) -> None:
    for wanted in ("float32", "bfloat16"):
        assert precision.chosen(tmp_path / "never read", wanted) == wanted


@pytest.mark.parametrize(
    ("is_able", "largest", "found"), [(True, 100, "bfloat16"), (True, 10**9, "float32"), (False, 100, "float32")]
)
def test_auto_is_bfloat16_for_a_large_base_on_a_machine_that_multiplies_it(
    is_able: bool, largest: int, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.folder(tmp_path / "base")
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: is_able)
    monkeypatch.setattr(precision, "LARGE", largest)
    assert precision.chosen(folder, "auto") == found


def test_the_weights_of_a_base_are_counted_from_its_files(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "base")
    assert precision.weights_in(folder) == sum(weight.numel() for weight in tiny.causal().parameters())
