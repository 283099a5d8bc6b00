import pytest

from layerpeel._figures import axes, style
from layerpeel.reports.picture import Picture


def drawing(calls=None):
    def draw():
        if calls is not None:
            calls.append(1)
        with style():
            fig, ax = axes()
            ax.plot([1, 2])
        return fig

    return draw


def test_a_picture_is_drawn_when_it_is_needed():
    calls = []
    picture = Picture("norms", "Norms", "caption", "alt", drawing(calls))
    picture.to_dict()
    assert not calls
    picture.svg()
    assert len(calls) == 1


def test_the_svg_is_named_and_described():
    svg = Picture("Class norms", "Norms", "", "they rise", drawing()).svg("r1-")
    assert 'aria-label="they rise"' in svg
    assert 'id="r1-class-norms-0"' in svg


def test_words_are_all_there_is_without_drawing():
    picture = Picture("norms", "Norms", "caption", "alt", drawing())
    expected = {"name": "norms", "title": "Norms", "caption": "caption", "alt": "alt"}
    assert picture.to_dict() == expected


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_picture_can_be_saved(suffix, tmp_path):
    path = Picture("n", "t", "c", "a", drawing()).save(tmp_path / f"norms{suffix}")
    assert path.stat().st_size > 1000
