import pytest
import torch

from layerpeel._checks import NonFiniteError, ShapeError
from layerpeel.measurement.clones.errors.decisions import count_wrong
from layerpeel.measurement.clones.layer.array_data import array_data
from layerpeel.measurement.clones.layer.layer_data import (
    Consumer,
    CovarianceStream,
    LayerSource,
    check_finite_consumer,
    same_layer,
)
from tests.measurement.clones.layers import correlated, normal


def head(classes=3, width=9):
    return normal(classes, width, seed=5), normal(classes, seed=6)


def labels(n=80, classes=3):
    return torch.arange(n) % classes


def test_wrong_decisions_are_counted_as_argmax_decides():
    h, y, (v, b) = correlated(), labels(), head()
    data = array_data(h, y, weight=v, bias=b, batch_size=7)
    edits = {
        None: h,
        torch.zeros_like: torch.zeros_like(h),
        (lambda x: x * torch.tensor([1, 0, 0] * 3)): h * torch.tensor([1, 0, 0] * 3),
    }
    for edit, edited in edits.items():
        expected = sum(
            int(max(range(3), key=lambda k: (float(z[k]), -k)) != t)
            for z, t in zip(edited @ v.T + b, y.tolist(), strict=True)
        )
        assert data.wrong(edit) == expected


def test_a_single_logit_decides_by_its_sign():
    logits = torch.tensor([[2.0], [-1.0], [0.0], [0.0], [3.0]])
    assert count_wrong(logits, torch.tensor([1, 0, 0, 1, 0])) == 3
    h = normal(30, 4)
    data = array_data(h, (h[:, 0] > 0).long(), weight=torch.eye(4)[:1])
    assert (data.num_classes, data.wrong(), data.wrong(torch.neg)) == (2, 0, 30)
    assert count_wrong(torch.zeros(3, 2), torch.tensor([0, 1, 1])) == 2


def test_an_edit_must_keep_the_shape():
    data = array_data(correlated(), labels(), weight=head()[0])
    with pytest.raises(ShapeError, match=r"`edit` must keep.*\(80, 9\).*\(80, 3\)"):
        data.wrong(lambda h: h[:, :3])


@pytest.mark.parametrize("rows", [1, 3, 80])
def test_covariance_of_a_stream_is_that_of_all_rows(rows):
    h = correlated() + 1e6
    stream = CovarianceStream(9)
    for part in h.split(rows):
        stream.add(part)
        stream.add(part[:0])
    value = stream.value()
    assert int(value.count) == 80
    assert torch.allclose(value.mean, h.mean(0), rtol=1e-14)
    assert torch.allclose(value.matrix, torch.cov(h.T, correction=0), rtol=1e-8)


def test_covariance_is_computed_once():
    data = array_data(correlated(), labels(), weight=None)
    assert data.covariance() is data.covariance()
    h = correlated()
    assert torch.allclose(data.covariance().matrix, torch.cov(h.T, correction=0))
    assert int(CovarianceStream(3).value().count) == 0


def test_another_layer_is_refused_by_name():
    def of(width, classes, name):
        v, b = head(classes, width)
        h = correlated(width=width)
        return array_data(h, labels(classes=classes), weight=v, bias=b, name=name)

    one = of(9, 3, "features")
    same_layer(one, of(9, 3, "eval_features"))
    with pytest.raises(ShapeError, match=r"`eval`.* 9 neurons of `features`.* has 8"):
        same_layer(one, of(8, 3, "eval"))
    with pytest.raises(ShapeError, match=r"`eval`.* 3 classes of `features`.* has 4"):
        same_layer(one, of(9, 4, "eval"))


def test_a_consumer_that_diverged_is_refused():
    v, b = head()
    check_finite_consumer(Consumer("fc", v, b))
    b[1] = torch.inf
    with pytest.raises(NonFiniteError, match="'fc' must be finite; 1 entries"):
        check_finite_consumer(Consumer("fc", v, b))


def test_sources_are_recognised():
    data = array_data(correlated(), labels(), weight=None)
    assert isinstance(data.source, LayerSource)
    assert not isinstance(object(), LayerSource)
