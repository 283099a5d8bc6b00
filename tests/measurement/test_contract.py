import copy
import importlib
import itertools
import json
import pickle
import pkgutil
from dataclasses import fields, replace
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
from torch import Tensor

import layerpeel.measurement
from layerpeel._checks import MergeError
from layerpeel.measurement.clones import GaussianCurve
from layerpeel.measurement.layers.layer_statistics import LayerStatistics
from layerpeel.measurement.layers.observer import LayerObserver
from layerpeel.measurement.layers.profile import LayerProfile
from layerpeel.measurement.statistics.affine_fit import AffineFit
from layerpeel.measurement.statistics.confusion import Confusion
from layerpeel.measurement.statistics.covariance import Covariance
from layerpeel.measurement.statistics.loss import LossSum
from layerpeel.measurement.statistics.margins import Margins
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.nearest_mean import Decisions, NearestMean
from layerpeel.measurement.statistics.patterns import UnitPatterns
from layerpeel.measurement.statistics.right_decisions import RightDecisions
from layerpeel.measurement.statistics.row_statistics import RowStatistics
from layerpeel.measurement.statistics.sample import FeatureSample
from layerpeel.measurement.statistics.statistic import Statistic
from layerpeel.measurement.statistics.units import UnitRange


class Rows(NamedTuple):
    h: Tensor
    y: Tensor
    z: Tensor


def rows(seed, n, K, d):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, K, (n,), generator=g)
    h = torch.randn(n, d, generator=g) + 100 + y[:, None]
    return Rows(h, y, torch.randn(n, K, generator=g))


def each(build):
    return lambda parts, K: [build(part, K) for part in parts]


def nearest(light=False, apart=False):
    def build(parts, K):
        h, y, _ = (torch.cat(column) for column in zip(*parts, strict=True))
        of = lambda h, y: ClassMoments.of(h, y, K, light=light)  # noqa: E731
        return [
            NearestMean.of(
                [Decisions(p.h, p.y, p.z.argmax(1))],
                of(p.h, p.y) if apart else of(h, y),
            )
            for p in parts
        ]

    return build


def profile(part, K):
    g = torch.Generator().manual_seed(9)
    d = part.h.shape[1]
    model = torch.nn.Sequential(torch.nn.Linear(d, d), torch.nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(d, d, generator=g))
    observer = LayerObserver(model, num_classes=K)
    with observer, torch.no_grad():
        model(part.h - 101)
    observer.fold(part.y)
    return observer.value()


def curve(part, K):
    width = part.h.shape[1]
    weight = torch.randn(K, width, generator=torch.Generator().manual_seed(9)).double()
    sizes = range(1, width)
    return GaussianCurve.of(part.h - 101, part.y, weight, None, sizes, points=8)


# How to build values of some data, and of none, by class and kind.
MAKERS = {
    (ClassMoments, ""): (
        each(lambda p, K: ClassMoments.of(p.h, p.y, K)),
        ClassMoments.empty,
    ),
    (ClassMoments, "light"): (
        each(lambda p, K: ClassMoments.of(p.h, p.y, K, light=True)),
        lambda K, d: ClassMoments.empty(K, d, light=True),
    ),
    (Confusion, ""): (
        each(lambda p, K: Confusion.of(p.y, p.z.argmax(1), K)),
        lambda K, d: Confusion.empty(K),
    ),
    (RightDecisions, ""): (
        each(lambda p, K: RightDecisions.of(p.y, p.z.argmax(1), K)),
        lambda K, d: RightDecisions.empty(K),
    ),
    (LossSum, ""): (
        each(lambda p, K: LossSum.of(p.z[:, 0])),
        lambda K, d: LossSum.empty(),
    ),
    (Margins, ""): (
        each(lambda p, K: Margins.of(p.z, p.y)),
        lambda K, d: Margins.empty(K),
    ),
    (UnitRange, ""): (
        each(lambda p, K: UnitRange.of(p.h)),
        lambda K, d: UnitRange.empty(d),
    ),
    (FeatureSample, ""): (
        each(lambda p, K: FeatureSample.of(p.h, p.y, K)),
        FeatureSample.empty,
    ),
    (RowStatistics, ""): (
        each(lambda p, K: RowStatistics.of(p.h, p.y, p.z)),
        RowStatistics.empty,
    ),
    (RowStatistics, "light"): (
        each(lambda p, K: RowStatistics.of(p.h, p.y, p.z, light=True)),
        lambda K, d: RowStatistics.empty(K, d, light=True),
    ),
    (NearestMean, "of all data"): (nearest(), lambda K, d: NearestMean.empty(K)),
    (NearestMean, "light"): (nearest(light=True), lambda K, d: NearestMean.empty(K)),
    (NearestMean, "of parts"): (nearest(apart=True), lambda K, d: NearestMean.empty(K)),
    (UnitPatterns, ""): (
        each(lambda p, K: UnitPatterns.of(p.h - 101)),
        lambda K, d: UnitPatterns.empty(d),
    ),
    (AffineFit, ""): (
        each(lambda p, K: AffineFit.of(p.h, p.h.relu())),
        lambda K, d: AffineFit.empty(d),
    ),
    (Covariance, ""): (
        each(lambda p, K: Covariance.of(p.h)),
        lambda K, d: Covariance.empty(d),
    ),
    (GaussianCurve, ""): (
        each(curve),
        lambda K, d: GaussianCurve.empty(range(1, d)),
    ),
    (LayerProfile, ""): (each(profile), lambda K, d: LayerProfile.empty()),
    (LayerStatistics, ""): (
        each(lambda p, K: profile(p, K).layers[1]),
        lambda K, d: LayerStatistics.empty(K, d, kind="ReLU", fit=True),
    ),
}
SIZELESS = {LossSum}  # one number, whatever the sizes are
ORDERED = {FeatureSample, RowStatistics}  # a sample is in the order seen


def discovered():
    package = layerpeel.measurement
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    found, waiting = set(), [Statistic]
    while waiting:
        known = waiting.pop().__subclasses__()
        waiting += known
        found |= set(known)
    return {
        cls
        for cls in found
        if cls.__module__.startswith(package.__name__)
        and not cls.__name__.startswith("_")
    }


def test_every_public_statistic_is_here():
    assert discovered() == {cls for cls, _ in MAKERS}


def cases():
    return [
        pytest.param(*key, id=f"{key[0].__name__} {key[1]}".strip()) for key in MAKERS
    ]


everyone = pytest.mark.parametrize(("cls", "kind"), cases())


def made(cls, kind, sizes=(40, 7, 23), K=4, d=5):
    build, _ = MAKERS[cls, kind]
    return build([rows(seed, n, K, d) for seed, n in enumerate(sizes)], K)


def assert_same(one, other, rtol=1e-11, atol=1e-11, ordered=True):
    a, b = one.parts(), other.parts()
    assert a.keys() == b.keys()
    for name in a:
        if not isinstance(a[name], Tensor):
            assert a[name] == b[name], name
        elif ordered or name.split(".")[-1] not in FeatureSample.growing:
            message = lambda m, name=name: f"{name}: {m}"  # noqa: E731
            torch.testing.assert_close(
                a[name], b[name], rtol=rtol, atol=atol, equal_nan=True, msg=message
            )
        else:
            assert sorted(a[name].tolist()) == sorted(b[name].tolist()), name


def test_comparison_can_fail():
    a, b, _ = made(ClassMoments, "")
    with pytest.raises(AssertionError, match="count"):
        assert_same(a, b)


@everyone
def test_merge_is_associative(cls, kind):
    a, b, c = made(cls, kind)
    assert_same(a.merge(b).merge(c), a.merge(b.merge(c)), atol=1e-9)


@everyone
def test_merge_is_commutative(cls, kind):
    a, b, c = made(cls, kind)
    whole = a.merge(b).merge(c)
    for x, y, z in itertools.permutations((a, b, c)):
        assert_same(x.merge(y).merge(z), whole, atol=1e-9, ordered=cls not in ORDERED)


@everyone
def test_empty_is_neutral(cls, kind):
    empty = MAKERS[cls, kind][1](4, 5)
    for value in (made(cls, kind)[0], empty):
        assert_same(value.merge(empty), value, rtol=0, atol=0)
        assert_same(empty.merge(value), value, rtol=0, atol=0)


@everyone
def test_merging_leaves_both_alone(cls, kind):
    a, b, _ = made(cls, kind)
    before = copy.deepcopy(a), copy.deepcopy(b)
    a.merge(b)
    assert_same(a, before[0], rtol=0, atol=0)
    assert_same(b, before[1], rtol=0, atol=0)


@everyone
def test_numbers_are_float64_or_int64_and_follow_the_device(cls, kind):
    value = made(cls, kind)[0].merge(made(cls, kind)[1])
    for name, part in value.parts().items():
        if isinstance(part, Tensor):
            picture = name.split(".")[-1] == "features"
            exact = {torch.float32} if picture else {torch.float64, torch.int64}
            assert part.dtype in exact | {torch.bool}, name
            assert not part.requires_grad
    moved = value.to("meta").parts().values()
    assert {p.device.type for p in moved if isinstance(p, Tensor)} == {"meta"}
    assert_same(value.to("cpu"), value, rtol=0, atol=0)


@everyone
def test_parts_come_back_through_a_file(cls, kind, tmp_path):
    for value in made(cls, kind):
        parts = value.parts()
        tensors = {n: p.contiguous() for n, p in parts.items() if isinstance(p, Tensor)}
        settings = {n: p for n, p in parts.items() if not isinstance(p, Tensor)}
        file = tmp_path / "value.safetensors"
        safetensors.torch.save_file(tensors, file, {"settings": json.dumps(settings)})
        with safetensors.safe_open(file, "pt") as read:
            loaded = {name: read.get_tensor(name) for name in read.keys()}  # noqa: SIM118
            loaded |= json.loads(read.metadata()["settings"])
        again = cls.from_parts({name: loaded[name] for name in parts})
        assert type(again) is cls
        assert_same(again, value, rtol=0, atol=0)
        # Sums in another layout of memory round differently.
        assert_same(again.merge(again), value.merge(value), atol=1e-9)


@everyone
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda v: pickle.loads(pickle.dumps(v))],  # noqa: S301
    ids=["deepcopy", "copy", "pickle"],
)
def test_copies_are_equal(cls, kind, copied):
    value = made(cls, kind)[0]
    assert_same(copied(value), value, rtol=0, atol=0)


@everyone
def test_other_sizes_do_not_merge(cls, kind):
    if cls in SIZELESS:
        pytest.skip("it has no size")
    value = made(cls, kind)[0]
    others = [made(cls, kind, K=3)[0], made(cls, kind, d=6)[0]]
    different = [v for v in others if shapes(v) != shapes(value)]
    assert different
    for other in different:
        with pytest.raises(MergeError, match="agree in"):
            value.merge(other)


def shapes(value):
    growing = FeatureSample.growing
    return {
        name: tuple(part.shape)[1:] if name.split(".")[-1] in growing else part.shape
        for name, part in value.parts().items()
        if isinstance(part, Tensor)
    }


@everyone
def test_other_kinds_do_not_merge(cls, kind):
    value = made(cls, kind)[0]
    other = made(UnitRange if cls is not UnitRange else LossSum, "")[0]
    with pytest.raises(MergeError, match="merges with another one"):
        value.merge(other)


@everyone
def test_other_settings_do_not_merge(cls, kind):
    value = made(cls, kind)[0]
    for field in fields(cls):
        setting = getattr(value, field.name)
        if field.name not in cls.growing and isinstance(setting, str | int):
            changed = "another" if isinstance(setting, str) else setting + 1
            with pytest.raises(MergeError, match=field.name):
                value.merge(replace(value, **{field.name: changed}))


@pytest.mark.parametrize("cls", [ClassMoments, RowStatistics])
def test_light_and_full_do_not_merge(cls):
    with pytest.raises(MergeError, match=r"`(scatter|confusion)`"):
        made(cls, "light")[0].merge(made(cls, "")[0])
