import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from layerpeel._arrays import read_arrays
from layerpeel._checks import FileError
from layerpeel._weights import read_weights

DTYPES = ["f2", "f4", "f8", ">f8", "i1", "i4", "i8", ">i4", "u1", "u2", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_npz_arrays_are_read_as_they_were_written(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.savez_compressed(tmp_path / "a.npz", x=array, y=np.asfortranarray(array))
    arrays = read_arrays(tmp_path / "a.npz")
    assert list(arrays) == ["x", "y"]
    for name in arrays:
        assert isinstance(arrays[name], torch.Tensor)
        assert arrays[name].numpy().dtype == np.dtype(dtype).newbyteorder("=")
        assert arrays[name].tolist() == array.tolist()


def test_npz_text_stays_numpy(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["cat", "dög"]))
    assert read_arrays(tmp_path / "a.npz")["names"].tolist() == ["cat", "dög"]


def test_safetensors_are_read_in_their_dtype(tmp_path):
    value = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    save_file({"x": value}, tmp_path / "a.safetensors")
    for read in (read_arrays, read_weights):
        assert read(tmp_path / "a.safetensors")["x"].equal(value)


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("array", [[{}], ["a", None], [[1], [1, 2]]], ids=str)
def test_object_arrays_are_refused_by_name(tmp_path, array):
    np.savez(tmp_path / "a.npz", fine=np.ones(2), bad=np.array(array, dtype=object))
    with pytest.raises(FileError, match=r"`bad`.*objects.*never unpickled"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "array",
    [np.array(["2020-01-01"], dtype="M8[D]"), np.array([b"cat"]), np.zeros(2, "f4,i4")],
    ids=["date", "bytes", "record"],
)
def test_arrays_of_other_types_are_refused_by_name(tmp_path, array):
    np.savez(tmp_path / "a.npz", fine=np.ones(2), bad=array)
    with pytest.raises(FileError, match=r"`bad`.*numbers or text"):
        read_arrays(tmp_path / "a.npz")


def test_no_reader_unpickles(tmp_path):
    trap = Trap(tmp_path / "sprung")
    np.savez(tmp_path / "a.npz", x=np.array([trap], dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(trap))
    torch.save({"x": trap}, tmp_path / "c.pt")
    (tmp_path / "d.bin").write_bytes(pickle.dumps(trap, protocol=2))
    for name, read in [
        ("a.npz", read_arrays),
        ("b.npz", read_arrays),
        ("c.pt", read_weights),
        ("d.bin", read_weights),
    ]:
        with pytest.raises(FileError):
            read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(trap))  # noqa: S301  # the point of the trap
    assert (tmp_path / "sprung").exists(), "the trap must work, or nothing was tested"


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("layer,weight\n1,2\n")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def random_values(size):
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def save_npz(path):
    np.savez_compressed(path, x=random_values(3000).numpy())


def save_safetensors(path):
    save_file({"x": random_values(3000)}, path)


def save_torch(path):
    torch.save({"x": random_values(3000)}, path)


DAMAGED = [
    *((save_npz, ".npz", hurt) for hurt in (truncated, emptied, text, flipped)),
    *((save_safetensors, ".safetensors", h) for h in (truncated, emptied, text)),
    *((save_torch, ".pt", hurt) for hurt in (truncated, emptied, text)),
]


@pytest.mark.parametrize(("save", "suffix", "hurt"), DAMAGED)
def test_damaged_files_are_refused(tmp_path, save, suffix, hurt):
    path = tmp_path / f"a{suffix}"
    read = read_arrays if suffix == ".npz" else read_weights
    save(path)
    assert read(path)["x"].shape == (3000,)
    hurt(path)
    with pytest.raises(FileError, match=rf"`.*a{suffix}`.* is damaged"):
        read(path)


def test_other_formats_under_the_suffix_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(2))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(FileError, match="not a zip archive"):
        read_arrays(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(FileError, match=r"`notes\.txt`"):
        read_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize("read", [read_arrays, read_weights])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("none.safetensors", FileNotFoundError, "no file"),
        ("a.csv", FileError, r"must end in one of .*\.safetensors.*got \.csv"),
        ("weights", FileError, "got no suffix"),
    ],
)
def test_missing_file_and_unknown_suffix(tmp_path, read, name, error, message):
    with pytest.raises(error, match=message):
        read(tmp_path / name)


def test_directory_is_no_file(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(FileNotFoundError, match="no file"):
        read_arrays(tmp_path / "a.npz")
