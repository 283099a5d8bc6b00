import logging
import warnings

import pytest
import torch
from torch import nn

from layerpeel.measurement.tracking import History, Tracker
from tests.measurement.tracking.networks import loader, network

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of Lightning's imports
    lightning = pytest.importorskip(
        "lightning.pytorch", reason="an optional dependency"
    )
    from lightning.pytorch.loggers import CSVLogger

    from layerpeel.measurement.tracking.lightning import TrackerCallback
    from layerpeel.measurement.tracking.torchmetrics import NeuralCollapse

# What the trainer says about its loader workers and its own internals.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec"),
]


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = network()
        self.collapse = NeuralCollapse(3, 6, self.net[6], metrics=["nc1", "nc3"])

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        x, y = batch
        h = self.net[:6](x)
        self.collapse.update(h, y)
        # The network as a whole once more, for the hooks.
        return nn.functional.cross_entropy(self.net(x), y)

    def on_train_epoch_end(self):
        self.log_dict(self.collapse.compute())
        self.collapse.reset()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


@pytest.fixture
def fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def run(module, callbacks, epochs, ckpt_path=None, logger=False):
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        torch.manual_seed(epochs)
        trainer.fit(module, loader(shuffle=False), ckpt_path=ckpt_path)
        return trainer

    return run


def test_epochs_are_recorded_and_logged(fit, tmp_path):
    module = Module()
    tracker = Tracker(module.net, loader(), metrics=["nc1", "nc4"], every=2)
    logger = CSVLogger(tmp_path, name="", version="v")
    trainer = fit(module, [TrackerCallback(tracker)], 3, logger=logger)
    assert tracker.history["nc1"].steps.tolist() == [4, 12]
    assert tracker.history["nc1"].epochs.tolist() == [0.0, 2.0]
    last = float(trainer.callback_metrics["collapse/nc4"])
    assert last == pytest.approx(tracker.history["nc4"].values[-1], rel=1e-6)
    assert "collapse/nc1" in (tmp_path / "v" / "metrics.csv").read_text()
    # The torchmetrics metric, by `log_dict`.
    assert {"nc1", "nc3"} <= set(trainer.callback_metrics)


def test_the_module_itself_may_be_tracked_and_nothing_is_written(fit, tmp_path):
    module = Module()
    tracker = Tracker(module, loader(), metrics=["nc3"])
    trainer = fit(module, [TrackerCallback(tracker, log="off")], 1)
    assert "collapse/nc3" not in trainer.callback_metrics
    assert len(tracker.history) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["evaluate", "running"])
def test_checkpoints_carry_the_history(fit, tmp_path, mode):
    def callback(module):
        return TrackerCallback(Tracker(module.net, loader(), mode=mode, clones=[2]))

    module = Module()
    first = callback(module)
    trainer = fit(module, [first], 2)
    assert not any(m._forward_hooks for m in module.net.modules())
    trainer.save_checkpoint(tmp_path / "c.ckpt", weights_only=False)
    torch.load(tmp_path / "c.ckpt", weights_only=True)["callbacks"][first.state_key]
    resumed = Module()
    second = callback(resumed)
    fit(resumed, [second], 4, ckpt_path=tmp_path / "c.ckpt")
    history = second.tracker.history
    assert history["nc1"].steps.tolist() == [4, 8, 12, 16]
    assert list(history)[: len(first.tracker.history)] == list(first.tracker.history)
    assert history["clones/2/r_squared"].steps.tolist() == [4, 8, 12, 16]


def test_clones_are_logged(fit):
    module = Module()
    tracker = Tracker(module.net, loader(), metrics=[], clones=[2, 4])
    trainer = fit(module, [TrackerCallback(tracker)], 1)
    for name in tracker.history.metrics:
        logged = float(trainer.callback_metrics[f"collapse/{name}"])
        assert logged == pytest.approx(tracker.history[name].values[-1], rel=1e-6)
    assert "clones/4/folded_error" in tracker.history.metrics


def test_running_statistics_count_every_sample(fit):
    module = Module()
    tracker = Tracker(module.net, mode="running", metrics=["nc1"])
    counts = []
    tracker._running.reset, reset = (
        lambda: (counts.append(tracker._running._stream.value().num_samples), reset()),
        tracker._running.reset,
    )
    fit(module, [TrackerCallback(tracker)], 2)
    assert counts == [60, 60]


def test_a_second_fit_sets_the_hooks_again(fit):
    module = Module()
    tracker = Tracker(module.net, mode="running", metrics=["nc1"])
    fit(module, [TrackerCallback(tracker)], 1)
    tracker.history.load_state_dict(History().state_dict())
    fit(module, [TrackerCallback(tracker)], 1)
    assert len(tracker.history) == 1
    assert not module.net._forward_pre_hooks


def test_logging_is_one_of_two():
    with pytest.raises(ValueError, match="`log` must be one of"):
        TrackerCallback(Tracker(network(), loader()), log="step")
