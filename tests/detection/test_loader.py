import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from reslab.data.boxes.digit_scenes import digit_scenes, save_scenes
from reslab.data.boxes.folder import open_detection
from reslab.data.boxes.sets import DetectionSet, DetectionSplits, GroundTruth
from reslab.data.sampler import Stream
from reslab.detection.loader import DetectionLoader, Example
from reslab.models.preprocessing import minus_mean


@pytest.fixture(scope="module")
def scenes() -> DetectionSplits:
    return digit_scenes(train=8, test=2)


@pytest.fixture
def coco(scenes: DetectionSplits, tmp_path: Path) -> Path:
    """Write the scenes to a folder whose images a test may damage."""
    save_scenes(tmp_path, scenes, lambda _: None)
    return tmp_path


def as_it_is(images: Tensor) -> Tensor:
    return images.float()


class Opened:
    """Loaders that are closed after the test, and the lines they logged."""

    def __init__(self) -> None:
        self.all: list[DetectionLoader] = []
        self.reported: list[str] = []

    def __call__(
        self,
        train: DetectionSet,
        shorter: Sequence[int] = (128,),
        longest: int = 1000,
        flip: bool = False,
        size: int = 3,
        seed: int = 1,
        threads: int = 2,
        bad_limit: float = 1.0,
        last: int | None = None,
        prepare: Callable[[Tensor], Tensor] = as_it_is,
    ) -> DetectionLoader:
        loader = DetectionLoader(
            train, prepare, shorter=shorter, longest=longest, flip=flip, size=size, seed=seed,
            threads=threads, bad_limit=bad_limit, log=self.reported.append, last=last,
        )  # fmt: skip
        self.all.append(loader)
        return loader


@pytest.fixture
def opened() -> Iterator[Opened]:
    loaders = Opened()
    yield loaders
    for batches in loaders.all:
        batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("reslab-images")]


Whose = Callable[[Example], tuple[int, bool]]


@pytest.fixture(scope="module")
def whose(scenes: DetectionSplits) -> Whose:
    """Return the scene that a full-size example shows, and whether it is mirrored."""
    known = {}
    for index in range(len(scenes.train)):
        image = scenes.train.image(index)
        known[image.tobytes()] = index, False
        known[image[:, ::-1].tobytes()] = index, True

    def find(example: Example) -> tuple[int, bool]:
        return known[example.image[0].permute(1, 2, 0).byte().numpy().tobytes()]

    return find


def same(one: Sequence[Example], other: Sequence[Example]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        a.seed == b.seed
        and all(
            torch.equal(getattr(a, name), getattr(b, name))
            for name in ("image", "boxes", "labels", "ignored")
        )
        for a, b in pairs
    )


def with_truths(train: DetectionSet, *truths: GroundTruth) -> DetectionSet:
    """Return the first images of a set with other ground truth."""
    return replace(train.take("train", torch.arange(len(truths))), truths=truths)


def truth(*boxes: Sequence[float], difficult: Sequence[int] = (), crowd=()) -> GroundTruth:
    """Return objects of class 0, 1, 2 ..."""
    places = range(len(boxes))
    return GroundTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.arange(len(boxes)),
        torch.tensor([at in difficult for at in places], dtype=torch.bool),
        torch.tensor([at in crowd for at in places], dtype=torch.bool),
    )


def test_an_epoch_shows_every_scene_once_with_its_objects(
    opened: Opened, scenes: DetectionSplits, whose: Whose
) -> None:
    batches = opened(scenes.train)
    assert batches.count == 8
    shown = []
    for k in range(8):
        for place, example in enumerate(batches(k)):
            index, mirrored = whose(example)
            assert not mirrored
            assert torch.equal(example.boxes, scenes.train.truths[index].boxes)
            assert torch.equal(example.labels, scenes.train.truths[index].labels)
            assert example.ignored.shape == (0, 4)
            assert example.seed == (1, Stream.SAMPLING, k, place)
            shown.append(index)
    for epoch in range(3):
        assert sorted(shown[8 * epoch : 8 * epoch + 8]) == list(range(8))
    assert shown[:8] != shown[8:16]


def test_half_of_the_images_are_flipped_with_their_boxes(
    opened: Opened, scenes: DetectionSplits, whose: Whose
) -> None:
    batches = opened(scenes.train, flip=True, size=8)
    shown = [(example, whose(example)) for k in range(12) for example in batches(k)]
    # of 96: within 2.5 standard deviations
    assert 36 <= sum(mirrored for _, (_, mirrored) in shown) <= 60
    for example, (index, mirrored) in shown:
        x0, y0, x1, y1 = scenes.train.truths[index].boxes.unbind(1)
        if mirrored:
            x0, x1 = 128 - x1, 128 - x0
        assert torch.equal(example.boxes, torch.stack([x0, y0, x1, y1], 1))


def test_boxes_are_scaled_like_their_images(opened: Opened, shared: Path) -> None:
    """With photographs, both of whose sides are rounded."""
    train = open_detection(shared / "detection" / "coco128").train.take("few", torch.arange(6))
    batches = opened(train, shorter=[61], longest=90, size=6)
    for example, index in zip(batches(0), batches.sampler(0, 6).tolist(), strict=True):
        width, height = train.sizes[batches.rows[index]]
        wide, high = example.image.shape[3], example.image.shape[2]
        assert min(wide, high) == 61 or max(wide, high) == 90
        crowd = train.truths[batches.rows[index]].crowd
        boxes = train.truths[batches.rows[index]].boxes[~crowd]
        expected = boxes * torch.tensor([wide / width, high / height] * 2)
        sides = expected[:, 2:] - expected[:, :2]
        assert ((sides < 0.99) | (sides > 1.01)).all()  # rounded either way
        expected = expected[(sides > 1).all(1)]
        torch.testing.assert_close(example.boxes, expected, atol=1e-4, rtol=0)


def test_all_sizes_occur(opened: Opened, scenes: DetectionSplits) -> None:
    batches = opened(scenes.train, shorter=(32, 64, 200), longest=150, size=8)
    sizes = [tuple(example.image.shape[2:]) for k in range(6) for example in batches(k)]
    counts = [sizes.count((side, side)) for side in (32, 64, 150)]
    assert sum(counts) == 48
    assert min(counts) >= 8


def test_sizes_and_flips_are_independent(
    opened: Opened, scenes: DetectionSplits, whose: Whose
) -> None:
    batches = opened(scenes.train, shorter=(64, 128), flip=True, size=8)
    whole = [example for k in range(6) for example in batches(k) if example.image.shape[3] == 128]
    assert 6 <= sum(whose(example)[1] for example in whole) <= len(whole) - 6


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_the_same_whoever_prepares_them(
    opened: Opened, scenes: DetectionSplits, threads: int
) -> None:
    prepare = minus_mean(torch.tensor([100.0, 110.0, 120.0])[:, None, None])
    reference_maker = opened(scenes.train, (40, 64), flip=True, prepare=prepare)
    reference = [reference_maker(k) for k in range(6)]
    batches = opened(scenes.train, (40, 64), flip=True, prepare=prepare, threads=threads, last=4)
    assert all(same(batches(k), reference[k]) for k in (4, 5, 1, 2, 3, 0, 0))
    assert not same(opened(scenes.train, (40, 64), flip=True, seed=2)(0), reference[0])


def test_images_are_prepared_as_they_lie_channels_last(
    opened: Opened, scenes: DetectionSplits, whose: Whose
) -> None:
    prepare = minus_mean(torch.full((3, 1, 1), 100.0))
    (example,) = opened(scenes.train, size=1, prepare=prepare)(0)
    assert example.image.dtype == torch.float32
    assert example.image.is_contiguous(memory_format=torch.channels_last)
    index, _ = whose(replace(example, image=example.image + 100))
    assert index == opened(scenes.train).sampler(0, 1).item()


def test_difficult_objects_are_background_and_crowds_are_ignored(
    opened: Opened, scenes: DetectionSplits
) -> None:
    box, other, third = [0, 0, 10, 20], [5, 5, 60, 60], [100, 100, 128, 128]
    train = with_truths(scenes.train, truth(box, other, third, difficult=[0], crowd=[1]))
    (example,) = opened(train, shorter=[64], size=1)(0)
    assert example.boxes.tolist() == [[50, 50, 64, 64]]
    assert example.labels.tolist() == [2]
    assert example.ignored.tolist() == [[2.5, 2.5, 30, 30]]


def test_boxes_are_clipped_and_too_small_ones_dropped(
    opened: Opened, scenes: DetectionSplits
) -> None:
    train = with_truths(
        scenes.train,
        truth(
            [-1, 0, 20, 129],
            [127, 0, 129, 50],  # one pixel of the object is in the image
            [10, 10, 12, 11.9],
            [10, 10, 12, 12],
            [127.5, 5, 140, 50],
            crowd=[4],
        ),
    )  # fmt: skip
    (whole,) = opened(train, size=1)(0)
    assert whole.boxes[:2].tolist() == [[0, 0, 20, 128], [127, 0, 128, 50]]
    assert whole.labels.tolist() == [0, 1, 2, 3]
    assert whole.ignored.shape == (0, 4)
    (half,) = opened(train, shorter=[64], size=1)(0)
    assert half.boxes.tolist() == [[0, 0, 10, 64], [5, 5, 6, 6]]
    assert half.labels.tolist() == [0, 3]
    (tiny,) = opened(train, shorter=[8], size=1)(0)
    assert tiny.labels.tolist() == [0]


def test_images_without_an_object_to_detect_are_left_out(
    opened: Opened, scenes: DetectionSplits, whose: Whose
) -> None:
    box = [10, 10, 40, 50]
    none = (truth(), truth(box, difficult=[0]), truth(box, box, difficult=[0], crowd=[1]))
    batches = opened(with_truths(scenes.train, *none, truth(box), *none, truth(box, box)))
    assert batches.count == 2
    for k in range(4):
        examples = {(whose(example)[0], len(example.boxes)) for example in batches(k)}
        assert examples == {(3, 1), (7, 2)}
    with pytest.raises(ValueError, match="none of the 3 images of train has an object to detect"):
        opened(with_truths(scenes.train, *none))


def test_bad_images_are_replaced_by_the_next_one_and_logged_once(
    opened: Opened, scenes: DetectionSplits, coco: Path, whose: Whose
) -> None:
    train = open_detection(coco).train
    (coco / "train" / "000002.png").unlink()
    (coco / "train" / "000003.png").write_bytes(b"no image")
    (coco / "train" / "000007.png").write_bytes((coco / "train" / "000000.png").read_bytes()[:900])
    sizes = [(128, 128)] * 8
    sizes[5] = (128, 100)
    batches = opened(replace(train, sizes=sizes), flip=True)
    shown = []
    for k in range(16):
        for example in batches(k):
            index, mirrored = whose(example)
            assert len(example.boxes) == len(scenes.train.truths[index])
            assert torch.equal(example.labels, scenes.train.truths[index].labels)
            assert mirrored or torch.equal(example.boxes, scenes.train.truths[index].boxes)
            shown.append(index)
    times = {0: 2, 1: 1, 4: 3, 6: 2}  # 7 -> 0, 2 and 3 -> 4, 5 -> 6
    assert {index: shown.count(index) for index in set(shown)} == {
        index: 6 * count for index, count in times.items()
    }
    reported = sorted(opened.reported)
    assert len(reported) == 4
    assert reported[0] == "skipped 000002.png: cannot be read (no such file or directory)"
    assert reported[1].startswith("skipped 000003.png: not an image")
    assert reported[2] == "skipped 000005.png: 128 x 128 pixels, but annotated as 128 x 100"
    assert reported[3].startswith("skipped 000007.png: ")
    assert all("\n" not in line for line in reported)


@pytest.mark.parametrize("threads", [1, 3])
def test_replacements_do_not_depend_on_threads_or_start(
    opened: Opened, coco: Path, threads: int
) -> None:
    train = open_detection(coco).train
    for name in ("000001", "000002", "000006"):
        (coco / "train" / f"{name}.png").write_bytes(b"")
    reference_maker = opened(train, flip=True, shorter=[32, 48])
    reference = [reference_maker(k) for k in range(6)]
    batches = opened(train, flip=True, shorter=[32, 48], threads=threads)
    assert all(same(batches(k), reference[k]) for k in (3, 4, 5, 0, 1, 2))


def test_a_custom_reader_may_raise_the_errors_of_open(
    opened: Opened, scenes: DetectionSplits, coco: Path, whose: Whose
) -> None:
    train = replace(scenes.train, read=lambda file: (coco / "train" / file).read_bytes())
    (coco / "train" / "000004.png").unlink()
    batches = opened(train, size=8)
    assert 4 not in {whose(example)[0] for example in batches(0)}
    (line,) = opened.reported
    assert line.startswith("skipped ")
    assert "000004.png" in line


def test_too_many_bad_images_are_an_error(opened: Opened, coco: Path) -> None:
    train = open_detection(coco).train
    (coco / "train" / "000001.png").unlink()
    (one := opened(train, size=8, bad_limit=0.01))(0)  # one is allowed in a set of any size
    one(1)
    assert len(opened.reported) == 1
    with pytest.raises(ValueError, match=r"1 of 8 .* bad_limit=0 .*000001\.png: .*check FOLDER"):
        opened(train, size=8, bad_limit=0)(0)
    (coco / "train" / "000004.png").unlink()
    opened(train, size=8, bad_limit=0.25)(0)
    with pytest.raises(ValueError, match=r"^2 of 8 .* bad_limit=0\.2 .*`reslab check FOLDER`"):
        opened(train, size=8, bad_limit=0.2)(0)


def test_a_search_for_a_good_image_ends_with_the_limit(
    opened: Opened, scenes: DetectionSplits
) -> None:
    """If all images are bad, the error comes before all have been decoded."""
    read: list[str] = []

    def counted(file: str) -> bytes:
        read.append(file)
        return b"no"

    train = replace(scenes.train, read=counted)
    with pytest.raises(ValueError, match=r"3 of 8 .*bad_limit=0\.25 allows 2 .*example .*check"):
        opened(train, size=1, bad_limit=0.25, threads=1, last=1)(0)
    assert len(read) == 3
    with pytest.raises(ValueError, match="8 of 8 images cannot be used"):
        opened(train, size=1)(0)


def test_only_images_to_train_on_count_for_the_limit(
    opened: Opened, scenes: DetectionSplits, coco: Path, whose: Whose
) -> None:
    """A replacement always has objects, too."""
    train = open_detection(coco).train
    (coco / "train" / "000000.png").unlink()
    truths = [truth([10, 10, 60, 60]), truth(), truth([20, 20, 50, 70]), truth()]
    batches = opened(with_truths(train, *truths), size=2)
    assert batches.count == 2
    assert {whose(example)[0] for example in batches(0)} == {2}


def test_boxes_fit_an_image_that_is_reduced(
    opened: Opened, scenes: DetectionSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Annotations are in pixels of the full size, 128 x 128, and 64 x 64 are decoded."""

    def read(file: str) -> bytes:
        encoded = io.BytesIO()
        Image.open(io.BytesIO(scenes.train.read(file))).convert("RGB").save(encoded, "JPEG")
        return encoded.getvalue()

    train = replace(scenes.train, read=read)
    whole = opened(train, shorter=(96,))(0)
    for module in ("jpeg", "decode"):
        monkeypatch.setattr(f"reslab.data.{module}.MAX_PIXELS", 10_000)
    assert train.image(0).shape == (64, 64, 3)
    reduced = opened(train, shorter=(96,))(0)
    for one, other in zip(whole, reduced, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert one.ratio == other.ratio == 96 / 128
        assert one.image.shape == other.image.shape
        assert (one.image - other.image).abs().mean() < 20
    assert opened.reported == []
