import pytest
import torch

from layerpeel._checks import UndefinedWarning
from layerpeel.measurement import ClassMoments, measure_features
from layerpeel.measurement.layers.observer import LayerObserver
from layerpeel.measurement.tracking.scalars import (
    MEASURED_SCALARS,
    MOMENT_SCALARS,
    layer_scalars,
    measured_functions,
    moment_scalars,
    running_names,
    saying_once,
)


def measured(**kwargs):
    g = torch.Generator().manual_seed(0)
    y = torch.repeat_interleave(torch.arange(4), torch.tensor([20, 18, 3, 2]))
    h = 2 * torch.eye(4, 6)[y] + 0.4 * torch.randn(43, 6, generator=g)
    weight = torch.eye(4, 6) + 0.1 * torch.randn(4, 6, generator=g)
    return measure_features(
        h, y, weight=weight, eval_features=h, eval_labels=y, **kwargs
    )


def expected(m):
    means, classifiers = m.nc2_means(), m.nc2_classifiers()
    parts = ("equinorm", "equiangularity", "angle", "gram")
    return {
        "nc1": m.nc1(),
        "nc1_quotient": m.nc1_quotient(),
        "cdnv": m.cdnv(),
        **{f"nc2_means_{part}": getattr(means, part) for part in parts},
        **{f"nc2_classifiers_{part}": getattr(classifiers, part) for part in parts},
        "nc3": m.nc3(),
        "nc4": m.nc4(),
        "loss": m.loss,
        "accuracy": m.accuracy,
        "majority_accuracy": m.majority_accuracy,
        "minority_accuracy": m.minority_accuracy,
        "majority_cosine": m.majority_cosine,
        "minority_cosine": m.minority_cosine,
        "energy_w": m.energy()[0],
        "energy_h": m.energy()[1],
        "eval_accuracy": m.eval_accuracy,
        "eval_majority_accuracy": m.eval_majority_accuracy,
        "eval_minority_accuracy": m.eval_minority_accuracy,
    }


def test_every_name_is_the_measurements_own_default():
    m = measured()
    functions = measured_functions(MEASURED_SCALARS, evaluated=True)
    got = {name: function(m) for name, function in functions.items()}
    assert got == pytest.approx(expected(m), rel=1e-12)
    assert len(set(got.values())) > 15  # names do not share one number


def test_moments_tell_the_same():
    m = measured()
    got = moment_scalars(m.moments, m.weight)
    assert tuple(got) == MOMENT_SCALARS
    assert got == pytest.approx({n: expected(m)[n] for n in got}, rel=1e-12)
    alone = moment_scalars(m.moments, None)
    assert set(alone) == {n for n in got if "classifiers" not in n and n != "nc3"}


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: measured_functions(["nc9"], evaluated=True), "nc9"),
        (lambda: measured_functions(["eval_accuracy"], evaluated=False), "eval_loader"),
        (lambda: running_names(["nc4"]), "'nc4' is not told by running"),
        (lambda: running_names(["ncx"]), "must be one of"),
        (lambda: moment_scalars(measured().moments, None, ["nc3"]), "Pass `weight`"),
    ],
)
def test_unknown_names(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_light_moments_have_no_nc1():
    moments = ClassMoments.of(torch.eye(3), torch.arange(3), 3, light=True)
    with pytest.warns(UndefinedWarning, match="light mode"):
        value = moment_scalars(moments, None, ["nc1"])["nc1"]
    assert value != value


def test_what_is_undefined_says_so_once():
    m, told = measured(), set()
    balanced = ClassMoments.of(torch.ones(4, 2), torch.arange(4) % 2, 2)

    def undefined():
        return moment_scalars(balanced, None, ["cdnv"])

    with pytest.warns(UndefinedWarning, match="CDNV"):
        saying_once(undefined, told)
    saying_once(undefined, told)  # warnings are errors here
    assert saying_once(lambda: m.accuracy, told) == m.accuracy


def test_layers_are_named_by_path_and_metric():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    observer = LayerObserver(model, num_classes=2)
    g = torch.Generator().manual_seed(0)
    with observer:
        model(torch.randn(12, 4, generator=g))
    observer.fold(torch.arange(12) % 2)
    profile = observer.value()
    got = layer_scalars(profile)
    names = ("nc1_quotient", "cdnv", "numerical_rank")
    assert set(got) == {f"{path}/{name}" for path in ("0", "1") for name in names}
    assert got["1/cdnv"] == float(profile.cdnv()[1])
    assert got["0/numerical_rank"] == 4.0
