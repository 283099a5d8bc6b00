import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from layerpeel._checks import BatchError, LabelError
from layerpeel.measurement import measure
from tests.measurement.models import MODELS

LINEAR = MODELS["linear"]
FEATURE_BYTES = 24 * 5 * 4


class Counting:
    """A loader that counts how often it is read."""

    def __init__(self, batches):
        self.batches, self.reads = batches, 0

    def __iter__(self):
        self.reads += 1
        return iter(self.batches)


def test_one_pass_suffices_when_features_fit():
    loader = Counting(LINEAR.data())
    measure(LINEAR(), loader, cache_bytes=FEATURE_BYTES)
    assert loader.reads == 1


def test_two_passes_when_they_do_not():
    loader = Counting(LINEAR.data())
    m = measure(LINEAR(), loader, cache_bytes=FEATURE_BYTES - 1)
    assert loader.reads == 2
    assert m.to_dict() == measure(LINEAR(), LINEAR.data()).to_dict()


def test_a_generator_is_enough_when_features_fit():
    m = measure(LINEAR(), iter(LINEAR.data()), eval_loader=iter(LINEAR.data(seed=2)))
    assert (
        m.to_dict()
        == measure(LINEAR(), LINEAR.data(), eval_loader=LINEAR.data(seed=2)).to_dict()
    )


def test_a_generator_that_does_not_fit_says_what_to_do():
    batches = iter(LINEAR.data())
    match = r"read once.*`cache_bytes` = 200.*iterated again.*larger `cache_bytes`"
    with pytest.raises(BatchError, match=match):
        measure(LINEAR(), batches, cache_bytes=200)
    assert len(list(batches)) == 1  # refused as soon as known, not after a whole pass


def test_an_exhausted_generator_is_recognised():
    batches = iter(LINEAR.data())
    list(batches)
    for loader in (
        batches,
        [],
        DataLoader(TensorDataset(torch.zeros(0, 5), torch.zeros(0))),
    ):
        with pytest.raises(
            BatchError, match=r"`loader` must yield.*generator.*exhausted"
        ):
            measure(LINEAR(), loader)
    with pytest.raises(BatchError, match="`eval_loader` must yield"):
        measure(LINEAR(), LINEAR.data(), eval_loader=[])


class Fading:
    """A loader that can be read again, but brings other samples then."""

    def __init__(self, batches, later):
        self.passes = iter([batches, later])

    def __iter__(self):
        return iter(next(self.passes))


@pytest.mark.parametrize("change", ["fewer", "other classes", "none"])
def test_another_second_pass_is_detected(change):
    batches = LINEAR.data()
    later = {
        "fewer": batches[:2],
        "other classes": [(x, (y + (y == 0)) % 4) for x, y in batches],
        "none": [],
    }[change]
    with pytest.raises(BatchError, match=r"second pass.*must bring the same samples"):
        measure(LINEAR(), Fading(batches, later), cache_bytes=0)


def test_the_same_samples_in_another_order_are_welcome():
    batches = LINEAR.data()
    m = measure(LINEAR(), Fading(batches, batches[::-1]), cache_bytes=0)
    assert m.nc4() == measure(LINEAR(), batches).nc4()


def test_empty_batches_are_passed_over():
    batches = LINEAR.data()
    empty = (batches[0][0][:0], batches[0][1][:0])
    m = measure(LINEAR(), [empty, *batches[:2], empty, batches[2]])
    assert m.num_samples == 24


def test_data_loaders_and_hugging_face_style_data():
    x, y = (torch.cat(parts) for parts in zip(*LINEAR.data(), strict=True))
    expected = measure(LINEAR(), [(x, y)]).nc1()

    class Rows(Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, i):
            return {"input": x[i], "label": int(y[i])}

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(x, y, strict=True))

    for loader in (
        DataLoader(TensorDataset(x, y), batch_size=7),
        DataLoader(Stream(), batch_size=7),
        DataLoader(Rows(), batch_size=7, shuffle=True),
    ):
        assert measure(LINEAR(), loader).nc1() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("where", [0, 2])
def test_labels_are_checked_in_every_batch(where):
    batches = LINEAR.data()
    batches[where] = (batches[where][0], torch.tensor([0, 1, 2, 3, 4, 5, 5, -1]))
    match = r"\[0, (4|K)\); got values from -1 to 5\. "
    with pytest.raises(LabelError, match=match):
        measure(LINEAR(), batches)


def test_progress_names_the_loader(capsys):
    measure(LINEAR(), LINEAR.data(), eval_loader=LINEAR.data(), progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Measuring loader" in captured.err
    assert "Measuring eval_loader" in captured.err
