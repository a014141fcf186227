"""Arrays in files: described by their headers, read without a pickle, refused by name."""

import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from reslab.data.array_sets.files import array_files, stored_arrays
from reslab.runtime import memory


def test_arrays_are_described_by_their_headers_and_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "bytes": rng.integers(0, 256, (3, 4, 5), np.uint8),
        "big": rng.normal(size=(4, 2)).astype(">f4"),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
        "text": np.array(["cat", "dögs"]),
        "none": np.zeros((0, 2)),
    }
    np.savez_compressed(tmp_path / "all.npz", **arrays)  # pyrefly: ignore
    found, others = stored_arrays(tmp_path / "all.npz", [tmp_path / "all.npz"])
    assert others == []
    assert [stored.name for stored in found] == list(arrays)
    for stored in found:
        assert np.array_equal(stored.load(), arrays[stored.name])
        assert stored.shape == arrays[stored.name].shape
        np.save(tmp_path / "one.npy", arrays[stored.name])
        (alone,), _ = stored_arrays(tmp_path / "one.npy", [tmp_path / "one.npy"])
        assert np.array_equal(alone.load(), arrays[stored.name])
        if not alone.fortran and alone.shape[0] > 1:
            assert np.array_equal(alone.read_rows(1, 2), arrays[stored.name][1:2])


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_pickle_is_refused_by_name_and_does_not_run(tmp_path: Path, suffix: str) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # pyrefly: ignore

    file = tmp_path / f"x.{suffix}"
    values = np.array([Evil()], dtype=object)
    if suffix == "npy":
        np.save(file, values)
    else:
        np.savez(file, labels=values)
    (stored,), _ = stored_arrays(file, [file])
    with pytest.raises(ValueError, match=f"{file} holds Python objects"):
        stored.load()
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=str(file)):
        stored_arrays(file, [file])
    assert not (tmp_path / "ran").exists()


def test_every_cut_and_every_changed_byte_of_an_archive_is_noticed(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", images=images)
    data = (tmp_path / "a.npz").read_bytes()
    file = tmp_path / "mutant.npz"
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(300):
        mutant = bytearray(data)
        at = int(rng.integers(len(data)))
        if rng.random() < 0.3:
            mutant = mutant[:at]
        else:
            mutant[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(mutant)
        try:
            arrays, _ = stored_arrays(file, [file])
            assert all(np.array_equal(stored.load(), images) for stored in arrays)
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 200  # other bytes are dates and flags
    assert all(str(file) in error and "\n" not in error for error in errors)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 1000000), }",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -1), }",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': 4, }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '(2,2)u1', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '|V4', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<M8[s]', 'fortran_order': False, 'shape': (0,), }",
        b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (4,), }",
        b"{[]: 1}",
        b"(" * 5000,
        b"\xff\xfe",
    ],
)
def test_a_forged_header_is_refused(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "x.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match=str(file)):
        stored_arrays(file, [file])[0][0].load()


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bomb.npz"
    np.savez_compressed(file, x=np.zeros(2**26, np.uint8))
    assert file.stat().st_size < 2**18
    (stored,), _ = stored_arrays(file, [file])
    monkeypatch.setattr(memory, "free_memory", lambda: 2**25)
    with pytest.raises(ValueError, match=r"needs 0\.1 GiB of memory"):
        stored.load()


def test_members_that_are_not_arrays_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, x=np.zeros(3))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("README", "text")
    found, others = stored_arrays(file, [file])
    assert [stored.name for stored in found] == ["x"]
    assert others == [f"{file}: README"]


def test_folders_of_arrays_are_distinguished_from_folders_of_images(tmp_path: Path) -> None:
    arrays, images = tmp_path / "arrays", tmp_path / "images"
    for file in ("X.npy", "train/y.npy", "val/x.npz", ".hidden.npy", "notes.txt"):
        (arrays / file).parent.mkdir(parents=True, exist_ok=True)
        (arrays / file).touch()
    names = [str(file.relative_to(arrays)) for file in array_files(arrays)]
    assert names == ["X.npy", "train/y.npy", "val/x.npz"]
    (images / "cat").mkdir(parents=True)
    (images / "cat" / "1.png").touch()
    (images / "features.npy").touch()
    assert array_files(images) == []
    assert array_files(images / "cat") == []
    assert array_files(images / "features.npy") == [images / "features.npy"]
    assert array_files(tmp_path / "nowhere") == []
