from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
import torch

from layerpeel._checks import ShapeError
from layerpeel._figures import colour
from layerpeel.reports.pictures import class_mean_projection
from layerpeel.reports.pictures.projection import (
    _Box,
    _check_widths,
    _evenly_chosen,
    _free_box,
)
from tests.reports.samples import NAMES, Sample


def figure_of(sample, names=NAMES, minority=None, **changed):
    given = {
        "points": sample.points,
        "point_labels": sample.labels,
        "means": sample.means,
        "classifiers": sample.classifiers,
    } | changed
    minority = sample.minority if minority is None else minority
    return class_mean_projection(**given, labels=names, minority=minority)


def reference_plane(means):
    """The two leading eigenvectors of the covariance of the means, sign left open."""
    seen = means[~np.isnan(means).any(axis=1)]
    origin = seen.mean(axis=0)
    values, vectors = np.linalg.eigh((seen - origin).T @ (seen - origin))
    return origin, vectors[:, ::-1][:, :2], values[::-1]


def marks(ax, size):
    """Positions of all marks of a size, majority before minority."""
    lines = [line for line in ax.lines if line.get_markersize() == size]
    order = {colour("majority"): 0, colour("minority"): 1}
    lines.sort(key=lambda line: order[mpl.colors.to_hex(line.get_color())])
    return np.concatenate([line.get_xydata() for line in lines])


def arrow_tips(ax):
    return np.array([a.xy for a in ax.texts if a.get_text() == ""])


def signed(columns, reference):
    """Flip the sign of columns where it is the other one."""
    return columns * np.sign((columns * reference).sum(axis=0))


def test_means_and_points_are_where_the_covariance_says():
    sample = Sample(10, noise=0.2)
    (ax,) = figure_of(sample).axes
    origin, plane, _ = reference_plane(sample.means.numpy())
    expected = (sample.means.numpy() - origin) @ plane
    np.testing.assert_allclose(signed(marks(ax, 9), expected), expected, atol=1e-9)
    everything = (sample.points.numpy() - origin) @ plane
    order = np.argsort(sample.labels.numpy() >= 5, kind="stable")
    np.testing.assert_allclose(
        signed(marks(ax, 3.2), everything[order]), everything[order], atol=1e-9
    )


def test_classifiers_are_directions_of_one_scale():
    sample = Sample(10, noise=0.2)
    (ax,) = figure_of(sample).axes
    _, plane, _ = reference_plane(sample.means.numpy())
    directions = sample.classifiers.numpy() @ plane
    tips = signed(arrow_tips(ax), directions)
    factors = tips / directions
    np.testing.assert_allclose(factors, factors[0, 0])
    longest = np.linalg.norm(tips, axis=1).max()
    assert longest == pytest.approx(1.25 * np.linalg.norm(marks(ax, 9), axis=1).max())


def test_the_axes_say_how_much_is_seen():
    sample = Sample(10, noise=0.2)
    (ax,) = figure_of(sample).axes
    _, _, values = reference_plane(sample.means.numpy())
    shares = values / values.sum()
    assert ax.get_xlabel().endswith(f" {shares[0]:.0%}")
    assert ax.get_ylabel().endswith(f" {shares[1]:.0%}")
    assert ax.get_aspect() == 1


def test_everything_is_inside():
    (ax,) = figure_of(Sample(10)).axes
    content = np.concatenate([marks(ax, 9), marks(ax, 3.2), arrow_tips(ax)])
    assert (content > [ax.get_xlim()[0], ax.get_ylim()[0]]).all()
    assert (content < [ax.get_xlim()[1], ax.get_ylim()[1]]).all()


def test_classes_never_seen_are_left_out():
    sample = Sample(6)
    means = sample.means.clone()
    means[4] = torch.nan
    kept = sample.labels != 4
    (ax,) = figure_of(
        sample,
        list("abcdef"),
        means=means,
        points=sample.points[kept],
        point_labels=sample.labels[kept],
    ).axes
    assert np.isfinite(marks(ax, 9)).all(axis=1).sum() == 5
    assert [t.get_text() for t in ax.texts if t.get_text()] == list("abcdf")
    origin, plane, _ = reference_plane(means.numpy())
    expected = ((means.numpy() - origin) @ plane)[:3]
    np.testing.assert_allclose(signed(marks(ax, 9)[:3], expected), expected, atol=1e-9)


@pytest.mark.parametrize(("num_classes", "width"), [(1, 3), (2, 1), (2, 5), (3, 2)])
def test_fewer_than_two_directions_are_no_trouble(num_classes, width):
    random = torch.Generator().manual_seed(0)
    means = torch.randn(num_classes, width, generator=random, dtype=torch.float64)
    labels = torch.arange(num_classes).repeat(4)
    fig = class_mean_projection(
        means[labels], labels, means, means, list("abc")[:num_classes], ()
    )
    fig.canvas.draw()
    assert np.isfinite(marks(fig.axes[0], 9)).all()


def test_classifiers_of_length_zero_are_no_trouble():
    sample = Sample(4)
    fig = figure_of(
        sample, list("abcd"), classifiers=torch.zeros_like(sample.classifiers)
    )
    fig.canvas.draw()
    assert (arrow_tips(fig.axes[0]) == 0).all()


def test_many_classes_get_no_names_and_few_points():
    sample = Sample(300)
    (ax,) = figure_of(sample, [f"c{k}" for k in range(300)]).axes
    assert not [t for t in ax.texts if t.get_text()]
    assert len(arrow_tips(ax)) == 120
    assert len(marks(ax, 3.2)) == 600


@pytest.mark.parametrize("num_classes", [3, 10, 1000])
def test_points_are_spread_evenly_over_each_class(num_classes):
    labels = np.random.default_rng(0).integers(0, num_classes, 20_000)
    chosen = _evenly_chosen(labels, num_classes)
    most = max(1, 800 // num_classes)
    for k in range(min(num_classes, 10)):
        members = np.flatnonzero(labels == k).tolist()
        ranks = [members.index(i) for i in chosen if labels[i] == k]
        assert len(ranks) == min(most, len(members))
        gaps = np.diff(ranks)
        assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_a_class_without_points_is_no_trouble():
    assert _evenly_chosen(np.array([0, 0, 2]), 4).tolist() == [0, 1, 2]


def slow_overlap(a, b):
    wide = min(a.x + a.half_width, b.x + b.half_width) - max(
        a.x - a.half_width, b.x - b.half_width
    )
    high = min(a.y + a.half_height, b.y + b.half_height) - max(
        a.y - a.half_height, b.y - b.half_height
    )
    return max(wide, 0) * max(high, 0)


def test_overlap_is_the_common_area():
    random = np.random.default_rng(0)
    boxes = [
        _Box.around(*random.uniform(-10, 10, 2), *random.uniform(5, 15, 2))
        for _ in range(20)
    ]
    areas = [(a.overlap(b), slow_overlap(a, b)) for a, b in combinations(boxes, 2)]
    assert any(area for area, _ in areas)
    np.testing.assert_allclose(*zip(*areas, strict=True), atol=1e-12)


def test_names_avoid_marks_and_each_other():
    places = [(0, 0), (14, 3), (4, 14), (-9, -8), (12, -12), (80, 0), (84, 10)]
    taken = [_Box.around(x, y, 12, 12) for x, y in places]
    for x, y in places:
        taken.append(_free_box(x, y, 42, taken))
    assert not [
        pair
        for pair in combinations(taken[len(places) :], 2)
        if pair[0].overlap(pair[1])
    ]
    marks_covered = [
        name
        for name in taken[len(places) :]
        for mark in taken[: len(places)]
        if name.overlap(mark)
    ]
    assert not marks_covered


def test_names_of_other_classes_are_refused():
    with pytest.raises(
        ShapeError, match="`means` must have one entry for each of the 3"
    ):
        figure_of(Sample(4), list("abc"), ())


def test_widths_that_disagree_are_refused():
    # Where annotations are checked at run time, as in these tests, that says it first.
    points, labels = torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"same width.*\(5, 3\), \(2, 4\), \(2, 3\)"):
        _check_widths(points, labels, torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="4 labels"):
        _check_widths(points, labels[:4], torch.zeros(2, 3), torch.zeros(2, 3))
