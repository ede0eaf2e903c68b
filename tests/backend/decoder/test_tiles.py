"""Products of few rows are those of torch, and a row's bits are its own whatever tile it is in."""

from __future__ import annotations

import psutil
import pytest
import torch
from torch import Tensor

from backend.decoder import beside, joined, quick, stack
from backend.decoder.int8 import Rounded
from backend.decoder.joined import Weights
from backend.decoder.stack import Stack
from tests.backend.decoder.pair import with_adapter
from tests.backend.training import tiny, wired

DTYPES = [torch.float32, torch.bfloat16]
ROWS = [*range(1, 50), 56, 57]  # every tile, several of them, and every smaller last one

pytestmark = pytest.mark.skipif(quick.tiled() is None, reason="this processor has no registers of sixteen numbers")


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def near(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 8e-3, "atol": 1e-2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), [(20, 40), (64, 128), (7, 300), (1, 1)])
def test_a_product_is_torchs_and_no_row_feels_its_company(dtype: torch.dtype, inputs: int, outputs: int) -> None:
    weight, x, more = (
        drawn(*shape, dtype=dtype, seed=at)
        for at, shape in enumerate([(outputs, inputs), (ROWS[-1], inputs), (ROWS[-1], outputs)])
    )
    weights = joined.tiled(Weights(weight, None))
    whole = joined.product(x, weights)
    torch.testing.assert_close(whole.double(), x.double() @ weight.double().t(), **near(dtype))
    with_more = joined.product(x, weights, more)
    torch.testing.assert_close(with_more.double(), x.double() @ weight.double().t() + more.double(), **near(dtype))
    for rows in ROWS:
        assert torch.equal(joined.product(x[:rows], weights), whole[:rows]), rows
        assert torch.equal(joined.product(x[-rows:], weights, more[-rows:]), with_more[-rows:]), rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_is_added_to_every_row(dtype: torch.dtype) -> None:
    weight, bias, x, more = (
        drawn(40, 24, dtype=dtype),
        drawn(40, dtype=dtype),
        drawn(5, 24, dtype=dtype),
        drawn(5, 40, dtype=dtype),
    )
    weights = joined.tiled(Weights(weight, bias))
    expected = x.double() @ weight.double().t() + bias.double()
    torch.testing.assert_close(joined.product(x, weights).double(), expected, **near(dtype))
    torch.testing.assert_close(joined.product(x, weights, more).double(), expected + more.double(), **near(dtype))
    torch.testing.assert_close(joined.product(x.t().contiguous().t(), weights).double(), expected, **near(dtype))


def test_half_precision_is_rounded_to_the_nearest_and_ties_to_even() -> None:
    parts = torch.tensor([2**-8, 3 * 2**-8, 2**-8 + 2**-15, -(2**-9), 0.5, 0])  # of a step of 2**-7 above 1
    weight = torch.ones(16, 2, dtype=torch.bfloat16)
    weight[:, 1] = 0
    weight[:6, 1] = parts.bfloat16()
    expected = (1 + weight[:, 1].float()).bfloat16()
    assert expected[:2].tolist() == [1, 1 + 2**-6]
    found = joined.product(torch.ones(1, 2, dtype=torch.bfloat16), joined.tiled(Weights(weight, None)))
    assert torch.equal(found[0], expected)
    ones = joined.tiled(Weights(weight[:, :1].contiguous(), None))
    assert torch.equal(joined.product(torch.ones(1, 1, dtype=torch.bfloat16), ones, weight[None, :, 1])[0], expected)


def test_what_is_no_number_stays_in_its_row() -> None:
    x = drawn(17, 24)
    x[3, 5], x[16, 0] = torch.nan, torch.inf
    found = joined.product(x, joined.tiled(Weights(drawn(40, 24), None)))
    assert (~torch.isfinite(found)).any(1).nonzero().flatten().tolist() == [3, 16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_rows_of_an_adapter_are_given_what_each_is_given_alone(dtype: torch.dtype) -> None:
    a = drawn(3, 20, 48, dtype=dtype, seed=1)  # of two runs: one layer of 48 outputs, two of 16
    b, c = drawn(3, 1, 16, 48, dtype=dtype, seed=2), drawn(3, 2, 16, 16, dtype=dtype, seed=3)
    runs = [beside.Run(b, slice(0, 16), slice(0, 48)), beside.Run(c, slice(16, 48), slice(48, 80))]
    lora = beside.Adapted(a, runs, beside.places_of(runs))
    x, out = drawn(60, 20, dtype=dtype, seed=4), drawn(60, 80, dtype=dtype, seed=5)
    owners = [*[1] * 35, *[None] * 3, *[2] * 21, 0]
    loops = quick.loops_for(dtype, "cpu")
    assert loops is not None and loops.takes_spans([48, 16])
    found = added(out, x, lora, owners, loops)
    for row, owner in enumerate(owners):
        expected = out[row].double()
        if owner is not None:
            expected = with_adapter(out[row], x[row], a[owner], b[owner], c[owner])
        torch.testing.assert_close(
            found[row].double(), expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=2e-4
        )
    for rows in (slice(0, 1), slice(3, 30), slice(34, 60)):
        assert torch.equal(added(out[rows], x[rows], lora, owners[rows], loops), found[rows]), rows


def added(out: Tensor, x: Tensor, lora: beside.Adapted, owners: list[int | None], loops: quick.Loops) -> Tensor:
    found, spans = out.clone(), beside.spans_of(owners)
    assert spans is not None
    beside.add(found, x, lora, spans, loops)
    return found


def test_outputs_that_fill_no_blocks_are_left_to_products() -> None:
    loops = quick.loops_for(torch.float32, "cpu")
    assert loops is not None and loops.takes_spans([32]) and not loops.takes_spans([32, 24])
    torch.set_num_threads(2)
    assert not loops.takes_spans([32]), "a tile has one thread, and products have two"


def test_a_stack_takes_tiles_for_rows_that_are_written_and_for_what_is_wanted() -> None:
    for base in wired.bases():
        own = Stack(base.backbone, base.causal.get_output_embeddings())
        tokens = torch.tensor([5, 9, 4])
        plainly = [states_of(own, tokens, are_few) for are_few in (True, False)]
        own.tile()
        assert own._tiled is not None and own._tiled_head is not None
        tiled = [states_of(own, tokens, are_few) for are_few in (True, False)]
        for found, expected in zip(tiled, plainly, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        own._tiled = [
            [every._replace(packed=joined.tiled(every._replace(weight=0 * every.weight)).packed) for every in layer]
            for layer in own._tiled
        ]
        assert not torch.equal(states_of(own, tokens, True), tiled[0]), "they were not asked"
        assert not torch.equal(states_of(own, tokens, False), tiled[1]), "what is wanted is given few rows' products"


def test_prompts_are_read_by_tiles_too_but_in_half_precision() -> None:
    for dtype in DTYPES:
        causal = tiny.causal().to(dtype)  # one of its own: the others are shared
        own = Stack(causal.model, causal.get_output_embeddings())
        own.pack(16)
        packed = own._packed
        own.tile()
        assert own._tiled is not None and own._for_few is own._tiled
        if dtype == torch.float32:
            assert own._for_many is own._tiled
            assert own._packed is None and own._packed_head is None, "nobody asks for it any more"
        else:
            assert own._packed is packed and own._for_many is (packed or own._weights)


@torch.no_grad()
def states_of(own: Stack, tokens: Tensor, are_few: bool) -> Tensor:
    """Of texts of one token each, which see nothing; of those that are read the last one's alone."""

    def attend(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen = value if len(query) == len(value) else value[2:]
        return seen.repeat_interleave(query.shape[1] // key.shape[1], 1).flatten(1)

    wanted = None if are_few else torch.tensor([2])
    return own.read(tokens, torch.zeros(3, dtype=torch.long), own.adapters([]), None, attend, wanted, are_few=are_few)


def test_tiles_are_held_for_one_thread_and_where_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    base = wired.bases()[0]
    own = Stack(base.backbone, base.causal.get_output_embeddings())
    own.tile()
    assert own._tiled is not None
    torch.set_num_threads(2)
    own.tile()
    assert own._tiled is None and own._tiled_head is None, "a tile has one thread, and products would have two"
    torch.set_num_threads(1)
    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(stack.psutil, "virtual_memory", lambda: free)
    own.tile()
    assert own._tiled is None


def test_weights_of_8_bits_have_tiles_of_their_own_where_the_processor_multiplies_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = wired.bases()[0]
    own = Stack(base.backbone, base.causal.get_output_embeddings())
    own.pack(16, is_rounded=True)
    own.tile()
    assert own._packed is not None and isinstance(own._packed[0][0].packed, Rounded)
    assert own._tiled_head is not None and isinstance(own._tiled_head.packed, quick.Blocks), (
        "the head's are not rounded"
    )
    if quick.byte_tiled() is not None:
        assert own._tiled is not None and isinstance(own._tiled[1][2].packed, quick.ByteBlocks)
    monkeypatch.setattr(quick, "byte_tiled", lambda: None)
    own.tile()
    assert own._tiled is None and own._tiled_head is not None


def test_weights_that_half_precision_holds_take_half_the_bytes_and_give_the_same_bits() -> None:
    weight, x, more = drawn(300, 20).bfloat16().float(), drawn(ROWS[-1], 20, seed=1), drawn(ROWS[-1], 300, seed=2)
    found = joined.tiled(Weights(weight, None))
    assert isinstance(found.packed, quick.Blocks) and found.packed.numbers.dtype == torch.bfloat16
    whole = found._replace(packed=found.packed._replace(numbers=found.packed.numbers.float()))
    for rows in ROWS:
        assert torch.equal(joined.product(x[:rows], found, more[:rows]), joined.product(x[:rows], whole, more[:rows]))
    weight[299, 19] += 2**-20
    other = joined.tiled(Weights(weight, None))
    assert isinstance(other.packed, quick.Blocks) and other.packed.numbers.dtype == torch.float32
