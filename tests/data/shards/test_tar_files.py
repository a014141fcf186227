"""Tar files that are damaged, compressed or made to do harm: each is named, in one line."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from tests.data.shards.foreign_tars import samples, write_tar

from reslab.data.datasets import EncodedImages
from reslab.data.folder import read_folder
from reslab.data.shards.samples import has_samples
from reslab.data.shards.tar_files import open_plain, stem_of


def refusal(shard: Path) -> str:
    """Return why a set with a good shard and this one is refused."""
    write_tar(shard.parent / "a.tar", samples(0, 8))
    with pytest.raises(ValueError, match=r".") as caught:
        read_folder(shard.parent)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(shard))
    return str(caught.value).removeprefix(str(shard))


def flipped(path: Path, position: int) -> Path:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    return path


def test_damaged_shards(tmp_path: Path) -> None:
    def shard(name: str) -> Path:
        return write_tar(tmp_path / name / "b.tar", samples(8, 8))

    cut = shard("cut")
    os.truncate(cut, 3000)
    assert refusal(cut).endswith("; copy it again")
    ends = shard("end of a member")
    with tarfile.open(ends) as tar:
        os.truncate(ends, tar.getmembers()[-2].offset_data + 10)
    assert refusal(ends).startswith(" is truncated in '000015.jpg'")
    with tarfile.open(shard("header")) as tar:
        position = tar.getmembers()[5].offset
    assert "is damaged, or two tar files joined" in refusal(
        flipped(tmp_path / "header/b.tar", position)
    )
    first = flipped(shard("first header"), 0)
    assert "is not a tar file, or damaged" in refusal(first)
    joined = shard("joined")
    joined.write_bytes(joined.read_bytes() * 2)
    assert "is damaged, or two tar files joined" in refusal(joined)
    html = shard("html")
    html.write_bytes(b"<!doctype html>" * 500)
    assert "is not a tar file" in refusal(html)
    empty = shard("empty")
    empty.write_bytes(b"")
    assert "is not a tar file" in refusal(empty)


def test_every_cut_and_every_flip_in_the_headers_is_refused_or_harmless(tmp_path: Path) -> None:
    """A shard either has the same images and classes, or is refused."""
    shard = write_tar(tmp_path / "b.tar", samples(0, 3))
    data = shard.read_bytes()
    images = read_folder(tmp_path)
    assert isinstance(images, EncodedImages)
    with tarfile.open(shard) as tar:
        headers = [member.offset for member in tar]
    reason = ""
    for position in (p for start in headers for p in range(start, start + 512, 7)):
        shard.write_bytes(data)
        flipped(shard, position)
        files = None
        try:
            read = read_folder(tmp_path)
            assert isinstance(read, EncodedImages)
            files = read.files
        except ValueError as error:
            reason = str(error)
        assert files == images.files or (files is None and "b.tar" in reason)
    for length in range(0, len(data) - 10_240, 1031):
        shard.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"b\.tar"):
            read_folder(tmp_path)


def test_compressed_files_that_cannot_be_read(tmp_path: Path) -> None:
    zstd = tmp_path / "zstd" / "b.tar.zst"
    zstd.parent.mkdir()
    zstd.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    assert refusal(zstd) == " is compressed with zstd: decompress it with `unzstd`"
    cut = write_tar(tmp_path / "cut" / "b.tgz", samples(8, 8), "w:gz")
    os.truncate(cut, cut.stat().st_size // 2)
    assert "cannot be decompressed (" in refusal(cut)
    trap = tmp_path / "trap" / "b.tgz"
    trap.parent.mkdir()
    trap.write_bytes(gzip.compress(bytes(200_000_000), 9))
    assert refusal(trap) == " cannot be decompressed (it grows to more than 100 times its size)"
    large = write_tar(tmp_path / "large" / "b.tgz", samples(8, 8), "w:gz")
    os.truncate(large, 5 << 30)
    write_tar(large.parent / "a.tar", samples(0, 8))
    with pytest.raises(ValueError, match=r"5\.4 GB of compressed shards.*`gunzip .*b\.tgz`"):
        read_folder(large.parent)


def test_pipes_and_sparse_members(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe" / "b.tar"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    assert refusal(pipe) == " cannot be read (not a regular file but a pipe)"
    sparse = tmp_path / "sparse" / "b.tar"
    sparse.parent.mkdir()
    headers = {"GNU.sparse.map": "0,3", "GNU.sparse.size": "99"}
    with tarfile.open(sparse, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("0.jpg")
        info.size, info.pax_headers = 3, headers
        tar.addfile(info, io.BytesIO(b"abc"))
    assert "'0.jpg' is sparse" in refusal(sparse)


def test_a_decompressed_file_has_no_name(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tgz", samples(0, 2), "w:gz")
    with open_plain(shard) as file:
        assert file.read() == gzip.decompress(shard.read_bytes())
        assert os.fstat(file.fileno()).st_nlink == 0
    assert has_samples(shard)
    assert [stem_of(name) for name in ("a.tar", "b-0.TAR.gz", "c.tgz", "d")] == [
        "a", "b-0", "c", "d",
    ]  # fmt: skip
