import numpy as np
import pytest

from layerpeel.cli.problems import (
    MOST_CLASSES,
    parse_bias,
    parse_counts,
    parse_numbers,
    typed_problem,
)
from layerpeel.program import CrossEntropy, Decay, Energy, PeeledProblem

TYPED = {
    "energy": None,
    "weight_decay": None,
    "per": None,
    "loss": "cross_entropy",
    "smoothing": 0.0,
    "bias": "none",
    "features": "free",
    "width": None,
}


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("5000x2,50x3", [5000] * 2 + [50] * 3),
        ("7", [7]),
        (" 7 , 8 ", [7, 8]),
        ("1e4x2,2.5", [1e4, 1e4, 2.5]),
        ("3 x 2", [3, 3]),
        ("3X2,3×1,3*1", [3] * 4),
        ("exp:8:1:4,6x2", [8, 4, 2, 1, 6, 6]),
        ("exp:5:1280:2", [5, 1280]),
    ],
)
def test_counts_are_read(text, counts):
    assert parse_counts(text) == pytest.approx(counts, rel=1e-14)


def test_a_tail_is_geometric_with_exact_ends():
    tail = parse_counts("exp:1280:5:100")
    assert (tail[0], tail[-1], len(tail)) == (1280.0, 5.0, 100)
    np.testing.assert_allclose(tail, np.geomspace(1280, 5, 100), rtol=1e-13)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no count"),
        ("5,,6", "'' is no count"),
        ("cat", "'cat' is no count. Counts are typed as 5000x5,50x5"),
        ("5x", "is no count"),
        ("x5", "is no count"),
        ("5x2.5", "is no count"),
        ("5x0", "is no class"),
        ("exp:5:1", "is no exponential tail"),
        ("exp:5:1:many", "is no exponential tail"),
        ("exp:5:a:3", "is no count"),
        ("exp:5:1:1", "at least 2 classes"),
        ("exp:5:0:3", "finite counts above 0"),
        ("exp:inf:1:3", "finite counts above 0"),
        (f"5x{MOST_CLASSES + 1}", f"at most {MOST_CLASSES} classes"),
        ("5x999999999999", f"at most {MOST_CLASSES} classes"),
        (f"exp:5:1:{MOST_CLASSES + 1}", f"at most {MOST_CLASSES} classes"),
        (f"5x{MOST_CLASSES},1", f"at most {MOST_CLASSES} classes"),
    ],
)
def test_other_counts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_counts(text)


def test_numbers_and_bias_are_read():
    assert parse_numbers("--energy", "1, 5e-1") == (1.0, 0.5)
    assert [parse_bias(text) for text in ("none", "free", "0.5")] == [None, "free", 0.5]
    with pytest.raises(ValueError, match="--energy must be numbers between commas"):
        parse_numbers("--energy", "1;5")
    with pytest.raises(ValueError, match="--bias must be none, free, or the ridge"):
        parse_bias("some")


PROBLEMS = [
    ({"energy": "1,5"}, {"energy": (1, 5)}),
    ({"energy": "1,5", "per": "sample"}, {"energy": Energy(1, 5, "sample")}),
    ({"weight_decay": "1e-3,2e-3"}, {"weight_decay": (1e-3, 2e-3)}),
    (
        {"weight_decay": "1e-3,2e-3,3e-3", "per": "class", "loss": "mse"},
        {"weight_decay": Decay(1e-3, 2e-3, features=3e-3, per="class"), "loss": "mse"},
    ),
    (
        {"energy": "1,5", "smoothing": 0.1, "bias": "free", "width": 3},
        {
            "energy": (1, 5),
            "loss": CrossEntropy(smoothing=0.1),
            "bias": "free",
            "width": 3,
        },
    ),
    (
        {"energy": "1,5", "features": "nonnegative", "bias": "0.5"},
        {"energy": (1, 5), "features": "nonnegative", "bias": 0.5},
    ),
]


@pytest.mark.parametrize(("typed", "keywords"), PROBLEMS)
def test_options_become_a_problem(typed, keywords):
    assert typed_problem("9x2,4", **(TYPED | typed)) == PeeledProblem(
        [9, 9, 4], **keywords
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({}, "either --energy or --weight-decay; got neither"),
        ({"energy": "1,5", "weight_decay": "1,1"}, "got both"),
        ({"energy": "1"}, "must be an `Energy` or a pair"),
        ({"energy": "1,-5"}, "energy.features"),
        ({"weight_decay": "1e-3"}, "at least two decays"),
        ({"energy": "1,5", "loss": "mse", "smoothing": 0.1}, "--smoothing goes with"),
        ({"energy": "1,5", "smoothing": 1.0}, "smoothing"),
        ({"energy": "1,5", "loss": "crossentropy"}, "Did you mean 'cross_entropy'"),
        ({"energy": "1,5", "features": "relu"}, "`--features` must be one of"),
        ({"energy": "1,5", "per": "batch"}, "`--per` must be one of"),
        ({"energy": "1,5", "bias": "-1"}, "bias"),
    ],
)
def test_what_does_not_fit_together_is_refused(typed, message):
    with pytest.raises(ValueError, match=message):
        typed_problem("9x2,4", **(TYPED | typed))
