import pytest
import torch

from layerpeel.measurement.clones import draw_chunks
from layerpeel.measurement.tracking import Clones


def test_chunks_are_drawn_width_by_width_from_the_seed():
    grid = Clones([3, 1], repeats=4).grid(6, seed=5)
    g = torch.Generator().manual_seed(5)
    assert torch.equal(grid.chunks[1], draw_chunks(6, 1, 4, g))
    assert torch.equal(grid.chunks[3], draw_chunks(6, 3, 4, g))
    assert list(grid.widths) == [1, 3]
    other = Clones([1, 3], repeats=4).grid(6, seed=6)
    assert not torch.equal(grid.chunks[3], other.chunks[3])


@pytest.mark.parametrize(
    ("width", "widths"), [(44, [1, 2, 5, 11, 22]), (2, [1]), (1, [1])]
)
def test_dyadic_widths_are_below_that_of_the_layer(width, widths):
    assert list(Clones().grid(width, 0).widths) == widths


def test_shorthands():
    assert Clones.of([4, 2]) == Clones((2, 4))
    assert Clones.of("dyadic") == Clones()
    own = Clones([2], repeats=3, scope="all")
    assert Clones.of(own) is own
    assert own.to_dict() == {"widths": [2], "repeats": 3, "scope": "all"}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"widths": "every"}, "`widths` must be one of"),
        ({"widths": []}, "at least one width"),
        ({"widths": [2, 0]}, "`size` must be an integer >= 1"),
        ({"repeats": 0}, "`repeats`"),
        ({"scope": "some"}, "`scope` must be one of"),
    ],
)
def test_wrong_choices(arguments, match):
    with pytest.raises(ValueError, match=match):
        Clones(**arguments)


def test_a_chunk_wider_than_the_layer_is_none():
    with pytest.raises(ValueError, match="at most the 6 neurons"):
        Clones([2, 7]).grid(6, 0)
