"""Files that are not weights are named for what they are, with a way on."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from reslab.models.convert.tensor_files import read_tensors

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 46830571\n"
XML = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'
CASES = {
    "a.safetensors": (LFS, "a pointer of Git LFS, not the file: `git lfs pull`"),
    "b.pth": (
        b"<!DOCTYPE html><title>Virus \n scan</title>",
        "a web page ('Virus scan'), not the file",
    ),
    "c.pth": (b"\n<html><title>Sign in</title>", "a web page ('Sign in'), not the file"),
    "d.pth": (XML, "a web page ('AccessDenied'), not the file"),
    "e.pth": (b"", "empty: download or copy it again"),
    "f.pth": (bytes(5000), "full of zeros, an incomplete download"),
    "g.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras writes"),
    "h.onnx": (b"\x08\x07\x12\x07pytorch", "an ONNX file: save the weights as torch does"),
    "j.ckpt.data-00000-of-00001": (b"\x91\x02\x03", "a file of TensorFlow"),
    "h2.pth": (b"\x08\x07\x12\x07pytorch", "an ONNX file: save the weights as torch does"),
    "i3.caffemodel": (b"\n\tResNet-50\x12\x06", "a Caffe model of an older format: with pycaffe"),
    "j2.lite": (b"\x1c\0\0\0TFL3\x14\0", "a file of TensorFlow"),
    "k.pth.part": (b"\x91\x02\x03", "an incomplete download"),
    "l.json": (b'{"a": 1}', "a text: weights are read from files of torch"),
    "m.bin": (b"\x91\x02\x03\xff", "of a kind that reslab does not know"),
    "n.msgpack": (b"\x81\xa6params", "a file of Flax"),
    "p.txt": (("é" * 2100).encode()[:4095], "a text: weights are read"),
    "q.bin": (b"\x81\xa6params", "of a kind that reslab does not know"),
    "r.pth.tar": (b"sys_info".ljust(100, b"\0") + bytes(412), "a file of torch before 0.2"),
    "o.npy": (b"\x93NUMPY\x01\0", "one array without a name"),
}


def refusal(file: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_tensors(file)
    assert str(caught.value).startswith(f"{file} ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_named_for_what_it_is(tmp_path: Path, name: str) -> None:
    content, expected = CASES[name]
    (tmp_path / name).write_bytes(content)
    assert f"{name} is {expected}" in refusal(tmp_path / name)


def test_compressed_files_and_archives_have_a_command(tmp_path: Path) -> None:
    (tmp_path / "w.pth.gz").write_bytes(gzip.compress(b"x"))
    unpacked = f"`gzip -dc {tmp_path / 'w.pth.gz'} > {tmp_path / 'w.pth'}`"
    assert refusal(tmp_path / "w.pth.gz").endswith(f"is compressed: first {unpacked}")
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("w.pth"), io.BytesIO())
    assert f"a tar archive: first `tar -xf {tmp_path / 'w.tar'}`" in refusal(tmp_path / "w.tar")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as other:
        other.writestr("model/w.pth", b"")
    assert "a zip archive of model/w.pth, ...: unpack it" in refusal(tmp_path / "w.zip")


def test_a_torchscript_program_is_not_run(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"net/{name}", b"")
    reported = refusal(tmp_path / "w.pt")
    assert "is a TorchScript program: where you trust it, torch.save(torch.jit.load(" in reported
