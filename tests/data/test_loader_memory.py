import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reslab.data.datasets import ImagesInMemory, pixel_mean
from reslab.data.loader import InMemoryLoader
from reslab.models.preprocessing import minus_mean


def a_set(count: int) -> ImagesInMemory:
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    return ImagesInMemory("train", images, torch.arange(count), ("a", "b"))


def batches(
    train: ImagesInMemory, size: int, seed: int = 1, pad: int = 2, flip: bool = True
) -> InMemoryLoader:
    prepare = minus_mean(pixel_mean(train.images))
    return InMemoryLoader(train, prepare, size=size, pad=pad, flip=flip, seed=seed)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 50), epochs=st.integers(1, 4))
def test_each_epoch_shows_every_image_once(count: int, size: int, epochs: int) -> None:
    """Also where batches reach over the end of an epoch, or hold several epochs."""
    loader = batches(a_set(count), size)
    needed = -(-count * epochs // size)
    order = torch.cat([loader.indices(k) for k in range(needed)])
    for epoch in range(epochs):
        part = order[epoch * count : (epoch + 1) * count]
        assert sorted(part.tolist()) == list(range(count))


def test_a_batch_is_a_function_of_seed_and_iteration() -> None:
    train = a_set(50)
    loader = batches(train, 16)
    forwards = [loader(k) for k in range(8)]
    fresh = batches(train, 16)
    for k in reversed(range(8)):
        assert torch.equal(fresh(k).images, forwards[k].images)
        assert torch.equal(fresh(k).labels, forwards[k].labels)
    other = batches(train, 16, seed=2)(0)
    assert not torch.equal(other.labels, forwards[0].labels)


def test_a_batch_is_a_function_of_its_draws_which_are_on_the_cpu() -> None:
    """Of several processes each draws its part of what one process would draw."""
    train = a_set(50)
    whole, halves = batches(train, 16), [batches(train, 16) for _ in range(2)]
    for loader, part in zip(halves, (slice(8), slice(8, 16)), strict=True):
        loader.rank_slice = part
    draws = whole.draws(3)
    assert all(it.device.type == "cpu" for it in (draws.indices, *draws.numbers))
    parts = [loader.draws(3) for loader in halves]
    assert torch.equal(torch.cat([part.indices for part in parts]), draws.indices)
    for number, numbers in enumerate(draws.numbers):
        assert torch.equal(torch.cat([part.numbers[number] for part in parts]), numbers)
    assert torch.equal(batches(train, 16, seed=9).batch(draws).images, whole(3).images)


def test_epochs_are_shuffled_anew() -> None:
    loader = batches(a_set(32), 32)
    assert not torch.equal(loader.indices(0), loader.indices(1))


def test_without_augmentation_a_batch_is_the_image_minus_the_mean() -> None:
    train = a_set(10)
    batch = batches(train, 10, pad=0, flip=False)(0)
    expected = train.images.float() - pixel_mean(train.images)
    assert torch.equal(batch.images, expected[batch.labels])


def test_the_mean_is_subtracted_before_padding_with_zeros() -> None:
    """Constant images are their own mean: minus it, padded with zeros, all is zero."""
    images = torch.full((4, 3, 8, 8), 200, dtype=torch.uint8)
    train = ImagesInMemory("train", images, torch.arange(4), ("a",))
    assert not batches(train, 4, pad=4)(0).images.any()


def test_batches_lie_channels_last() -> None:
    images = batches(a_set(8), 8)(0).images
    assert images.is_contiguous(memory_format=torch.channels_last)
