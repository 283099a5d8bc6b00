import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from layerpeel._checks import FileError, ShapeError
from layerpeel.studies import train_family, width_family
from layerpeel.studies.training import Training, perceptron, train

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
SHORT = Training(max_epochs=6, window=3)


def factory(width, seed):
    return perceptron((3, width, 3), seed)


def careless(width, seed):
    """Leaves the seed to whoever calls it."""
    return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 3))


class Steps:
    """A fit that counts its calls, and can be killed."""

    def __init__(self, killed_at=None):
        self.calls, self.killed_at = [], killed_at

    def __call__(self, model, seed):
        if len(self.calls) == self.killed_at:
            raise KeyboardInterrupt
        self.calls.append((model[0].out_features, seed))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape)
        return model


def states(networks):
    return {
        (w, i): {k: v.clone() for k, v in m.state_dict().items()}
        for w, models in networks.items()
        for i, m in enumerate(models)
    }


def assert_same(first, second):
    a, b = states(first), states(second)
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].keys() == b[key].keys()
        assert all(torch.equal(a[key][name], b[key][name]) for name in a[key])


def test_the_default_is_full_batch_training():
    found = train_family(factory, [4, 6], [0, 3], (X, Y), training=SHORT)
    assert list(found) == [4, 6]
    for width, models in found.items():
        for seed, model in zip((0, 3), models, strict=True):
            expected = train(factory(width, seed), X, Y, SHORT, progress=False).model
            assert not model.training
            for name, value in expected.state_dict().items():
                assert torch.equal(value, model.state_dict()[name])


def test_seeds_decide_and_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    first = train_family(careless, [4], [0, 1], Steps())
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert_same(first, train_family(careless, [4], [0, 1], Steps()))
    a, b = (model[0].weight for model in first[4])
    assert not torch.equal(a, b)


def test_after_a_kill_only_what_is_missing_is_trained(tmp_path):
    options = {"folder": tmp_path / "new", "settings": {"steps": 1}}
    killed = Steps(killed_at=3)
    with pytest.raises(KeyboardInterrupt):
        train_family(careless, [4, 6], [0, 1], killed, **options)
    written = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert written == [
        "width-4-seed-0.safetensors",
        "width-4-seed-1.safetensors",
        "width-6-seed-0.safetensors",
    ]
    rest = Steps()
    found = train_family(careless, [4, 6], [0, 1], rest, **options)
    assert rest.calls == [(6, 1)]
    assert_same(found, train_family(careless, [4, 6], [0, 1], Steps()))
    none = Steps(killed_at=0)
    assert_same(found, train_family(careless, [4, 6], [0, 1], none, **options))
    assert not any(m.training for models in found.values() for m in models)


def test_more_widths_and_seeds_can_follow(tmp_path):
    options = {"folder": tmp_path, "settings": {}}
    train_family(careless, [4], [0], Steps(), **options)
    more = Steps()
    train_family(careless, [6, 4], [1, 0], more, **options)
    assert more.calls == [(6, 1), (6, 0), (4, 1)]


def test_buffers_and_several_dtypes_come_back(tmp_path):
    def normed(width, seed):
        return nn.Sequential(
            nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 3)
        )

    def fit(model, seed):
        model.train()
        model(X)
        return model

    options = {"folder": tmp_path, "settings": {}}
    first = train_family(normed, [4], [0], fit, **options)
    second = train_family(normed, [4], [0], fit, **options)
    assert_same(first, second)
    assert (
        first[4][0][1].num_batches_tracked == second[4][0][1].num_batches_tracked == 1
    )


def test_a_file_says_what_it_is(tmp_path):
    train_family(factory, [4], [2], (X, Y), training=SHORT, folder=tmp_path)
    with safe_open(tmp_path / "width-4-seed-2.safetensors", "pt") as file:
        said = json.loads(file.metadata()["settings"])
    assert (said["width"], said["seed"]) == (4, 2)
    assert said["settings"]["training"]["max_epochs"] == 6
    assert len(said["settings"]["data"]) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": Training(max_epochs=7, window=3)}, "the same settings"),
        ({"fit": (X + 1, Y)}, "the same settings"),
        ({"fit": (X, Y.flip(0))}, "the same settings"),
        (
            {"factory": lambda width, seed: perceptron((3, width, 3), seed + 1)},
            "Is it another factory",
        ),
        (
            {"factory": lambda width, seed: perceptron((3, width, 5, 3), seed)},
            "Is it another factory",
        ),
    ],
)
def test_networks_of_other_settings_are_refused(tmp_path, changes, message):
    options = {"factory": factory, "fit": (X, Y), "training": SHORT}
    kept = {"widths": [4], "seeds": [0], "folder": tmp_path}
    train_family(**options, **kept)
    with pytest.raises(FileError, match=message) as caught:
        train_family(**(options | changes), **kept)
    assert "Delete the file" in str(caught.value)


def test_files_that_changed_places_are_refused(tmp_path):
    options = {"folder": tmp_path, "settings": {}}
    train_family(careless, [4], [0, 1], Steps(), **options)
    first = tmp_path / "width-4-seed-0.safetensors"
    first.write_bytes((tmp_path / "width-4-seed-1.safetensors").read_bytes())
    with pytest.raises(FileError, match=r"same seed; asked for 0, and it has 1"):
        train_family(careless, [4], [0, 1], Steps(), **options)


@pytest.mark.parametrize("kept", [0, 1, 0.5, 0.99])
def test_truncated_files_are_refused_and_left(tmp_path, kept):
    options = {"folder": tmp_path, "settings": {}}
    train_family(careless, [4], [0], Steps(), **options)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    size = kept if kept in (0, 1) else int(kept * len(whole))
    path.write_bytes(whole[:size])
    with pytest.raises(FileError, match=r"damaged.*Delete the file to train"):
        train_family(careless, [4], [0], Steps(), **options)
    assert path.stat().st_size == size
    path.unlink()
    again = Steps()
    train_family(careless, [4], [0], again, **options)
    assert len(again.calls) == 1
    assert path.stat().st_size == len(whole)


def test_a_changed_weight_is_noticed(tmp_path):
    options = {"folder": tmp_path, "settings": {}}
    train_family(careless, [4], [0], Steps(), **options)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="does not fit its digest"):
        train_family(careless, [4], [0], Steps(), **options)


def test_a_network_that_could_not_be_loaded_again_is_not_saved(tmp_path):
    def replaced(model, seed):
        return nn.Sequential(model, nn.Identity())

    kept = {"folder": tmp_path, "settings": {}}
    with pytest.raises(FileError, match="same parameters and buffers"):
        train_family(careless, [4], [0], replaced, **kept)
    assert not list(tmp_path.iterdir())
    train_family(careless, [4], [0], replaced)  # without a folder it may


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"anything": 1}


def test_state_that_is_no_tensor_is_refused_before_training(tmp_path):
    fit = Steps()
    with pytest.raises(FileError, match="_extra_state"):
        train_family(
            lambda width, seed: nn.Sequential(Extra(3, width)),
            [4], [0], fit, folder=tmp_path, settings={},
        )  # fmt: skip
    assert not fit.calls


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"widths": []}, ValueError, "at least one width"),
        ({"widths": [4, 4]}, ValueError, "must be distinct; got 4, 4"),
        ({"widths": [0]}, ValueError, "integer >= 1"),
        ({"seeds": []}, ValueError, "`seeds` must be distinct, and at least one"),
        ({"seeds": [1, 1]}, ValueError, "got 1, 1"),
        ({"seeds": [-1]}, ValueError, "a seed"),
        ({"fit": (X, Y[:-1])}, ShapeError, "one label per input"),
        ({"fit": (X[:0], Y[:0])}, ValueError, "number of training samples"),
        ({"settings": {}}, ValueError, "Leave `settings` out"),
        ({"fit": Steps(), "training": SHORT}, ValueError, "Leave `training` out"),
        ({"fit": Steps(), "folder": "."}, ValueError, "needs `settings`"),
    ],
)
def test_bad_input_says_what_must_hold(changes, error, message):
    with pytest.raises(error, match=message):
        train_family(
            **(
                {"factory": factory, "widths": [4], "seeds": [0], "fit": (X, Y)}
                | changes
            )
        )


def test_the_folder_may_be_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be made"):
        train_family(
            factory, [4], [0], (X, Y), training=SHORT, folder=tmp_path / "file"
        )


def test_what_is_trained_is_what_a_family_takes():
    networks = train_family(factory, [4, 8], [0, 1], (X, Y), training=SHORT)
    found = width_family(
        networks, [(X, Y)], generator=torch.Generator().manual_seed(0), repeats=2
    )
    assert found.widths == (4, 8)
    assert found.independent.shape == (2, 2)
