import pytest
import torch

from layerpeel.measurement.clones import draw_chunks, dyadic_sizes
from layerpeel.measurement.clones.profile.protocol import Protocol
from tests.measurement.clones.layers import seeded


def protocol(widths="dyadic", repeats=3, scope="complement", generator=None):
    return Protocol.of(widths, repeats, scope, generator, paper=False, progress=False)


@pytest.mark.parametrize("width", [1, 2, 44, 64])
def test_chunks_of_dyadic_widths_are_drawn_in_order(width):
    grid = protocol().grid(width)
    generator = seeded()
    assert tuple(grid.widths) == dyadic_sizes(width) == tuple(grid.chunks)
    for w in dyadic_sizes(width):
        assert torch.equal(grid.chunks[w], draw_chunks(width, w, 3, generator))
    assert grid.orders is None
    assert grid.repeats == 3


def test_all_widths_have_orders_beside_the_dyadic_chunks():
    grid = protocol("all").grid(6)
    assert tuple(grid.widths) == (1, 2, 3, 4, 5, 6)
    assert tuple(grid.chunks) == (1, 3, 6)
    assert grid.orders.sort(1).values.tolist() == [list(range(6))] * 3


@pytest.mark.parametrize("widths", [[5, 2, 2, 3], (3, 5, 2), range(2, 6)])
def test_widths_of_a_list_are_sorted_and_distinct(widths):
    grid = protocol(widths).grid(7)
    assert list(grid.widths) == sorted(set(widths))
    assert all(type(w) is int for w in grid.widths)
    assert {len(chunk) for chunk in grid.chunks.values()} == {3}


def test_the_given_generator_is_used_and_none_is_seed_zero():
    chunks = [
        protocol("all", generator=generator).grid(16)
        for generator in (None, seeded(0), seeded(1))
    ]
    assert torch.equal(chunks[0].chunks[8], chunks[1].chunks[8])
    assert torch.equal(chunks[0].orders, chunks[1].orders)
    assert not torch.equal(chunks[1].chunks[8], chunks[2].chunks[8])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"widths": "al"}, "`widths` must be one of 'dyadic', 'all'; got 'al'"),
        ({"scope": "inside"}, "`scope` must be one of 'all', 'complement'"),
        ({"repeats": 0}, "`repeats` must be an integer >= 1; got 0"),
    ],
)
def test_refuses(changed, message):
    with pytest.raises(ValueError, match=message):
        protocol(**changed)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([8], "at most the 7 neurons of the layer; got 8"),
        ([3, 0], ">= 1; got 0"),
        ([], "`widths` must hold at least one width"),
    ],
)
def test_refuses_widths_that_no_chunk_has(widths, message):
    with pytest.raises(ValueError, match=message):
        protocol(widths).grid(7)
