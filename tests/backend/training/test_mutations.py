"""The tests of the formulas, of tree rows and of checkpoints are themselves tested: no known fault may pass them."""

from tests.mutations import SUITES, survivors


def test_no_known_fault_survives() -> None:
    assert {suite.name: len(suite.faults) >= fewest for suite, fewest in zip(SUITES, (40, 15, 25), strict=True)} == {
        "maths": True,
        "tree": True,
        "checkpoint": True,
    }
    assert survivors() == []
