import pytest
import torch
from torch.utils.data import DataLoader

from layerpeel.measurement import measure
from layerpeel.measurement.tracking import Tracker

transformers = pytest.importorskip("transformers", reason="an optional dependency")
pytest.importorskip("accelerate", reason="the Trainer needs it")

from layerpeel.measurement.tracking.transformers import TrackerCallback  # noqa: E402

pytestmark = [
    # The Trainer's own habits on machines without an accelerator.
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]


def bert():
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        vocab_size=20,
        max_position_embeddings=8,
        num_labels=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.BertForSequenceClassification(config)


class Sentences(torch.utils.data.Dataset):
    def __init__(self, n=24):
        g = torch.Generator().manual_seed(0)
        self.labels = (torch.arange(n) % 3).tolist()
        self.ids = torch.randint(1, 20, (n, 6), generator=g)
        self.ids[:, 0] = 1 + torch.tensor(self.labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.labels[index]}


def collate(samples):
    return {key: torch.as_tensor([s[key] for s in samples]) if key == "labels"
            else torch.stack([s[key] for s in samples]) for key in samples[0]}  # fmt: skip


def tracker_of(model, mode="evaluate", **kwargs):
    data = DataLoader(Sentences(), batch_size=8, collate_fn=collate)
    kwargs.setdefault("metrics", ["nc1", "nc3"])
    return Tracker(model, data, mode=mode, **kwargs)


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(model, callback, epochs=2, named=True, resume=None, others=(), **arguments):
        arguments = {"save_strategy": "no", "report_to": [], **arguments}
        settings = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"),
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="epoch",
            dataloader_pin_memory=False,
            seed=1,
            **arguments,
        )
        trainer = transformers.Trainer(
            model, settings, train_dataset=Sentences(), callbacks=[callback, *others]
        )
        trainer.remove_callback(transformers.PrinterCallback)
        if named:
            callback.trainer = trainer
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


@pytest.mark.parametrize("named", [True, False], ids=["reported", "kept"])
def test_epochs_are_recorded_and_logged(train, named):
    tracker = tracker_of(bert())
    trainer = train(tracker.model, TrackerCallback(tracker), named=named)
    assert tracker.history["nc1"].steps.tolist() == [3, 6]
    assert tracker.history["nc1"].epochs.tolist() == [0.0, 1.0]
    log = trainer.state.log_history
    ours = [entry for entry in log if "collapse/nc1" in entry]
    assert [entry["step"] for entry in ours] == [3, 6]
    values = tracker.history["nc1"].values.tolist()
    assert [entry["collapse/nc1"] for entry in ours] == values
    # The trainer's own logging at the end of the epoch is not lost.
    assert [entry["step"] for entry in log if "loss" in entry] == [3, 6]


def test_scalars_are_those_of_measure(train):
    tracker = tracker_of(bert())
    train(tracker.model, TrackerCallback(tracker), epochs=1)
    data = DataLoader(Sentences(), batch_size=8, collate_fn=collate)
    expected = measure(tracker.model, data).nc1()
    assert tracker.history["nc1"].values[-1] == pytest.approx(expected, rel=1e-6)


def test_reports_reach_other_callbacks(train):
    heard = []

    class Listener(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            heard.extend(logs)

    tracker = tracker_of(bert())
    callback = TrackerCallback(tracker, prefix="nc/")
    train(tracker.model, callback, epochs=1, others=[Listener()])
    assert {"loss", "nc/nc1", "nc/nc3"} <= set(heard)


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("mode", ["evaluate", "running"])
def test_checkpoints_carry_the_history(train, tmp_path, mode, restore):
    first = tracker_of(bert(), mode, clones=[2, 4])
    train(
        first.model,
        TrackerCallback(first),
        save_strategy="epoch",
        restore_callback_states_from_checkpoint=restore,
    )
    second = tracker_of(bert(), mode, clones=[2, 4])
    train(
        second.model,
        TrackerCallback(second),
        epochs=3,
        save_strategy="epoch",
        resume=str(tmp_path / "out" / "checkpoint-6"),
        restore_callback_states_from_checkpoint=restore,
    )
    assert second.history["nc1"].steps.tolist() == [3, 6, 9]
    assert second.history["clones/4/r_squared"].steps.tolist() == [3, 6, 9]
    assert list(second.history)[: len(first.history)] == list(first.history)


def test_running_statistics_need_no_labels_and_leave_no_hooks(train):
    tracker = tracker_of(bert(), "running")
    train(tracker.model, TrackerCallback(tracker), epochs=1)
    assert len(tracker.history["nc1"].values) == 1
    for module in tracker.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_checkpoint_within_an_epoch_carries_running_statistics(train, tmp_path):
    whole = tracker_of(bert(), "running")
    train(whole.model, TrackerCallback(whole), epochs=1)
    first = tracker_of(bert(), "running")
    train(
        first.model,
        TrackerCallback(first),
        epochs=1,
        save_strategy="steps",
        save_steps=2,
    )
    second = tracker_of(bert(), "running")
    train(
        second.model,
        TrackerCallback(second),
        epochs=1,
        resume=str(tmp_path / "out" / "checkpoint-2"),
    )
    assert [r.metric for r in second.history] == [r.metric for r in whole.history]
    for a, b in zip(second.history, whole.history, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5)
