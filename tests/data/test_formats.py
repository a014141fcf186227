import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.data.decode import BadImage, image_size, load_image
from reslab.data.formats import (
    HEIC_SUFFIXES,
    IMAGE_SUFFIXES,
    READERS,
    SUFFIXES,
    formats_by_suffix,
    image_format,
    other_kind,
    way_to_read,
)

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
LFS = "a pointer of Git LFS (`git lfs pull` downloads the image)"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, form, **options)
    return file.getvalue()


def old_tga(*, compressed: bool = False) -> bytes:
    """Return a TGA of version 1, which has no signature."""
    return encoded("TGA", compression="tga_rle" if compressed else None).removesuffix(
        bytes(8) + b"TRUEVISION-XFILE.\0"
    )


def test_each_suffix_stands_for_a_format_that_can_be_decoded() -> None:
    assert set(SUFFIXES) == set(READERS)
    assert formats_by_suffix(reads_heic=True).keys() - formats_by_suffix(
        reads_heic=False
    ).keys() == (set(HEIC_SUFFIXES))
    named = ".jfif .pjpeg .jpe .ppm .pgm .pbm .avif .jp2 .tga .mpo .qoi .sgi .ras .dds .jpf"
    assert set(named.split()) <= set(IMAGE_SUFFIXES)
    for beside in (".ico", ".psd", ".eps", ".pdf", ".svg"):  # icons and drafts of photographs
        assert beside not in IMAGE_SUFFIXES


@pytest.mark.parametrize("name", ["a.tga", "A.TGA", "b.vda"])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_old_tga_is_recognised_by_its_suffix(name: str, compressed: bool) -> None:
    data = old_tga(compressed=compressed)
    assert image_format(data) is None
    assert np.array_equal(load_image(data, name), RGB)
    assert image_size(data, name) == (20, 12)
    with pytest.raises(BadImage, match=r"a\.png: not an image in a supported format"):
        load_image(data, "a.png")


def test_other_files_called_tga_are_refused() -> None:
    for data in (
        b"text of some length, no image",
        RGB.tobytes(),
        b"\0" * 17 + b"\1",
        old_tga()[:17],
    ):
        with pytest.raises(BadImage, match=r"\Aa\.tga: "):
            load_image(data, "a.tga")
    with pytest.raises(BadImage, match="truncated"):
        load_image(old_tga()[:-1], "a.tga")


def test_a_sun_raster_and_an_image_of_several_views() -> None:
    bgr = RGB[:, :, ::-1].tobytes()
    sun = struct.pack(">8I", 0x59A66A95, 20, 12, 24, len(bgr), 1, 0, 0) + bgr
    assert np.array_equal(load_image(sun, "x.ras"), RGB)
    views = encoded("MPO", save_all=True, append_images=[Image.new("RGB", (20, 12))])
    assert np.array_equal(load_image(views, "x.mpo"), load_image(encoded("JPEG"), "x"))


def test_heif_files_are_distinguished_by_their_brands() -> None:
    def brands(*names: bytes) -> bytes:
        return b"\0\0\0\x1cftyp" + names[0] + bytes(4) + b"".join(names[1:])

    for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        assert image_format(brands(brand, b"mif1", b"heic")) == "heic"
    assert image_format(brands(b"mif1", b"miaf", b"avif")) == "avif"
    assert image_format(brands(b"avif", b"mif1")) == "avif"
    assert image_format(brands(b"isom", b"mp42")) is None
    assert other_kind(brands(b"qt  ")) == "a video"
    assert other_kind(brands(b"crx ")) == "a raw photograph of a camera"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xef\xbb\xbf <html>", "a web page or SVG"),
        (b"%PDF-1.7", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\xff\x0a\x01", "a JPEG XL image"),
        (b"\0\0\1\0\1\0\x10\x10", "an icon"),
        (bytes(128) + b"DICM", "a DICOM file"),
        (b"PK\3\4", "an archive"),
        (b"RIFF\1\2\3\4AVI LIST", "a video"),
        (b"version https://git-lfs.github.com/spec/v1", LFS),
    ],
)  # fmt: skip
def test_other_files_are_named(data: bytes, kind: str) -> None:
    with pytest.raises(BadImage) as caught:
        load_image(data, "a.jpg")
    assert str(caught.value) == f"a.jpg: {kind}, which is not read"


def test_heic_is_named_with_the_way_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    (tmp_path / "a.jpg").write_bytes(HEIC)
    line = "a HEIC image: `pip install 'reslab[heic]'` reads it, or save it as JPEG"
    for read in (load_image, lambda path: image_size(path.read_bytes(), str(path))):
        with pytest.raises(BadImage) as caught:
            read(tmp_path / "a.jpg")
        assert str(caught.value) == f"{tmp_path / 'a.jpg'}: {line}"
    monkeypatch.setattr("reslab.data.formats.FORMATS", formats_by_suffix(reads_heic=False))
    assert way_to_read(".HEIC") == "`pip install 'reslab[heic]'` reads HEIC, or save them as JPEG"
    assert way_to_read(".psd") == "save them as JPEG or PNG"
