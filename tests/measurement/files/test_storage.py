import json
from dataclasses import dataclass

import pytest
import torch
from jaxtyping import Float64
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerpeel._checks import FileError
from layerpeel.measurement.files import load_statistic, save_statistic
from layerpeel.measurement.files.container import Container
from layerpeel.measurement.files.digest import content_digest
from layerpeel.measurement.statistics.moments import ClassMoments
from layerpeel.measurement.statistics.statistic import Statistic
from tests.measurement.files.values import VALUES, assert_same_bits


@pytest.fixture
def path(tmp_path):
    return tmp_path / "value.safetensors"


@pytest.fixture
def moments(path):
    """A file of moments, and its content."""
    save_statistic(VALUES["moments"](), path)
    return Container.read(path)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_bit_by_bit(name, path):
    value = VALUES[name]()
    assert save_statistic(value, path) == path
    assert_same_bits(load_statistic(path), value)


def test_what_was_read_merges_on(path):
    value = VALUES["rows"]()
    save_statistic(value, path)
    merged = load_statistic(path).merge(value)
    assert merged.moments.num_samples == 2 * value.moments.num_samples


@dataclass(frozen=True, eq=False)
class Peculiar(Statistic):
    tensor: Float64[Tensor, "a b"]
    number: float
    count: int
    flag: bool
    name: str
    absent: str | None


PECULIAR = [
    Peculiar(
        torch.zeros(0, 3, dtype=torch.float64), float("nan"), 3, True, "é\n", None
    ),
    Peculiar(
        torch.full((2, 1), -0.0, dtype=torch.float64), -float("inf"), -1, False, "", "x"
    ),
    Peculiar(torch.ones(3, 4, dtype=torch.float64).T, 1e-320, 2**60, False, "t", None),
]


@pytest.mark.parametrize("value", PECULIAR, ids=["nan", "inf", "strided"])
def test_settings_and_odd_tensors_come_back(value, path):
    save_statistic(value, path)
    assert_same_bits(load_statistic(path), value)


def test_a_file_of_another_suffix_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"ends in \.safetensors"):
        save_statistic(VALUES["moments"](), tmp_path / "value.pt")
    with pytest.raises(FileError, match=r"must end in .*\.safetensors"):
        load_statistic(tmp_path / "value.npz")
    with pytest.raises(FileNotFoundError):
        load_statistic(tmp_path / "value.safetensors")


def test_failed_writing_leaves_the_old_file(path, monkeypatch):
    save_statistic(VALUES["moments"](), path)
    before = path.read_bytes()

    def no_space(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="as it was before"):
        save_statistic(VALUES["confusion"](), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("share", [0, 4, 8, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(share, path, moments):
    data = path.read_bytes()
    path.write_bytes(
        data[: share if isinstance(share, int) else int(share * len(data))]
    )
    with pytest.raises(FileError, match="damaged"):
        load_statistic(path)


def test_no_single_byte_can_be_changed_unnoticed(path, moments):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    for position in [*range(8, 8 + size, 7), *range(8 + size, len(data), 97)]:
        changed = bytearray(data)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            same = load_statistic(path)
        except FileError:
            continue
        # The header may hold its spaces and the order of its keys differently.
        assert_same_bits(same, VALUES["moments"]())
        assert data[position : position + 1] == b" "


def rewritten(path, tensors=None, **metadata):
    """Write a file with the same content but what is given, as an editor would."""
    with safe_open(path, framework="pt") as opened:
        old = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        said = dict(opened.metadata())
    save_file(tensors if tensors is not None else old, path, said | metadata)


def test_a_file_edited_by_hand_is_refused(path, moments):
    rewritten(path, {**moments.tensors, "count": moments.tensors["count"] + 1})
    with pytest.raises(FileError, match="does not fit its digest"):
        load_statistic(path)


EDITS = [
    ({"version": "2"}, "must have version 1; it has 2"),
    ({"format": "other"}, "must be a file of statistics"),
    ({"kind": "Confusion"}, "digest"),
    ({"settings": "{}"}, None),
    ({"settings": '{"a": 1}'}, "digest"),
    ({"digest": "0"}, "digest"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=lambda e: str(e)[:24])
def test_edited_metadata_are_refused(edit, message, path, moments):
    if message is None:
        message = "digest" if json.dumps(moments.settings) != "{}" else None
    rewritten(path, **edit)
    if message is None:
        assert_same_bits(load_statistic(path), VALUES["moments"]())
        return
    with pytest.raises(FileError, match=message):
        load_statistic(path)


def test_tensors_of_someone_else_are_refused(path):
    save_file({"weight": torch.ones(2, 2)}, path)
    with pytest.raises(FileError, match="holds tensors of another kind"):
        load_statistic(path)


def changed(content, edit):
    return {
        name: tensor
        for name, tensor in {**content.tensors, **edit}.items()
        if tensor is not None
    }


MISFITS = [
    ("ClassMoments", {"count": None}, "lacks `count`"),
    ("ClassMoments", {"more": torch.ones(2)}, "also has `more`"),
    ("ClassMoments", {"mean.deep": torch.ones(2)}, r"also has `mean\.deep`"),
    ("ClassMoments", {"mean": torch.ones(4, 6)}, "`mean` must be .*torch.float32"),
    ("ClassMoments", {"count": torch.ones(9, dtype=torch.float64)}, "must be Float64"),
    ("ClassMoments", {"scatter": torch.ones(5, 5, dtype=torch.float64)}, "`scatter`"),
    ("ClassMoments", {"mean": torch.ones(4, dtype=torch.float64)}, "`mean` must be"),
    ("Confusion", {}, "must have its parts"),
    ("Confusions", {}, "there are .*Confusion"),
]


@pytest.mark.parametrize(("kind", "edit", "message"), MISFITS)
def test_parts_that_do_not_fit_are_refused_even_with_a_right_digest(
    kind, edit, message, path, moments
):
    Container(kind, moments.settings, changed(moments, edit)).write(path)
    with pytest.raises(FileError, match=message) as caught:
        load_statistic(path)
    assert str(path) in str(caught.value)


NESTED = [
    ({"moments.count": None}, r"lacks `moments\.count`"),
    ({"moments": torch.ones(2)}, "`moments"),
    ({"units.low": torch.ones(6)}, r"`units\.low` must be"),
    ({"confusion.counts": torch.ones(4, 5, dtype=torch.int64)}, r"`confusion\.counts`"),
]


@pytest.mark.parametrize(("edit", "message"), NESTED)
def test_parts_of_parts_are_checked_too(edit, message, path):
    save_statistic(VALUES["rows"](), path)
    content = Container.read(path)
    Container(content.kind, content.settings, changed(content, edit)).write(path)
    with pytest.raises(FileError, match=message):
        load_statistic(path)


def test_settings_are_checked_too(path):
    save_statistic(PECULIAR[0], path)
    content = Container.read(path)
    for name, wrong in {"count": 1.5, "flag": 1, "name": None, "absent": 2}.items():
        settings = {**content.settings, name: wrong}
        Container(content.kind, settings, content.tensors).write(path)
        with pytest.raises(FileError, match=f"`{name}` must be"):
            load_statistic(path)


def test_a_name_that_two_statistics_share_is_refused(path):
    @dataclass(frozen=True, eq=False)
    class Twin(Statistic):
        number: int

    first = Twin

    @dataclass(frozen=True, eq=False)
    class Twin(Statistic):
        number: int

    assert first is not Twin
    save_statistic(Twin(1), path)
    with pytest.raises(FileError, match="must be one statistic"):
        load_statistic(path)


def test_empty_moments_are_a_neutral_file(path):
    save_statistic(ClassMoments.empty(4, 6), path)
    assert_same_bits(
        load_statistic(path).merge(VALUES["moments"]()), VALUES["moments"]()
    )


IMPOSSIBLE = [
    ("moments", {}, {"count": -torch.ones(4, dtype=torch.float64)}, "`count`.*got -1"),
    ("confusion", {}, {"counts": -torch.eye(4).long()}, "`counts`.*got -1"),
    ("nearest mean", {"against": "foo"}, {}, "`against` must be one of 'all data'"),
    ("profile", {"maps": "foo"}, {}, "`maps` must be one of 'pooled'"),
    (
        "profile",
        {},
        {"layers.1.patterns.on": -torch.ones(5).long()},
        r"`layers\.1\.patterns\.on` must hold whole numbers",
    ),
]


@pytest.mark.parametrize(("name", "settings", "tensors", "message"), IMPOSSIBLE)
def test_what_cannot_be_measured_is_refused(name, settings, tensors, message, path):
    save_statistic(VALUES[name](), path)
    content = Container.read(path)
    assert {*settings} <= {*content.settings}
    assert {*tensors} <= {*content.tensors}
    Container(
        content.kind, content.settings | settings, content.tensors | tensors
    ).write(path)
    with pytest.raises(FileError, match=message) as caught:
        load_statistic(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("settings", ["nonsense", "[1]", "3", ""])
def test_settings_that_are_no_mapping_are_refused(settings, path, moments):
    metadata = {
        "format": "layerpeel",
        "version": "1",
        "kind": "ClassMoments",
        "settings": settings,
    }
    metadata["digest"] = content_digest(metadata, moments.tensors)
    save_file(moments.tensors, path, metadata)
    with pytest.raises(FileError, match="settings as a mapping in JSON"):
        load_statistic(path)
