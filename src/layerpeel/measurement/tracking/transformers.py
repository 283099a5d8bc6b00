"""A callback that tracks neural collapse in the Trainer of Hugging Face.

Imported by those who use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from layerpeel.measurement.tracking.tracker import Tracker

try:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ImportError as error:
    raise ImportError(
        "The callback needs transformers, which is not installed. Run "
        "`pip install 'layerpeel[transformers]'`, or call `Tracker.step` in your own loop."
    ) from error

# `state.epoch` is a sum of shares, and misses whole numbers by rounding.
_EPOCH_ROUNDING = 1e-6


class TrackerCallback(TrainerCallback):
    """Records neural collapse at the end of training epochs.

    The scalars join ``trainer.state.log_history`` under ``collapse/``. To have them in
    TensorBoard and wherever else the trainer reports to, name the trainer::

        callback = TrackerCallback(tracker)
        trainer = Trainer(model, arguments, callbacks=[callback], ...)
        callback.trainer = trainer

    The tracker's state is saved in the ``trainer_state.json`` of every checkpoint, and
    comes back with ``trainer.train(resume_from_checkpoint=...)``.

    Running statistics take the labels that the model is given.

    Args:
        tracker: The tracker, of the model that is trained.
        trainer: The trainer that reports the scalars.
        prefix: What stands before their names there.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        trainer: Trainer | None = None,
        prefix: str = "collapse/",
    ) -> None:
        self.tracker, self.trainer = tracker, trainer
        self._prefix = prefix

    @property
    def state_key(self) -> str:
        """What the state is saved under; one for each mode and prefix."""
        # Not the name of this class: the trainer would build a new callback from it.
        return f"layerpeel.Tracker({self.tracker.mode}, {self._prefix})"

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - as the trainer has it
    ) -> None:
        """Continue the history when training is resumed."""
        self.tracker.open()
        saved = _saved_states(state).get(self.state_key)
        if saved is not None:
            self.tracker.load_state_dict(saved)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - as the trainer has it
    ) -> None:
        """Have running statistics saved with a checkpoint within an epoch."""
        if self.tracker.mode == "running" and control.should_save:
            self._save(state)

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - as the trainer has it
    ) -> None:
        """Record, and pass the scalars on."""
        epoch = math.ceil((state.epoch or 0) - _EPOCH_ROUNDING) - 1
        scalars = self.tracker.step(max(0, epoch), state.global_step)
        self._save(state)
        if scalars is not None:
            named = {self._prefix + name: value for name, value in scalars.items()}
            self._report(named, state, control)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - as the trainer has it
    ) -> None:
        """Leave no hook behind."""
        self.tracker.close()

    def _save(self, state: TrainerState) -> None:
        """Put the tracker's state where the trainer will find it when it saves."""
        _saved_states(state)[self.state_key] = _lists(self.tracker.state_dict())

    def _report(
        self, named: dict[str, float], state: TrainerState, control: TrainerControl
    ) -> None:
        if self.trainer is None:
            entry = {**named, "epoch": state.epoch, "step": state.global_step}
            state.log_history.append(entry)
            return
        # Logging takes the wish of others to log as fulfilled; theirs still is not.
        wished = control.should_log
        self.trainer.log(named)
        control.should_log = wished


def _saved_states(state: TrainerState) -> dict[str, Any]:
    """Return what the trainer saves of its callbacks, by name."""
    return cast(dict[str, Any], state.stateful_callbacks)


def _lists(value: Any) -> Any:  # noqa: ANN401 - a state is made of anything plain
    """Return a state with lists in place of tensors, as JSON has it."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return value
