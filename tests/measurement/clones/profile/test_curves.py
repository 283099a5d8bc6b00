import json
import math

import numpy as np
import pytest
import torch

from layerpeel.measurement.clones.profile.curves import READINGS, CloneCurves, deviation
from tests.measurement.clones.layers import normal

nan = math.nan


def curves(full=0.1):
    def table(seed):
        values = normal(4, 5, seed=seed).abs()
        values[1, 2:] = nan
        values[3] = nan
        return values

    return CloneCurves(
        count=50,
        full_error=full,
        errors={name: table(i) for i, name in enumerate(READINGS)},
        r_squared={"all": table(5), "complement": table(6)},
        correlation={"all": table(7), "complement": table(8)},
        expected=normal(4, seed=9),
    )


@pytest.mark.parametrize("scope", ["all", "complement"])
def test_means_and_spreads_are_over_the_chunks_that_are_known(scope):
    value = curves()
    tables = {f"{name}_error": value.errors[name].numpy() for name in READINGS}
    tables["r_squared"] = value.r_squared[scope].numpy()
    tables["residual_correlation"] = value.correlation[scope].numpy()
    means, spreads = value.means(scope), value.spreads(scope)
    assert torch.equal(means.pop("expected_error"), value.expected)
    assert set(means) == set(spreads) == set(tables)
    for name, table in tables.items():
        for i in range(3):
            known = table[i][~np.isnan(table[i])]
            assert float(means[name][i]) == pytest.approx(known.mean())
            assert float(spreads[name][i]) == pytest.approx(known.std(ddof=1))
        assert math.isnan(means[name][3])
        assert math.isnan(spreads[name][3])


def test_a_deviation_takes_two_chunks():
    table = torch.tensor([[1.0, nan, nan], [2.0, 4.0, nan], [3.0, 3.0, 3.0]]).double()
    found = deviation(table).tolist()
    assert math.isnan(found[0])
    assert found[1:] == [pytest.approx(math.sqrt(2)), 0]
    assert deviation(normal(3, 1)).isnan().all()


def test_the_clone_score_is_what_refitting_gains():
    value = curves()
    expected = np.nanmean(value.raw[:3], 1) - np.nanmean(value.folded[:3], 1)
    assert value.clone_score[:3].tolist() == pytest.approx(expected.tolist())
    assert value.raw is value.errors["raw"]
    assert value.rescaled is value.errors["rescaled"]


def test_knows_whether_there_are_errors():
    assert curves().has_errors
    assert not curves(full=nan).has_errors


def test_is_a_dictionary_of_numbers_and_none():
    content = json.loads(json.dumps(curves(full=nan).to_dict(), allow_nan=False))
    assert content["full_error"] is None
    assert content["count"] == 50
    assert content["errors"]["raw"][3] == [None] * 5
    assert content["r_squared"]["all"][0] == curves().r_squared["all"][0].tolist()
    assert set(content) == {
        "count",
        "full_error",
        "errors",
        "expected_errors",
        "r_squared",
        "residual_correlation",
    }
