"""The tests of the formulas are themselves tested: no known fault may pass them."""

from tests.mutations import FAULTS, survivors


def test_no_fault_in_the_formulas_survives() -> None:
    assert len(FAULTS) >= 40
    assert survivors() == []
