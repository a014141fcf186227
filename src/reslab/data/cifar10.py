"""Load CIFAR-10 from its official files, and download them if necessary.

The Python version is verified by MD5; the binary version, whose files have no published MD5, by
size and labels.
"""

import hashlib
import os
import pickle
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch

from reslab.data.datasets import ImagesInMemory, MemorySplits, Splits
from reslab.runtime.files import read_regular

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
PYTHON_FOLDER, BINARY_FOLDER = "cifar-10-batches-py", "cifar-10-batches-bin"

# the files of the official Python archive; the last one is the test batch
PYTHON_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
BINARY_FILES = tuple(f"{name}.bin" for name in PYTHON_MD5)
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PER_FILE, PIXELS = 10_000, 3 * 32 * 32


def load_cifar10(folder: Path | None) -> MemorySplits:
    """Load 50,000 training and 10,000 test images, [3, 32, 32].

    They are read from `folder`. If it is None, they are read from $RESLAB_DATA or the user's cache
    folder, and downloaded if necessary. Raise ValueError, naming the missing or damaged file and
    the remedy.
    """
    batches = find_batches(folder) if folder else find_or_download()
    if batches.name == BINARY_FOLDER:
        arrays = [read_binary(batches / name) for name in BINARY_FILES]
    else:
        arrays = [read_python(batches / name, md5) for name, md5 in PYTHON_MD5.items()]
    return Splits(join_batches("train", arrays[:-1]), join_batches("test", arrays[-1:]))


def find_batches(folder: Path) -> Path:
    """Return the folder of the official batches: `folder`, a subfolder, or the unpacked archive."""
    if not folder.is_dir():
        raise ValueError(f"`data` {folder}: no such folder")
    for batches in (folder, folder / PYTHON_FOLDER, folder / BINARY_FOLDER):
        if batches.name in (PYTHON_FOLDER, BINARY_FOLDER) and batches.is_dir():
            return batches
    if (folder / ARCHIVE).is_file():
        return unpack(folder / ARCHIVE)
    raise ValueError(
        f"no CIFAR-10 in {folder}: put {PYTHON_FOLDER}/, {BINARY_FOLDER}/ or {ARCHIVE} there"
    )


def find_or_download() -> Path:
    """Find the official batches in $RESLAB_DATA or the user's cache; download them if necessary."""
    from platformdirs import user_cache_path

    home = Path(os.environ.get("RESLAB_DATA") or user_cache_path("reslab") / "data")
    try:
        return find_batches(home)
    except ValueError:
        return unpack(download(home))


def download(home: Path) -> Path:
    """Download the official archive with a progress bar; verify its published MD5."""
    import pooch

    pooch.get_logger().setLevel("ERROR")  # the progress bar is enough
    try:
        home.mkdir(parents=True, exist_ok=True)
        archive = pooch.retrieve(URL, f"md5:{ARCHIVE_MD5}", ARCHIVE, home, progressbar=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"CIFAR-10 was not found and cannot be downloaded ({type(error).__name__}: {reason}); "
            f"put {ARCHIVE} (MD5 {ARCHIVE_MD5}) or its folder {PYTHON_FOLDER}/ into {home}"
        ) from None
    return Path(archive)


def unpack(archive: Path) -> Path:
    """Verify the archive's MD5, unpack it into its folder, and return the folder of batches."""
    check_md5(archive, read_regular(archive), ARCHIVE_MD5)
    target = archive.parent / PYTHON_FOLDER
    with tempfile.TemporaryDirectory(dir=archive.parent) as temporary:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        if not target.exists():  # another process may have been faster
            os.replace(Path(temporary) / PYTHON_FOLDER, target)
    return target


def read_python(file: Path, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one Python batch: uint8 [10000, 3072] and int64 [10000].

    The file is a pickle, which could run code, so its MD5 is compared with the published one first.
    """
    data = read(file)
    check_md5(file, data, md5)
    batch = pickle.loads(data, encoding="bytes")
    return batch[b"data"], np.asarray(batch[b"labels"])


def read_binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one binary batch of 10,000 rows: one byte of label and 3,072 bytes of image each."""
    data = read(file)
    if len(data) != PER_FILE * (1 + PIXELS):
        raise ValueError(
            f"{file} has {len(data):,} bytes instead of {PER_FILE * (1 + PIXELS):,}; "
            "it is truncated or a different file; copy it again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(PER_FILE, 1 + PIXELS)
    labels = rows[:, 0].astype(np.int64)
    if labels.max() >= len(CIFAR10_CLASSES):
        raise ValueError(
            f"{file} has the label {labels.max()}, but CIFAR-10 has labels 0 to 9; copy it again"
        )
    return rows[:, 1:], labels


def read(file: Path) -> bytes:
    if not file.is_file():
        raise ValueError(f"{file} is missing; copy the complete official folder from {ARCHIVE}")
    return read_regular(file)


def check_md5(file: Path, data: bytes, md5: str) -> None:
    actual = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if actual != md5:
        raise ValueError(
            f"{file} has MD5 {actual} instead of the official {md5}: "
            "it is truncated or damaged; delete it and copy it again"
        )


def join_batches(name: str, batches: list[tuple[np.ndarray, np.ndarray]]) -> ImagesInMemory:
    images = np.concatenate([images for images, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    return ImagesInMemory(
        name, torch.from_numpy(images), torch.from_numpy(labels).long(), CIFAR10_CLASSES
    )
