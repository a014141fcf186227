import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from reslab.data import cifar10
from reslab.data.cifar10 import load_cifar10
from reslab.data.datasets import pixel_mean


def test_the_real_images(real_cifar10: Path) -> None:
    sets = load_cifar10(real_cifar10)
    assert (len(sets.train), len(sets.test)) == (50_000, 10_000)
    assert sets.test.classes[sets.test.labels[0]] == "cat"
    assert sets.train.labels.bincount().tolist() == [5000] * 10
    channels = pixel_mean(sets.train.images).mean((1, 2)) / 255
    torch.testing.assert_close(channels, torch.tensor([0.4914, 0.4822, 0.4465]), atol=1e-4, rtol=0)
    std = sets.train.images[::20].float().std((0, 2, 3)) / 255
    torch.testing.assert_close(std, torch.tensor([0.2470, 0.2435, 0.2616]), atol=5e-3, rtol=0)


def test_python_and_binary_files_have_the_same_images(real_cifar10: Path, tmp_path: Path) -> None:
    sets = load_cifar10(real_cifar10)
    home = tmp_path / "cifar-10-batches-bin"
    home.mkdir()
    for part, names in (
        (sets.train, cifar10.BINARY_FILES[:-1]),
        (sets.test, cifar10.BINARY_FILES[-1:]),
    ):
        rows = torch.cat([part.labels[:, None].to(torch.uint8), part.images.flatten(1)], 1)
        for name, chunk in zip(names, rows.split(10_000), strict=True):
            (home / name).write_bytes(chunk.numpy().tobytes())
    again = load_cifar10(tmp_path)
    assert torch.equal(again.train.images, sets.train.images)
    assert torch.equal(again.test.labels, sets.test.labels)


def test_the_folder_of_batches_may_be_given(random_cifar10: Path) -> None:
    direct = load_cifar10(random_cifar10 / "cifar-10-batches-bin")
    assert torch.equal(direct.test.images, load_cifar10(random_cifar10).test.images)


def test_a_damaged_python_batch_is_never_unpickled(tmp_path: Path) -> None:
    home = tmp_path / "cifar-10-batches-py"
    home.mkdir()
    (home / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(ValueError, match=r"data_batch_1 has MD5 .* instead of the official"):
        load_cifar10(tmp_path)


def test_a_truncated_binary_batch_is_named(random_cifar10: Path, tmp_path: Path) -> None:
    shutil.copytree(random_cifar10 / "cifar-10-batches-bin", tmp_path / "cifar-10-batches-bin")
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"data_batch_3.bin has 30,729,995 bytes"):
        load_cifar10(tmp_path)


def test_an_impossible_label_is_refused(random_cifar10: Path, tmp_path: Path) -> None:
    shutil.copytree(random_cifar10 / "cifar-10-batches-bin", tmp_path / "cifar-10-batches-bin")
    file = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    rows = np.frombuffer(file.read_bytes(), np.uint8).copy()
    rows[0] = 77
    file.write_bytes(rows.tobytes())
    with pytest.raises(ValueError, match="label 77"):
        load_cifar10(tmp_path)


def test_a_missing_batch_is_named(random_cifar10: Path, tmp_path: Path) -> None:
    shutil.copytree(random_cifar10 / "cifar-10-batches-bin", tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin").unlink()
    with pytest.raises(ValueError, match=r"data_batch_2.bin is missing"):
        load_cifar10(tmp_path)


def test_an_archive_with_another_md5_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / cifar10.ARCHIVE).write_bytes(b"not the archive")
    with pytest.raises(ValueError, match="MD5"):
        load_cifar10(tmp_path)
    assert not (tmp_path / "cifar-10-batches-py").exists()


def test_the_folder_in_reslab_data_is_searched(
    random_cifar10: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLAB_DATA", str(random_cifar10))
    assert len(load_cifar10(None).test) == 10_000


def test_without_a_network_the_message_names_file_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLAB_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(ValueError, match=r"put cifar-10-python.tar.gz .* into .*home"):
        load_cifar10(None)
