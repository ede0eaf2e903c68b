"""The tests of formulas, layouts and checkpoints are themselves tested: `make check`, which `make test` begins with, breaks the code in
every way that tests/mutations.py lists, and no fault may pass. Here: that the lists do not shrink."""

from backend.decoder import int8
from tests.mutations import SUITES

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
    "plain": 6,
    "stack": 18,
    "lbfgs": 12,
    "int8": 10,
}


def test_the_lists_of_faults_do_not_shrink() -> None:
    assert {suite.name for suite in SUITES} == set(FEWEST) - (set() if int8.is_there() else {"int8"})
    assert all(len(suite.faults) >= FEWEST[suite.name] for suite in SUITES)
