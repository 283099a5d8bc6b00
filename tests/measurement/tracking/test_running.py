import gc

import pytest
import torch
from torch import nn

from layerpeel._checks import BatchError, LabelError, NonFiniteError
from layerpeel.measurement import ClassMoments
from layerpeel.measurement.tracking.running import RunningMoments
from tests.measurement.models import CalledTwice, TokenHead
from tests.measurement.tracking.networks import CLASSES, arrays, loader, network, train


def hooks(model):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()
    )


def assert_same(a, b):
    for name in ("count", "mean", "scatter", "trace"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name))


class Spy:
    """What the head is given in training, by a hook of its own."""

    def __init__(self, head):
        self.seen = []
        head.register_forward_hook(self.look)

    def look(self, module, args, output):
        if module.training:
            self.seen.append(args[0].detach().clone())


def test_the_features_are_those_of_training():
    model = network()
    spy = Spy(model[6])
    running = RunningMoments(model)
    torch.manual_seed(0)
    batches = list(loader())
    train(model, batches, running.update)
    h, y = torch.cat(spy.seen), torch.cat([y for _, y in batches])
    assert_same(running.value(), ClassMoments.of(h, y, CLASSES))
    torch.testing.assert_close(running.weight, model[6].weight.detach().double())


def test_training_is_what_it_would_be():
    results = []
    for watch in (False, True):
        model = network()
        running = RunningMoments(model) if watch else None
        torch.manual_seed(0)
        train(model, loader(), running.update if running else lambda y: None)
        results.append(model.state_dict())
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_only_training_counts():
    model = network()
    running = RunningMoments(model)
    x, y = arrays()
    with running.batch(y):
        model(x)
    before = running.value()
    model.eval()
    model(x)
    assert not running.awaits_labels
    assert_same(running.value(), before)


def test_reset_begins_anew():
    model, (x, y) = network(), arrays()
    running = RunningMoments(model)
    for _ in range(2):
        with running.batch(y):
            model(x)
        assert running.value().num_samples == 60
        running.reset()
    with pytest.raises(BatchError, match="at least one labelled batch"):
        running.value()


def test_hooks_are_removed_and_set_again():
    model, (x, y) = network(), arrays()
    running = RunningMoments(model)
    with running.batch(y):
        model(x)
    assert hooks(model) == 3
    running.close()
    assert hooks(model) == 0
    model(x)
    assert running.value().num_samples == 60
    running.open()
    running.open()
    assert hooks(model) == 3
    with running.batch(y):
        model(x)
    assert running.value().num_samples == 120


def test_tokens_and_repeated_calls():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokens, twice = TokenHead(), CalledTwice(main_first=False)
        reversed_ = CalledTwice(main_first=True)
    x = torch.randn(8, 7, 5, generator=torch.Generator().manual_seed(1))
    y = torch.arange(8) % 4
    cases = [
        (tokens, x, tokens.features(x)),
        (twice, x[:, 0], torch.tanh(twice.body(x[:, 0]))),
        (reversed_, x[:, 0], torch.tanh(reversed_.body(x[:, 0]))),
    ]
    for model, inputs, features in cases:
        running = RunningMoments(model.train())
        with running.batch(y):
            model(inputs)
        assert_same(running.value(), ClassMoments.of(features, y, 4))


def test_a_model_that_is_its_head():
    model, (x, y) = nn.Linear(5, 3), arrays()
    running = RunningMoments(model, head="")
    with running.batch(y):
        model(x)
    assert_same(running.value(), ClassMoments.of(x, y, 3))


class TakesLabels(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_labels_among_the_arguments_are_read():
    model, (x, y) = TakesLabels(), arrays()
    running = RunningMoments(model)
    model(x=x, labels=y)
    assert running.value().count.tolist() == [20.0] * 3


def test_accumulated_batches_may_be_labelled_together():
    model, (x, y) = network(), arrays()
    running = RunningMoments(model)
    for part in x.split(20):
        model(part)
    running.update(y)
    assert running.value().num_samples == 60


def test_of_several_passes_over_a_batch_the_last_counts():
    model, (x, y) = network(), arrays()
    model[3].p = 0.0
    spy = Spy(model[6])
    running = RunningMoments(model)
    model(x)
    model(2 * x)
    running.update(y)
    assert_same(running.value(), ClassMoments.of(spy.seen[-1], y, CLASSES))


def test_labels_without_their_batch():
    model, (x, y) = network(), arrays()
    running = RunningMoments(model)
    with pytest.raises(BatchError, match="at least one labelled batch"):
        running.update(y)
    model(x)
    with pytest.raises(BatchError, match=r"got 59.*passed: 60"):
        running.update(y[1:])
    with pytest.raises(LabelError):
        running.update(y + 5)
    running.update(y)
    with pytest.raises(BatchError, match="passed: none"):
        running.update(y)


def test_a_pass_that_fails_leaves_nothing():
    model, (x, y) = network(), arrays()
    running = RunningMoments(model)
    with running.batch(y):
        model(x)
    with pytest.raises(RuntimeError):
        model(x[:, :3])
    assert not running.awaits_labels


def test_non_finite_features_are_counted():
    model, (x, y) = network(), arrays()
    running = RunningMoments(model)
    with running.batch(y):
        model(x)
    model[3] = nn.Identity()
    handle = model[5].register_forward_hook(
        lambda m, a, out: out.detach().index_fill(0, torch.tensor([4]), torch.nan)
    )
    with running.batch(y):
        model(x)
    handle.remove()
    with pytest.raises(NonFiniteError, match="1 of 120"):
        running.value()
    running.reset()
    with running.batch(y):
        model(x)
    assert running.value().num_samples == 60


def test_features_do_not_pile_up_without_labels():
    model, (x, _) = network(), arrays()
    running = RunningMoments(model)
    for _ in range(100):
        model(x[:2])
    gc.collect()
    assert len(running._waiting) == 64


def test_state_goes_on_within_an_epoch(tmp_path):
    model, (x, y) = network(), arrays()
    model[3].p = 0.0
    whole, first = RunningMoments(model), RunningMoments(model)
    with whole.batch(y[:40]), first.batch(y[:40]):
        model(x[:40])
    torch.save(first.state_dict(), tmp_path / "s.pt")
    first.close()
    second = RunningMoments(model)
    second.load_state_dict(torch.load(tmp_path / "s.pt", weights_only=True))
    with whole.batch(y[40:]), second.batch(y[40:]):
        model(x[40:])
    assert_same(second.value(), whole.value())
    second.reset()
    assert second.state_dict() is None
