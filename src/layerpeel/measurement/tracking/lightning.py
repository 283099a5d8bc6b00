"""A callback that tracks neural collapse in Lightning; imported by those who use it."""

from __future__ import annotations

from typing import Any

from layerpeel._checks import one_of
from layerpeel.measurement.sources.batches import unpack
from layerpeel.measurement.tracking.tracker import Tracker

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        "The callback needs Lightning, which is not installed. Run "
        "`pip install 'layerpeel[lightning]'`, or call `Tracker.step` in your own loop."
    ) from error

LOGGING = ("epoch", "off")


class TrackerCallback(Callback):
    """Records neural collapse at the end of training epochs.

    Scalars go to the trainer's own loggers under ``collapse/`` as well, by
    ``LightningModule.log``, so that other callbacks can monitor them. The tracker's
    state is saved in checkpoints, and comes back with ``fit(..., ckpt_path=...)``.

    Running statistics take the labels from the batches, which are
    ``(input, label)`` or mappings as :func:`layerpeel.measurement.measure` takes them.

    Args:
        tracker: The tracker, of the network that the module trains, or of the module
            itself if its ``forward`` returns logits.
        log: ``"epoch"`` to pass scalars to the trainer's loggers, ``"off"`` to record
            them in the tracker alone.
        prefix: What stands before the names there.

    Raises:
        ValueError: If ``log`` is unknown.
    """

    def __init__(
        self, tracker: Tracker, *, log: str = "epoch", prefix: str = "collapse/"
    ) -> None:
        super().__init__()
        self.tracker = tracker
        self._log, self._prefix = one_of("log", log, LOGGING), prefix

    @property
    def state_key(self) -> str:
        """What the state is saved under; one for each mode and prefix."""
        return self._generate_state_key(mode=self.tracker.mode, prefix=self._prefix)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the hooks, should an earlier fit have removed them."""
        self.tracker.open()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - as Lightning has it
        batch: Any,  # noqa: ANN401 - as Lightning has it
        batch_idx: int,
    ) -> None:
        """Give the labels of the batch to running statistics."""
        if self.tracker.mode == "running" and self.tracker.awaits_labels:
            self.tracker.update(unpack(batch).labels)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record, and pass the scalars on."""
        scalars = self.tracker.step(trainer.current_epoch, trainer.global_step)
        if scalars is not None and self._log == "epoch":
            named = {self._prefix + name: value for name, value in scalars.items()}
            # All processes hold the same; saying so keeps Lightning from warning.
            pl_module.log_dict(named, sync_dist=trainer.world_size > 1)

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Leave no hook behind when training ends."""
        if stage == "fit":
            self.tracker.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the tracker's state, for a checkpoint."""
        return self.tracker.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the tracker's history from a checkpoint."""
        self.tracker.load_state_dict(state_dict)
