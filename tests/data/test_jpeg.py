"""Large JPEGs are reduced; fill bytes are distinguished from lost pixels."""

import io
import re
import struct
import time

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from reslab.data.decode import (
    BadImage,
    TooLarge,
    image_size,
    load_image,
    load_scaled,
)
from reslab.data.jpeg import (
    MAX_PIXELS,
    MAX_PROGRESSIVE_PIXELS,
    SequentialJpeg,
    segments,
    without_fill,
)


def photograph(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def with_size(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG whose header states another size."""
    start = min(start for marker, start, _ in segments(data) if marker in (0xC0, 0xC2)) + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


# large images


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jpeg", "decode"):
        monkeypatch.setattr(f"reslab.data.{module}.MAX_PIXELS", 1000)
    for module in ("jpeg", "decode"):
        monkeypatch.setattr(f"reslab.data.{module}.MAX_PROGRESSIVE_PIXELS", 3000)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize(
    ("size", "factor"),
    [((40, 25), 1), ((41, 25), 2), ((63, 61), 2), ((65, 63), 4), ((120, 120), 4), ((201, 199), 8)],
)
def test_a_large_jpeg_is_reduced_as_little_as_needed(size: tuple[int, int], factor: int) -> None:
    data = encoded(photograph(*size))
    loaded = load_scaled(data, "x")
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (size[0] // factor, size[1] // factor))
        expected = np.asarray(image)
    assert (loaded.width, loaded.height) == size == image_size(data, "x")
    assert loaded.pixels.shape == (-(-size[1] // factor), -(-size[0] // factor), 3)
    assert np.array_equal(loaded.pixels, expected)
    assert np.array_equal(load_image(data, "x"), expected)
    assert loaded.ratio == pytest.approx((size[0] / expected.shape[1], size[1] / expected.shape[0]))


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_image_is_the_image_reduced_and_upright(mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photograph(96, 64).convert(mode)
    data = encoded(image, exif=exif, quality=95)
    whole = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    loaded = load_scaled(data, "x")
    assert (loaded.width, loaded.height) == whole.size == (64, 96)
    assert loaded.pixels.shape == (24, 16, 3)
    expected = np.asarray(whole.reduce(4)).astype(int)
    assert np.abs(loaded.pixels - expected).mean() < 3


@pytest.mark.usefixtures("small_limit")
def test_a_progressive_jpeg_has_a_lower_limit_and_other_formats_none_to_spare() -> None:
    assert load_image(encoded(photograph(60, 50), progressive=True), "x").shape == (25, 30, 3)
    with pytest.raises(TooLarge) as caught:
        load_image(encoded(photograph(61, 50), progressive=True), "a.jpg")
    assert str(caught.value) == (
        "a.jpg: 61 x 50 pixels according to its header; the limit for a progressive JPEG is 3,000 "
        "pixels"
    )
    png = io.BytesIO()
    photograph(41, 25).save(png, "PNG")
    with pytest.raises(TooLarge, match=r"41 x 25 pixels .* the limit is 1,000 pixels\Z"):
        load_image(png.getvalue(), "a.png")


@pytest.mark.slow
def test_a_photograph_of_108_megapixels_is_read() -> None:
    data = encoded(Image.new("RGB", (12_000, 9_000), (90, 120, 60)), quality=60)
    assert load_image(data, "x").shape == (4_500, 6_000, 3)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_small_file_cannot_claim_many_pixels(mode: str, progressive: bool) -> None:
    data = with_size(encoded(photograph().convert(mode), progressive=progressive), 65_500, 65_500)
    start = time.thread_time()
    with pytest.raises(BadImage) as caught:
        load_image(data, "x")
    assert time.thread_time() - start < 0.1
    limit = f"{MAX_PROGRESSIVE_PIXELS:,} pixels"
    assert str(caught.value).endswith(limit if progressive else "bytes for 65500 x 65500 pixels")
    assert isinstance(caught.value, TooLarge) == progressive


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    data = encoded(photograph(), progressive=True)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(BadImage, match=r"\Ax: a JPEG of more than 500 scans\Z"):
        load_image(data[:-2] + data[last:-2] * 500 + data[-2:], "x")


def test_ordinary_images_are_not_reduced() -> None:
    assert MAX_PIXELS == 89_478_485
    assert load_scaled(encoded(photograph()), "x").ratio == (1, 1)


# fill bytes before the markers of restart intervals


def webcam_frame(seed: int, *, grey: bool = False, **options: object) -> bytes:
    """Return a part of a real photograph with a restart interval per row or per few blocks."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(load_sample_image(["china.jpg", "flower.jpg"][seed % 2]))
    left, top = int(rng.integers(340)), int(rng.integers(220))
    part = image.crop((left, top, left + 200, top + 150))
    return encoded(part.convert("L") if grey else part, restart_marker_rows=1, **options)


def intervals(data: bytes) -> list[bytes]:
    """Split a JPEG into its restart intervals and the markers between them."""
    return re.split(rb"(\xff[\xd0-\xd7])", data)


def filled(data: bytes, seed: int, fill: bytes = b"\0") -> bytes:
    """Write 1 to 15 fill bytes before about a third of the markers."""
    rng, parts = np.random.default_rng(seed), intervals(data)
    for at in range(0, len(parts) - 1, 2):
        if at == 0 or rng.random() < 0.3:
            parts[at] += fill * int(rng.integers(1, 16))
    return b"".join(parts)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": True}, {"subsampling": 1}, {"subsampling": 0}, {"grey": True}],
    ids=str,
)
def test_fill_bytes_are_no_damage(options: dict[str, bool], fill: bytes) -> None:
    for seed in range(6):
        whole = webcam_frame(seed, **options)
        data = filled(whole, seed, fill)
        rgb = load_image(data, "x")
        assert np.array_equal(rgb, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert np.array_equal(rgb, load_image(whole, "x"))


def test_fill_bytes_of_a_progressive_image_are_no_damage() -> None:
    whole = webcam_frame(0, progressive=True)
    assert np.array_equal(load_image(filled(whole, 0), "x"), load_image(whole, "x"))


def test_a_zero_of_the_pixels_is_kept() -> None:
    """A flat interval may end in a zero byte; removing it would make the interval too short."""
    data = encoded(Image.new("RGB", (64, 64), (65, 65, 65)), restart_marker_rows=1)
    ends = [part[-1] for part in intervals(data)[:-1:2]]
    assert 0 in ends
    assert np.array_equal(load_image(filled(data, 1), "x"), load_image(data, "x"))


def damaged(data: bytes, rng: np.random.Generator, kind: int) -> bytes:
    """Return a JPEG with damage inside one restart interval."""
    parts = intervals(data)
    row = 2 * int(rng.integers(1, len(parts) // 2))
    part, at = bytearray(parts[row]), int(rng.integers(len(parts[row])))
    match kind:
        case 0:
            part[at] ^= 1 << int(rng.integers(8))
        case 1:
            del part[at : at + int(rng.integers(1, 30))]
        case 2:
            part[at:] = bytes(len(part) - at)
        case _:
            part[at:at] = rng.bytes(int(rng.integers(1, 12)))
    parts[row] = bytes(part)
    return b"".join(parts)


def is_refused(data: bytes) -> bool:
    try:
        load_image(data, "x.jpg")
    except BadImage:
        return True
    return False


def has_warning(data: bytes) -> bool:
    """Return whether libjpeg finds fault with the pixels."""
    try:
        simplejpeg.decode_jpeg(data)
    except ValueError:
        return True
    return False


def test_damaged_intervals_are_refused_as_before() -> None:
    rng = np.random.default_rng(0)
    frames = [webcam_frame(seed, optimize=seed % 2 == 0) for seed in range(8)]
    mutants = [damaged(frames[n % 8], rng, n // 8 % 4) for n in range(800)]
    seen = [data for data in mutants if has_warning(data)]
    passed = sum(not is_refused(data) for data in seen)
    assert len(seen) > 300
    assert passed <= len(seen) // 100  # zeros over the last pixels may look like fill bytes


def test_fill_bytes_do_not_hide_damage() -> None:
    whole = webcam_frame(3)
    parts = intervals(filled(whole, 3))
    parts[6] = parts[6][: len(parts[6]) // 2]
    assert is_refused(b"".join(parts))


def test_stray_bytes_in_the_header_do_not_hide_damage() -> None:
    data = encoded(photograph())
    start = data.index(b"\xff\xdb")
    stray = data[:start] + b"ab" + data[start:]
    assert not is_refused(stray)
    assert is_refused(stray[:-100] + b"\xff\xd9")


def test_nothing_but_fill_is_removed() -> None:
    whole = webcam_frame(4)
    assert without_fill(filled(whole, 4)) == whole
    assert without_fill(b"\xff\xd8\xff\xe0\0\x10JFIF") == b"\xff\xd8\xff\xe0\0\x10JFIF"


# rows from the top


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
def test_rows_from_the_top_equal_those_of_the_whole_image(subsampling: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (75, 53, 3), dtype=np.uint8)
    if subsampling == "Gray":
        data = encoded(Image.fromarray(noise).convert("L"))
    else:
        data = simplejpeg.encode_jpeg(noise, 90, colorsubsampling=subsampling)
    jpeg = SequentialJpeg.of(data)
    assert jpeg is not None
    assert (jpeg.width, jpeg.height) == (53, 75)
    whole = load_image(data, "x")
    assert np.array_equal(jpeg.whole(), whole)
    for rows in range(1, 76):
        top = jpeg.top(rows)
        assert rows <= len(top) <= rows + 8
        assert np.array_equal(top[:rows], whole[:rows])


def test_the_rows_below_are_not_decoded() -> None:
    data = encoded(photograph(640, 4000), quality=95)
    jpeg = SequentialJpeg.of(data)
    assert jpeg is not None

    def seconds(rows: int) -> float:
        start = time.thread_time()
        jpeg.top(rows)
        return time.thread_time() - start

    assert min(seconds(100) for _ in range(5)) < min(seconds(4000) for _ in range(5)) / 4


def test_only_an_upright_jpeg_in_one_scan_comes_row_by_row() -> None:
    image = photograph()
    turned = Image.Exif()
    turned[0x0112] = 6
    assert SequentialJpeg.of(encoded(image)) is not None
    assert SequentialJpeg.of(encoded(image, restart_marker_rows=1)) is not None
    assert SequentialJpeg.of(encoded(image, exif=turned)) is None
    assert SequentialJpeg.of(encoded(image, progressive=True)) is None
    assert SequentialJpeg.of(encoded(image.convert("CMYK"))) is None
    assert SequentialJpeg.of(with_size(encoded(image), 60_000, 60_000)) is None
    png = io.BytesIO()
    image.save(png, "PNG")
    assert SequentialJpeg.of(png.getvalue()) is None
    data = encoded(image)
    cut = [SequentialJpeg.of(data[:length]) for length in range(0, len(data), 7)]
    readable = [jpeg for jpeg in cut if jpeg is not None]
    assert len(readable) > 50
    for jpeg in readable:
        with pytest.raises(ValueError, match="JPEG"):
            jpeg.whole()


def test_a_second_scan_is_refused() -> None:
    """Colours in scans of their own cannot come row by row."""
    data = encoded(photograph())
    places = {marker: (start, end) for marker, start, end in segments(data)}
    start, _ = places[0xDA]
    alone = data[:start] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[places[0xDA][1] :]
    assert SequentialJpeg.of(alone) is None
