import numpy as np
import pytest
import torch

from layerpeel._checks import FileError, NonFiniteError
from layerpeel.studies.loss_levels import Descent, rippled_steps
from layerpeel.studies.loss_levels import descent as descent_module
from layerpeel.studies.loss_levels.descent import descend

X, Y = rippled_steps(12)
SHORT = Descent((3,), scale=0.1, steps=40)


def by_hand(descent, steps):
    """Losses of gradient descent with one hidden tanh layer, in NumPy."""
    x, y = X.numpy(), Y.numpy()
    generator = torch.Generator().manual_seed(descent.seed)
    shapes = [(3, 1), (3,), (1, 3), (1,)]
    w, b, a, c = (
        torch.empty(shape, dtype=torch.float64)
        .normal_(0, descent.scale, generator=generator)
        .numpy()
        for shape in shapes
    )
    for _ in range(steps):
        h = np.tanh(x @ w.T + b)
        e = 2 * (h @ a.T + c - y) / len(x)
        back = (e @ a) * (1 - h**2)
        r = descent.learning_rate
        w, b, a, c = (
            w - r * back.T @ x,
            b - r * back.sum(0),
            a - r * e.T @ h,
            c - r * e.sum(0),
        )
    return float(np.mean((np.tanh(x @ w.T + b) @ a.T + c - y) ** 2))


def test_runs_are_gradient_descent():
    curve = descend(SHORT, X, Y, "tanh")
    assert tuple(curve.steps.tolist()) == SHORT.records
    assert curve.outputs.shape == (len(SHORT.records), 12, 1)
    for i in (0, 5, -1):
        step = int(curve.steps[i])
        assert float(curve.losses[i]) == pytest.approx(by_hand(SHORT, step), rel=1e-12)
        loss = (curve.outputs[i] - Y).square().mean()
        assert float(curve.losses[i]) == pytest.approx(float(loss), rel=1e-14)


def test_records_are_eight_per_doubling_and_the_last():
    records = np.array(Descent((2,), steps=1000).records)
    assert records[0] == 1
    assert records[-1] == 1000
    assert (np.diff(records) > 0).all()
    late = records[records >= 64]
    np.testing.assert_allclose(np.diff(np.log2(late))[:-1], 1 / 8, atol=0.03)


def test_a_killed_run_goes_on_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setattr(descent_module, "_SECONDS", 0.0)
    path = tmp_path / "run.safetensors"
    advance, done = descent_module._Running.advance, []

    def counted(self, to, *rest):
        done.append(to)
        advance(self, to, *rest)

    def killed(self, to, *rest):
        if to == 22:
            raise KeyboardInterrupt
        advance(self, to, *rest)

    monkeypatch.setattr(descent_module._Running, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        descend(SHORT, X, Y, "tanh", path)
    monkeypatch.setattr(descent_module._Running, "advance", counted)
    found = descend(SHORT, X, Y, "tanh", path)
    assert done == [step for step in SHORT.records if step >= 22]
    again = descend(SHORT, X, Y, "tanh", path)
    monkeypatch.undo()
    direct = descend(SHORT, X, Y, "tanh")
    for curve in (found, again):
        assert torch.equal(curve.steps, direct.steps)
        assert torch.equal(curve.losses, direct.losses)
        assert torch.equal(curve.outputs, direct.outputs)


@pytest.mark.parametrize(
    ("descent", "targets", "activation"),
    [
        (Descent((3,), scale=0.1, steps=41), Y, "tanh"),
        (SHORT, 2 * Y, "tanh"),
        (SHORT, Y, "relu"),
    ],
)
def test_files_of_other_runs_are_refused(tmp_path, descent, targets, activation):
    path = tmp_path / "run.safetensors"
    descend(SHORT, X, Y, "tanh", path)
    with pytest.raises(FileError, match="must be of the same"):
        descend(descent, X, targets, activation, path)


def test_divergence_is_named():
    with pytest.raises(NonFiniteError, match="Lower the learning rate"):
        descend(Descent((3,), scale=1.0, learning_rate=1e3, steps=200), X, Y, "relu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "widths of hidden layers"),
        ({"hidden": (0,)}, "integer >= 1"),
        ({"hidden": (2,), "scale": 0.0}, "`scale`"),
        ({"hidden": (2,), "learning_rate": -1.0}, "`learning_rate`"),
        ({"hidden": (2,), "steps": 0}, "`steps`"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Descent(**options)
