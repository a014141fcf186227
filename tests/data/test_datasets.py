import pytest
import torch

from reslab.data.datasets import ImagesInMemory, hold_out, pixel_mean


def random_set(count: int) -> ImagesInMemory:
    images = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1).expand(count, 3, 2, 2)
    return ImagesInMemory("train", images.contiguous(), torch.arange(count), ("a", "b"))


def test_held_out_images_are_split_off_without_loss_and_always_the_same() -> None:
    remaining, held = hold_out(random_set(100), 30)
    assert (len(remaining), len(held)) == (70, 30)
    assert sorted(remaining.labels.tolist() + held.labels.tolist()) == list(range(100))
    assert torch.equal(hold_out(random_set(100), 30)[1].labels, held.labels)
    assert held.name == "held_out"


@pytest.mark.parametrize("count", [0, 100, 101])
def test_a_split_with_an_empty_side_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"held_out={count}"):
        hold_out(random_set(100), count)


def test_the_mean_is_exact_for_many_bright_images() -> None:
    images = torch.full((70_000, 3, 1, 1), 255, dtype=torch.uint8)
    images[0] = 254
    expected = (255 * 69_999 + 254) / 70_000
    assert torch.equal(pixel_mean(images), torch.full((3, 1, 1), expected))
