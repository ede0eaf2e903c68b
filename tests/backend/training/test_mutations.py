"""The tests of formulas, layouts and checkpoints are themselves tested: no known fault may pass them."""

from tests.mutations import SUITES, survivors

FEWEST = {
    "maths": 40,
    "tree": 15,
    "checkpoint": 25,
    "corruption": 20,
    "packing": 20,
    "llama": 20,
    "fused": 8,
    "joined": 11,
    "beside": 9,
    "stack": 18,
    "lbfgs": 12,
}


def test_no_known_fault_survives() -> None:
    assert {suite.name for suite in SUITES} == set(FEWEST)
    assert all(len(suite.faults) >= FEWEST[suite.name] for suite in SUITES)
    assert survivors() == []
