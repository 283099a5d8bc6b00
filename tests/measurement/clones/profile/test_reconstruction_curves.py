import pytest
import torch
from sklearn.linear_model import LinearRegression

from layerpeel.measurement.clones import draw_chunks
from layerpeel.measurement.clones.profile.reconstruction_curves import (
    Grid,
    reconstruction_curves,
)
from layerpeel.measurement.statistics.covariance import Covariance
from tests.measurement.clones import slow
from tests.measurement.clones.layers import correlated, normal, seeded


def grid(width=8, widths=(2, 5), repeats=3, *, every=False):
    generator = seeded()
    chunks = {w: draw_chunks(width, w, repeats, generator) for w in widths}
    if not every:
        return Grid(widths, chunks, repeats)
    orders = torch.stack(
        [torch.randperm(width, generator=generator) for _ in range(repeats)]
    )
    return Grid(tuple(range(1, width + 1)), chunks, repeats, orders)


def test_a_grid_knows_where_its_chunks_stand():
    assert grid().rows() == {2: 0, 5: 1}
    assert grid(every=True).rows() == {2: 1, 5: 4}
    table = grid(every=True).table()
    assert (tuple(table.shape), bool(table.isnan().all())) == ((8, 3), True)


@pytest.mark.parametrize("every", [False, True])
def test_scores_are_those_of_regressions_on_both_data(every):
    h, other = correlated(70, 8), correlated(50, 8, seed=7) + 0.3
    plan = grid(every=every)
    found = reconstruction_curves(plan, Covariance.of(h), Covariance.of(other))
    for curves, rows in ((found.fitted, h), (found.held_out, other)):
        for i, w in enumerate(plan.widths):
            if w == 8:
                continue
            for j in range(3):
                own = w in plan.chunks
                chunk = plan.chunks[w][j] if own else plan.orders[j][:w]
                given = h.numpy(), rows.numpy(), chunk.numpy()
                for scope in ("all", "complement"):
                    at = float(curves.r_squared[scope][i, j])
                    assert at == pytest.approx(slow.r_squared(*given, scope), rel=1e-6)
                    missed = float(curves.correlation[scope][i, j])
                    expected = slow.residual_correlation(*given, scope)
                    assert missed == pytest.approx(
                        expected if own else float("nan"), rel=1e-6, nan_ok=True
                    )


def test_folded_classifiers_read_the_reconstruction():
    h, weight, bias = correlated(70, 8), normal(3, 8, seed=1), normal(3, seed=2)
    plan = grid(widths=(2, 5, 8))
    found = reconstruction_curves(plan, Covariance.of(h), None, (weight, bias))
    assert set(found.folded) == {2, 5}
    for w, readers in found.folded.items():
        assert torch.equal(readers.chunks, plan.chunks[w])
        for j, chunk in enumerate(plan.chunks[w]):
            back = torch.from_numpy(
                LinearRegression().fit(h[:, chunk], h).predict(h[:, chunk])
            )
            logits = h[:, chunk] @ readers.weight[j].T + readers.bias[j]
            torch.testing.assert_close(logits, back @ weight.T + bias)


@pytest.mark.parametrize("constant", [False, True])
def test_the_whole_layer_is_itself_unless_there_is_nothing_of_it(constant):
    h = torch.ones(20, 4) if constant else normal(20, 4)
    found = reconstruction_curves(grid(4, (4,)), Covariance.of(h)).fitted
    whole = found.r_squared["all"][0]
    assert bool(whole.isnan().all()) if constant else whole.tolist() == [1.0] * 3
    assert found.correlation["all"].tolist() == [[0.0] * 3]
    assert bool(found.r_squared["complement"].isnan().all())


def test_nothing_is_folded_and_nothing_held_out_unless_asked():
    found = reconstruction_curves(grid(), Covariance.of(correlated(70, 8)))
    assert found.held_out is None
    assert found.folded == {}


def test_what_is_undefined_for_single_chunks_is_no_warning():
    h = torch.zeros(20, 8)
    h[:, 0] = torch.arange(20.0)
    found = reconstruction_curves(grid(), Covariance.of(h)).fitted
    assert bool(found.correlation["complement"].isnan().all())
