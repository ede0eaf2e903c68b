"""Prompts are read in products of which none has few rows, an adapter's side by side."""

from __future__ import annotations

import pytest
import torch

from backend.decoder import beside
from backend.decoder.stack import Stack
from backend.engines.local.prefixes import Prefixes
from backend.engines.local.prepared import Prepared
from backend.engines.local.prompts import Fewest, Prompt, Reader
from backend.engines.local.rooms import Rooms
from tests.backend.training import wired

FEWEST = Fewest(written=5, read=4)


@torch.no_grad()
def test_no_adapters_rows_and_no_last_tokens_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    base = wired.bases()[0]
    stack = Stack(base.backbone, base.causal.get_output_embeddings())
    reader = Reader(stack, Rooms(stack), Prefixes(10**6), Prepared(), FEWEST)
    spans: list[beside.Spans] = []
    spans_of = beside.spans_of
    monkeypatch.setattr(beside, "spans_of", lambda owners: (spans.append(found := spans_of(owners)), found)[1])
    own, other = Prompt([5, 6], "policy", "policy"), Prompt([7], "second", "second")
    begun = reader.begin([own, other, own._replace(tokens=[8, 9])])
    assert [rows.stop - rows.start for _, rows in spans[0].of] == [4, FEWEST.read], "one product for each adapter"
    assert len(begun.states) == FEWEST.written
    assert begun.rows == [0, 2, 1], "each has its own state, in whatever order they were read"
    for prompt, row in zip([own, other], begun.rows, strict=False):
        alone = reader.begin([prompt])
        assert len(alone.states) == FEWEST.written
        torch.testing.assert_close(alone.states[0], begun.states[row], rtol=1e-4, atol=1e-5)
