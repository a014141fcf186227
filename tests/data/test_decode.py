import io
import re
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageFile, ImageOps

from reslab.data.decode import BadImage, image_size, load_image
from reslab.data.exif import orientation, rotate, upright
from reslab.data.formats import IMAGE_SUFFIXES, image_format
from reslab.data.jpeg import MAX_PIXELS, jpeg_exif

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "TGA", "QOI", "SGI", "DDS")


def photograph(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Return an image with smooth colours, like a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def flat(mode: str, colour: tuple[int, ...] | int) -> Image.Image:
    return Image.new(mode, (8, 8), colour)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def reason(data: bytes) -> str:
    """Return why `data` cannot be decoded; load_image and image_size must agree."""
    with pytest.raises(BadImage, match=r"\Athe/file\.jpg: [^\n]+\Z") as caught:
        load_image(data, "the/file.jpg")
    return str(caught.value).removeprefix("the/file.jpg: ")


def one_colour(data: bytes) -> list[int]:
    rgb = load_image(data, "x")
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert (rgb == rgb[0, 0]).all()
    return rgb[0, 0].tolist()


# images that decode


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"restart_marker_rows": 1}],
    ids=str,
)
def test_jpeg_pixels_equal_pillows(options: dict[str, object]) -> None:
    for image in (photograph(61, 47), photograph(61, 47).convert("L")):
        data = encoded(image, "JPEG", **options)
        rgb = load_image(data, "x")
        assert rgb.flags.c_contiguous
        assert np.array_equal(rgb, pixels(Image.open(io.BytesIO(data))))


def test_pixels_of_real_photographs_equal_pillows(shared: Path) -> None:
    files = sorted((shared / "imagenet" / "samples").glob("*/*"))[::5]
    files += sorted((shared / "detection" / "coco128").rglob("*.jpg"))[::5]
    for path in files:
        data = path.read_bytes()
        with Image.open(path) as image:
            expected = pixels(ImageOps.exif_transpose(image))
        assert np.array_equal(load_image(data, path.name), expected), path
        assert image_size(data, path.name) == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_formats_return_the_saved_pixels(form: str) -> None:
    assert np.array_equal(load_image(encoded(photograph(), form), "x"), pixels(photograph()))
    grey = photograph().convert("L")
    assert np.array_equal(load_image(encoded(grey, form), "x"), pixels(grey))
    black_and_white = photograph().convert("1")
    assert set(load_image(encoded(black_and_white, form), "x").ravel().tolist()) == {0, 255}


def test_webp_and_gif() -> None:
    lossless = encoded(photograph(), "WEBP", lossless=True)
    assert np.array_equal(load_image(lossless, "x"), pixels(photograph()))
    indexed = photograph().quantize(64)
    assert np.array_equal(load_image(encoded(indexed, "GIF"), "x"), pixels(indexed))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(form: str) -> None:
    more = [flat("RGB", (0, 0, 255)), flat("RGB", (0, 255, 0))]
    options = {"lossless": True} if form == "WEBP" else {}
    film = encoded(flat("RGB", (255, 0, 0)), form, save_all=True, append_images=more, **options)
    assert one_colour(film) == [255, 0, 0]


@pytest.mark.parametrize("stored", [(255, 0, 0, 255), (0, 255, 255, 255)], ids=["red", "cyan"])
def test_cmyk_jpegs_are_inverted_as_in_adobe_files(stored: tuple[int, ...]) -> None:
    """255 minus the ink is stored: no cyan, full magenta and yellow, and no black give red."""
    inks = np.broadcast_to(np.array(stored, np.uint8), (16, 16, 4)).copy()
    data = simplejpeg.encode_jpeg(inks, colorspace="CMYK", colorsubsampling="444")
    assert simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK")
    colour = np.array(one_colour(data))
    assert np.abs(colour - np.array(stored[:3])).max() <= 2


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    """Values are divided by 257 and rounded, so 255 of 65,535 is nearly black."""
    values = np.array([[0, 128, 129, 255], [257, 32768, 65406, 65535]], np.uint16)
    rgb = load_image(encoded(Image.fromarray(values), form), "x")
    assert rgb[..., 0].tolist() == [[0, 0, 1, 1], [1, 128, 254, 255]]
    assert (rgb == rgb[..., :1]).all()


def test_thirty_two_bit_grey_is_refused() -> None:
    data = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    assert reason(data) == "32-bit grey, which does not define black and white"


def transparent_images() -> Iterator[tuple[str, bytes]]:
    yield "RGBA", encoded(flat("RGBA", (200, 0, 0, 0)), "PNG")
    yield "LA", encoded(flat("LA", (9, 0)), "PNG")
    yield "webp", encoded(flat("RGBA", (200, 0, 0, 0)), "WEBP", lossless=True)
    yield "a clear colour", encoded(flat("RGB", (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    yield "a clear grey", encoded(flat("L", 7), "PNG", transparency=7)
    indexed = flat("P", 0)
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    yield "a clear index", encoded(indexed, "PNG", transparency=0)
    yield "a palette of opacities", encoded(indexed, "PNG", transparency=b"\x00\xff")
    yield "gif", encoded(indexed, "GIF", transparency=0)
    deep = Image.fromarray(np.full((8, 8), 7, np.uint16))
    yield "16 bits", encoded(deep, "PNG", transparency=7)


@pytest.mark.parametrize(
    ("kind", "data"), list(transparent_images()), ids=[kind for kind, _ in transparent_images()]
)
def test_transparent_pixels_become_white(kind: str, data: bytes) -> None:
    assert one_colour(data) == [255, 255, 255]


def test_half_transparent_black_is_grey() -> None:
    assert one_colour(encoded(flat("RGBA", (0, 0, 0, 128)), "PNG")) == [127, 127, 127]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("turn", range(9))
def test_images_are_rotated_upright(form: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = turn
    data = encoded(photograph(24, 16), form, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = pixels(ImageOps.exif_transpose(image))
    assert np.array_equal(load_image(data, "x"), expected)
    assert image_size(data, "x") == ((16, 24) if turn >= 5 else (24, 16))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_images_are_read_as_stored_on_request(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photograph(24, 16), form, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = pixels(image)
    assert np.array_equal(load_image(data, "x", as_stored=True), expected)
    assert expected.shape == (16, 24, 3)


def test_a_cmyk_jpeg_is_rotated_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photograph(24, 16).convert("CMYK"), "JPEG", exif=exif)
    assert load_image(data, "x").shape == (24, 16, 3)
    assert image_size(data, "x") == (16, 24)


@pytest.mark.parametrize("form", FORMATS)
def test_formats_are_recognised_by_their_signature(form: str) -> None:
    data = encoded(photograph(), form)
    assert image_format(data) == form.lower()
    assert image_size(data, "x") == (64, 48)
    assert f".{form.lower()}" in IMAGE_SUFFIXES


def test_jpeg_2000_and_plain_netpbm() -> None:
    assert np.array_equal(load_image(encoded(photograph(), "JPEG2000"), "x"), pixels(photograph()))
    stream = encoded(photograph(), "JPEG2000", no_jp2=True)
    assert (image_format(stream), image_size(stream, "x")) == ("jp2", (64, 48))
    assert one_colour(b"P3 2 1 255 9 8 7 9 8 7") == [9, 8, 7]
    assert load_image(b"P1\n# a comment\n2 1\n1 0", "x")[0].tolist() == [[0] * 3, [255] * 3]


def test_stray_bytes_between_segments_do_no_harm() -> None:
    data = encoded(photograph(), "JPEG")
    start = data.index(b"\xff\xdb")
    assert np.array_equal(
        load_image(data[:start] + b"ab" + data[start:], "x"), load_image(data, "x")
    )


# files that cannot be decoded


def test_a_file_that_is_not_an_image_is_refused_with_a_reason() -> None:
    assert reason(b"") == "the file is empty"
    assert reason(bytes(100)) == "the file contains only zero bytes"
    assert reason(b"<!DOCTYPE html>") == "a web page or SVG, which is not read"
    assert reason(b"\0\0\0\x18ftypisom") == "a video, which is not read"
    assert reason(b"hello") == (
        "not an image in a supported format "
        "(jpeg, png, webp, gif, bmp, tiff, ppm, avif, jp2, tga, qoi, sgi, sun, dds)"
    )


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_truncated_anywhere_is_refused(options: dict[str, object]) -> None:
    data = encoded(photograph(), "JPEG", **options)
    for end in range(len(data) - 1):
        with pytest.raises(BadImage, match=r"\Ax\.jpg: "):
            load_image(data[:end], "x.jpg")
    middle = data[: data.index(b"\xff\xda") + 100]
    assert reason(middle).startswith("truncated or damaged JPEG (")
    # an end marker hides the truncation from Pillow, which fills the rest with grey
    assert reason(middle + b"\xff\xd9").startswith("truncated or damaged JPEG (")


@pytest.mark.parametrize("form", [*FORMATS[1:]])
def test_other_truncated_formats_are_refused(form: str) -> None:
    data = encoded(photograph(), form)
    for end in range(12, len(data) * 3 // 4, 37):
        decoded = reason(data[:end])
        assert decoded.startswith((f"cannot be read as {form} (", "not an image"))


@pytest.fixture(scope="module")
def mutated() -> list[tuple[str, bytes]]:
    """Return 1,000 JPEGs with flipped bytes, truncated, or spliced from two files."""
    sources = [
        encoded(photograph(120 + 8 * seed, 90, seed), "JPEG", progressive=bool(seed % 2))
        for seed in range(6)
    ]
    sources.append(encoded(photograph().convert("CMYK"), "JPEG"))
    sources.append(encoded(photograph().convert("L"), "JPEG", restart_marker_rows=1))
    rng = np.random.default_rng(0)
    return [(f"{number}.jpg", mutate(sources, rng)) for number in range(1000)]


def mutate(sources: list[bytes], rng: np.random.Generator) -> bytes:
    data = bytearray(sources[rng.integers(len(sources))])
    kind = rng.integers(4)
    if kind == 0:  # anywhere
        for _ in range(rng.integers(1, 20)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif kind == 1:  # in the header
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(2, min(600, len(data)))] = rng.integers(256)
    elif kind == 2:
        data = data[: rng.integers(len(data))]
    else:
        other = sources[rng.integers(len(sources))]
        data = data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]
    return bytes(data)


def outcome(file: str, data: bytes) -> str:
    """Decode an image or refuse it, within a time limit; return the reason, or ""."""
    start = time.thread_time()
    try:
        rgb = load_image(data, file)
        width, height = image_size(data, file)
    except BadImage as error:
        return str(error)
    finally:
        assert time.thread_time() - start < 5, file
    assert rgb.shape == (height, width, 3)
    return ""


def outcomes(files: list[tuple[str, bytes]]) -> list[bool]:
    """Return whether each file can be decoded."""
    lines = [outcome(file, data) for file, data in files]
    for (file, _), line in zip(files, lines, strict=True):
        assert not line or (line.startswith(f"{file}: ") and "\n" not in line)
    return [not line for line in lines]


def test_a_thousand_damaged_jpegs_cause_no_crash(mutated: list[tuple[str, bytes]]) -> None:
    good = outcomes(mutated)
    assert 100 < sum(good) < 500  # an image may survive a flipped bit, but no truncation
    with ThreadPoolExecutor(4) as threads:  # and as in the threads of a loader
        parts = threads.map(outcomes, [mutated[start::4] for start in range(4)])
    assert sum(sum(part) for part in parts) == sum(good)


def test_damaged_real_photographs_cause_no_crash(shared: Path) -> None:
    paths = sorted((shared / "imagenet" / "val500").glob("*/*"))[::25]
    sources = [path.read_bytes() for path in paths]
    rng = np.random.default_rng(1)
    good = outcomes([(f"{number}.jpg", mutate(sources, rng)) for number in range(200)])
    assert 40 < sum(good) < 160


@pytest.mark.parametrize("form", [*FORMATS[1:], "JPEG2000"])
def test_damaged_images_in_other_formats_cause_no_crash(form: str) -> None:
    image = photograph(40, 30)
    sources = [encoded(image, form), encoded(image.quantize(16).convert("RGBA"), "PNG")]
    if form not in ("BMP", "PPM", "JPEG2000", "TGA", "QOI", "SGI", "DDS"):
        sources.append(encoded(image, form, save_all=True, append_images=[image]))
    rng = np.random.default_rng(2)
    good = outcomes([(f"{number}.x", mutate(sources, rng)) for number in range(200)])
    assert 0 < sum(good) < 200


@pytest.mark.parametrize("options", [{}, {"tile_size": (16, 16)}, {"no_jp2": True}])
def test_a_truncated_jpeg_2000_file_is_never_decoded(options: dict[str, object]) -> None:
    """Between two tiles, openjpeg would not notice that some are missing."""
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG2000", **options)
    data = out.getvalue()
    assert load_image(data).tobytes() == pixels.tobytes()
    tiles = [match.start() for match in re.finditer(rb"\xff\x90", data)]
    assert len(tiles) == (9 if "tile_size" in options else 1)
    for end in (*tiles, *range(12, len(data), 17)):
        with pytest.raises(BadImage):
            load_image(data[:end])


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of_zeros(width: int, height: int) -> bytes:
    """Return a PNG with 1 bit per pixel; 60,000 x 60,000 are 440 kB, but 10 GB as RGB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def with_size(data: bytes, at: int, order: str, width: int, height: int) -> bytes:
    return data[:at] + struct.pack(order, width, height) + data[at + struct.calcsize(order) :]


def huge_images() -> Iterator[tuple[str, bytes]]:
    small = photograph()
    yield "png", png_of_zeros(60_000, 60_000)
    data = encoded(small.convert("L"), "GIF")
    yield "gif", with_size(data, 6, "<HH", 65_500, 65_500)
    yield "gif frame", with_size(data, data.index(b"\x2c\0\0\0\0") + 5, "<HH", 65_500, 65_500)
    yield "gif frame, less", with_size(data, data.index(b"\x2c\0\0\0\0") + 5, "<HH", 11_000, 11_000)
    yield "bmp", with_size(encoded(small, "BMP"), 18, "<ii", 60_000, 60_000)


@pytest.fixture(scope="module")
def huge() -> dict[str, bytes]:
    return dict(huge_images())


@pytest.mark.parametrize(
    "kind",
    ["png", "gif", "gif frame", "gif frame, less", "bmp"],
)
def test_a_huge_image_is_refused_by_its_header(huge: dict[str, bytes], kind: str) -> None:
    times = []
    for _ in range(3):
        start = time.thread_time()
        message = reason(huge[kind])
        times.append(time.thread_time() - start)
    assert f"{MAX_PIXELS:,}" in message
    with pytest.raises(BadImage, match=f"{MAX_PIXELS:,}"):
        image_size(huge[kind], "x")
    assert min(times) < 0.02


# no side effects


def loud_images() -> Iterator[tuple[str, bytes]]:
    """Yield images for which Pillow issues a warning."""
    tiff = encoded(flat("RGB", (10, 20, 30)), "TIFF", description="x" * 50)
    yield "tiff", tiff.replace(struct.pack("<HHI", 270, 2, 51), struct.pack("<HHI", 270, 2, 5100))
    yield (
        "apng",
        encoded(flat("RGB", (10, 20, 30)), "PNG").replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"acTL", bytes(8)),
        ),
    )


@pytest.mark.parametrize(
    ("kind", "data"), list(loud_images()), ids=[kind for kind, _ in loud_images()]
)
def test_pillows_warnings_are_suppressed(kind: str, data: bytes) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).load()
    assert caught
    filters = list(warnings.filters)
    assert one_colour(data) == [10, 20, 30]
    assert list(warnings.filters) == filters


def test_a_damaged_exif_block_does_no_harm() -> None:
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01\x03\x00"
    for mode in ("RGB", "CMYK"):
        data = encoded(photograph().convert(mode), "JPEG", exif=exif)
        assert load_image(data, "x").shape == (48, 64, 3)


def test_pillows_settings_are_unchanged() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS


# orientation

STORED = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, 2)  # 0 1 2 / 3 4 5
UPRIGHT = {  # EXIF 2.3, tag 0x0112: the sides of the stored first row and first column
    1: [[0, 1, 2], [3, 4, 5]],  # top, left
    2: [[2, 1, 0], [5, 4, 3]],  # top, right
    3: [[5, 4, 3], [2, 1, 0]],  # bottom, right
    4: [[3, 4, 5], [0, 1, 2]],  # bottom, left
    5: [[0, 3], [1, 4], [2, 5]],  # left, top
    6: [[3, 0], [4, 1], [5, 2]],  # right, top
    7: [[5, 2], [4, 1], [3, 0]],  # right, bottom
    8: [[2, 5], [1, 4], [0, 3]],  # left, bottom
}


def exif(order: str, value: int, tag: int = 0x0112) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    other = struct.pack(f"{order}HHII", 0x010F, 2, 4, 0)
    entry = struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    return head + struct.pack(f"{order}IH", 8, 2) + other + entry + bytes(4)


@pytest.mark.parametrize(("turn", "expected"), UPRIGHT.items())
def test_each_orientation_by_hand(turn: int, expected: list[list[int]]) -> None:
    rgb = upright(STORED, turn)
    assert rgb[..., 0].tolist() == expected
    assert rgb.flags.c_contiguous
    assert rotate(3, 2, turn) == (len(expected[0]), len(expected))


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_both_byte_orders(order: str) -> None:
    for value in range(1, 9):
        assert orientation(exif(order, value)) == value
        assert orientation(b"Exif\0\0" + exif(order, value)) == value


def test_an_unreadable_block_means_upright() -> None:
    block = exif("<", 6)
    assert orientation(exif("<", 9)) == orientation(exif("<", 0)) == 1
    assert orientation(exif("<", 6, tag=0x0113)) == 1
    assert orientation(b"") == orientation(b"what") == 1
    for end in range(len(block) - 7):  # truncated within the value or before it
        assert orientation(block[:end]) in (1, 6)
    for where in range(4, 8):  # a directory beyond the end
        assert orientation(block[:where] + b"\xff" + block[where + 1 :]) == 1


def test_the_exif_segment_is_found_among_others() -> None:
    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    before = b"\xff\xd8" + segment(0xE0, b"JFIF") + segment(0xE1, b"http://ns.adobe.com/xap/1.0/")
    exif_segment = segment(0xE1, b"Exif\0\0" + exif(">", 8))
    scan = segment(0xDA, b"") + b"pixels"
    block, start, end = jpeg_exif(before + exif_segment + scan)
    assert block == b"Exif\0\0" + exif(">", 8)
    assert (start, end) == (len(before), len(before) + len(exif_segment))
    assert (
        jpeg_exif(before + scan + exif_segment)[0] == b""
    )  # segments after the start of the pixels are ignored
    assert jpeg_exif(before) == (b"", 0, 0)


def test_arrays_are_rgb_or_grey() -> None:
    rgb = pixels(photograph())
    assert np.array_equal(load_image(rgb), rgb)
    grey = load_image(rgb[..., 1])
    assert all(np.array_equal(grey[..., channel], rgb[..., 1]) for channel in range(3))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=re.escape(f"not {image.dtype} {list(image.shape)}")):
        load_image(image)
