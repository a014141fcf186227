import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from reslab.data.augment import ResizedCrop, ScaleCrop
from reslab.data.datasets import EncodedImages, ImagesInMemory, pixel_mean
from reslab.data.decode import load_image
from reslab.data.loader import Batch, EncodedLoader, InMemoryLoader
from reslab.data.resize import shorter_side
from reslab.data.sampler import Stream, make_generator
from reslab.data.statistics import ALEXNET, Components
from reslab.models.preprocessing import minus_mean

# sets in memory


def memory_set(count: int) -> ImagesInMemory:
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    return ImagesInMemory("train", images, torch.arange(count), ("a", "b"))


def in_memory(
    train: ImagesInMemory, size: int, seed: int = 1, pad: int = 2, flip: bool = True
) -> InMemoryLoader:
    prepare = minus_mean(pixel_mean(train.images))
    return InMemoryLoader(train, prepare, size=size, pad=pad, flip=flip, seed=seed)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 50), epochs=st.integers(1, 4))
def test_each_epoch_shows_every_image_once(count: int, size: int, epochs: int) -> None:
    """Also if batches extend past the end of an epoch, or contain several epochs."""
    loader = in_memory(memory_set(count), size)
    needed = -(-count * epochs // size)
    order = torch.cat([loader.indices(k) for k in range(needed)])
    for epoch in range(epochs):
        part = order[epoch * count : (epoch + 1) * count]
        assert sorted(part.tolist()) == list(range(count))


def test_a_batch_is_a_function_of_seed_and_iteration() -> None:
    train = memory_set(50)
    loader = in_memory(train, 16)
    forwards = [loader(k) for k in range(8)]
    fresh = in_memory(train, 16)
    for k in reversed(range(8)):
        assert torch.equal(fresh(k).images, forwards[k].images)
        assert torch.equal(fresh(k).labels, forwards[k].labels)
    other = in_memory(train, 16, seed=2)(0)
    assert not torch.equal(other.labels, forwards[0].labels)


def test_a_batch_is_a_function_of_its_draws_on_the_cpu() -> None:
    """Each of several processes has its part of the draws of one process."""
    train = memory_set(50)
    whole, halves = in_memory(train, 16), [in_memory(train, 16) for _ in range(2)]
    for loader, part in zip(halves, (slice(8), slice(8, 16)), strict=True):
        loader.rank_slice = part
    draws = whole.draws(3)
    assert all(tensor.device.type == "cpu" for tensor in (draws.indices, *draws.numbers))
    parts = [loader.draws(3) for loader in halves]
    assert torch.equal(torch.cat([part.indices for part in parts]), draws.indices)
    for number, numbers in enumerate(draws.numbers):
        assert torch.equal(torch.cat([part.numbers[number] for part in parts]), numbers)
    assert torch.equal(in_memory(train, 16, seed=9).batch(draws).images, whole(3).images)


def test_epochs_are_shuffled_anew() -> None:
    loader = in_memory(memory_set(32), 32)
    assert not torch.equal(loader.indices(0), loader.indices(1))


def test_without_augmentation_a_batch_is_the_images_minus_the_mean() -> None:
    train = memory_set(10)
    batch = in_memory(train, 10, pad=0, flip=False)(0)
    expected = train.images.float() - pixel_mean(train.images)
    assert torch.equal(batch.images, expected[batch.labels])


def test_the_mean_is_subtracted_before_padding_with_zeros() -> None:
    """Images that equal their mean are all zeros after subtraction and padding."""
    images = torch.full((4, 3, 8, 8), 200, dtype=torch.uint8)
    train = ImagesInMemory("train", images, torch.arange(4), ("a",))
    assert not in_memory(train, 4, pad=4)(0).images.any()


def test_batches_are_channels_last() -> None:
    images = in_memory(memory_set(8), 8)(0).images
    assert images.is_contiguous(memory_format=torch.channels_last)


# encoded sets

SMALL = ScaleCrop(size=8, shorter_side=(9, 14))


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "png")
    return out.getvalue()


def a_set(count: int = 20, bad: tuple[int, ...] = (), classes: int = 4) -> EncodedImages:
    """Return a set whose image k has the colour (k, k, k), so that batches show their images."""
    files = {
        f"{k}.png": b"no" if k in bad else png(np.full((10 + k, 12, 3), k, np.uint8))
        for k in range(count)
    }
    names = tuple("abcdefgh"[:classes])
    labels = torch.arange(count) % classes
    return EncodedImages("train", list(files), labels, names, names, files.__getitem__)


def noise_set(count: int = 20) -> EncodedImages:
    rng = np.random.default_rng(0)
    files = {
        f"{k}.png": png(rng.integers(0, 256, (15 + k, 20, 3), dtype=np.uint8)) for k in range(count)
    }
    labels = torch.arange(count) % 4
    return EncodedImages("train", list(files), labels, tuple("abcd"), (), files.__getitem__)


class Opened:
    """Open loaders, collect their log lines, and close them after the test."""

    def __init__(self) -> None:
        self.all: list[EncodedLoader] = []
        self.reported: list[str] = []

    def __call__(
        self,
        train: EncodedImages,
        augmentation: ScaleCrop | ResizedCrop = SMALL,
        colour: Components | None = None,
        size: int = 6,
        seed: int = 1,
        threads: int = 2,
        balanced: bool = False,
        bad_limit: float = 1.0,
        last: int | None = None,
        prepare: Callable[[Tensor], Tensor] = lambda images: images,
    ) -> EncodedLoader:
        made = EncodedLoader(
            train, prepare, augmentation=augmentation, colour=colour, size=size, seed=seed,
            threads=threads, balanced=balanced, bad_limit=bad_limit, log=self.reported.append,
            last=last,
        )  # fmt: skip
        self.all.append(made)
        return made


@pytest.fixture
def opened() -> Iterator[Opened]:
    made = Opened()
    yield made
    for batches in made.all:
        batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("reslab-images")]


def shown(batch: Batch) -> list[int]:
    """Return the indices of the images of `a_set` in a batch."""
    assert (batch.images.amax((1, 2, 3)) == batch.images.amin((1, 2, 3))).all()
    return batch.images[:, 0, 0, 0].int().tolist()


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_an_epoch_shows_every_image_once_with_its_label(opened: Opened) -> None:
    batches = opened(a_set(20), size=6)
    seen = []
    for k in range(10):
        batch = batches(k)
        assert batch.labels.tolist() == [image % 4 for image in shown(batch)]
        seen += shown(batch)
    for epoch in range(3):
        assert sorted(seen[20 * epoch : 20 * epoch + 20]) == list(range(20))
    assert seen[:20] != seen[20:40]


@pytest.mark.parametrize("augmentation", [SMALL, ResizedCrop(size=8, colour=0.1)])
def test_batches_do_not_depend_on_how_they_are_prepared(
    opened: Opened, augmentation: ScaleCrop | ResizedCrop
) -> None:
    """Not on the number of threads, the first iteration, the order of requests or prefetching."""
    train = noise_set()
    reference = [opened(train, augmentation, ALEXNET)(k) for k in range(9)]
    for threads in (1, 3):
        batches = opened(train, augmentation, ALEXNET, threads=threads, last=7)
        assert all(same(batches(k), reference[k]) for k in range(9))
    resumed = opened(train, augmentation, ALEXNET)
    assert all(same(resumed(k), reference[k]) for k in (5, 6, 7, 2, 8, 0, 0, 1))
    other = opened(train, augmentation, ALEXNET, seed=2)(0)
    assert not torch.equal(other.images, reference[0].images)


def test_a_batch_equals_the_straightforward_computation(opened: Opened, shared: Path) -> None:
    """Up to rounding: photographs are resized as a whole, cropped and mirrored one by one."""
    root = shared / "imagenet" / "samples"
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.JPEG"))[:12]
    labels = torch.arange(12)
    train = EncodedImages(
        "train", files, labels, tuple(files), (), lambda f: (root / f).read_bytes()
    )
    batches = opened(train, ScaleCrop(), None, size=12, seed=5)
    for k in range(2):
        rng = make_generator(5, Stream.AUGMENTATION, k)
        draws = torch.rand(12, 4, generator=rng, dtype=torch.float64).tolist()
        batch = batches(k)
        for image, label, row in zip(batch.images, batch.labels.tolist(), draws, strict=True):
            expected = by_pillow(load_image(train.read(files[label]), files[label]), row)
            difference = (image - expected).abs()
            assert difference.max() <= 2
            assert difference.mean() < 0.05


def by_pillow(image: np.ndarray, draws: list[float]) -> Tensor:
    """Return a crop of the resized whole image, mirrored if the draw says so."""
    side, left, top, mirror = draws
    size = shorter_side(image.shape[1], image.shape[0], 256 + int(side * 225))
    whole = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    x, y = int(left * (size[0] - 223)), int(top * (size[1] - 223))
    crop = whole.crop((x, y, x + 224, y + 224))
    if mirror < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float()


def test_a_colour_shift_is_the_same_for_all_pixels_of_an_image(opened: Opened) -> None:
    train = noise_set()
    plain, moved = opened(train)(3), opened(train, colour=ALEXNET)(3)
    shift = moved.images - plain.images
    first = shift[:, :, :1, :1]
    assert torch.allclose(shift, first.expand_as(shift), atol=1e-4)
    assert len(first[:, 0].unique()) == 6
    rotated = first[:, :, 0, 0] @ ALEXNET.vectors / ALEXNET.values  # the sampled factors
    assert (rotated.abs() < 0.5).all()
    assert (rotated.abs() > 1e-4).any()


def test_prepare_gets_channels_last_floats(opened: Opened) -> None:
    prepared: list[Tensor] = []

    def prepare(images: Tensor) -> Tensor:
        prepared.append(images)
        return images - 1

    batch = opened(a_set(), prepare=prepare, last=1)(0)
    (images,) = prepared
    assert images.shape == (6, 3, 8, 8)
    assert images.dtype == torch.float32
    assert torch.equal(batch.images, images - 1)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_sampler_shows_each_class_equally_often(opened: Opened) -> None:
    train = a_set(21)
    train = train.take("train", torch.tensor([0, 4, 8, 12, 16, 20, 1, 2]))  # 6 a, 1 b, 1 c
    labels = [label for k in range(5) for label in opened(train, balanced=True)(k).labels]
    assert torch.stack(labels).bincount().tolist() == [10, 10, 10]


def test_a_bad_file_is_replaced_by_the_next_file_of_its_class_and_logged_once(
    opened: Opened,
) -> None:
    batches = opened(a_set(20, bad=(5, 9, 19)))
    seen = [image for k in range(10) for image in shown(batches(k))]
    # 5 -> 9 -> 13, and 19 -> 3, the first of its class
    twice = {13: 3, 3: 2}
    for image in set(range(20)) - {5, 9, 19}:
        assert seen.count(image) == 3 * twice.get(image, 1)
    named = sorted(line.split(":")[0] for line in opened.reported)
    assert named == ["skipped 19.png", "skipped 5.png", "skipped 9.png"]


def test_replacements_have_the_same_label(opened: Opened) -> None:
    batches = opened(a_set(20, bad=(0, 1, 2, 3)))
    for k in range(4):
        batch = batches(k)
        assert batch.labels.tolist() == [image % 4 for image in shown(batch)]


@pytest.mark.parametrize("threads", [1, 4])
def test_replacements_do_not_depend_on_threads_or_start(opened: Opened, threads: int) -> None:
    train = a_set(20, bad=(5, 9, 19))
    reference = [opened(train)(k) for k in range(6)]
    batches = opened(train, threads=threads)
    assert all(same(batches(k), reference[k]) for k in (3, 4, 5, 0, 1, 2))


def test_too_many_bad_files_are_an_error(opened: Opened) -> None:
    train = a_set(20, bad=(5, 9))
    enough = opened(train, bad_limit=0.1)
    for k in range(8):
        enough(k)
    too_few = opened(train, bad_limit=0.09)
    with pytest.raises(
        ValueError, match=r"2 of 20 .*bad_limit=0\.09 allows 1; `reslab check FOLDER`"
    ):
        [too_few(k) for k in range(8)]


def test_a_class_without_a_good_image_is_an_error(opened: Opened) -> None:
    batches = opened(a_set(20, bad=(1, 5, 9, 13, 17)))
    with pytest.raises(ValueError, match=r"class 'b'.*1?\d\.png: .*`reslab check FOLDER`"):
        [batches(k) for k in range(8)]


def test_only_a_few_batches_are_prepared_in_advance(opened: Opened) -> None:
    read: list[str] = []
    train = a_set(20)

    def counted(file: str) -> bytes:
        read.append(file)
        return train.read(file)

    source = EncodedImages("train", train.files, train.labels, train.classes, (), counted)
    batches = opened(source, size=6, last=4)
    for k in range(3):
        batches(k)
    batches.close()
    assert len(read) <= 6 * 5
    read.clear()
    until = opened(source, size=6, last=1)
    until(0)
    until(1)
    until(2)  # beyond `last`, but returned on request
    until.close()
    assert len(read) == 6 * 3


def test_the_number_of_threads_of_the_caller_is_unchanged(opened: Opened) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        opened(a_set())(0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
