import torch

from reslab.data.batch_augment import draw_flips, draw_offsets, flip, pad_and_crop


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_81_offsets_occur_about_equally_and_each_is_a_correct_crop() -> None:
    """All pixels of the image are different, which shows where each crop comes from."""
    image = torch.arange(1.0, 1025).reshape(1, 1, 32, 32)
    padded = torch.zeros(40, 40)
    padded[4:36, 4:36] = image[0, 0]
    count = 81 * 60
    crops = pad_and_crop(image.expand(count, 1, 32, 32), 4, draw_offsets(count, 4, rng()))
    windows = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    seen = dict.fromkeys(windows, 0)
    for crop in crops[:, 0]:
        # pixel (16, 16) of a crop at (y, x) is pixel (y + 12, x + 12) of the image
        y, x = divmod(int(crop[16, 16]) - 1, 32)
        offset = (y - 12, x - 12)
        assert torch.equal(crop, windows[offset])
        seen[offset] += 1
    # 60 expected for each; some binomial count leaves 25..110 once in 10^5 such tests
    assert all(25 < times < 110 for times in seen.values())


def test_channels_are_cropped_together() -> None:
    image = torch.rand(5, 1, 16, 16, generator=rng()).expand(5, 3, 16, 16)
    crops = pad_and_crop(image, 2, draw_offsets(5, 2, rng(1)))
    assert torch.equal(crops[:, 0], crops[:, 1])
    assert torch.equal(crops[:, 0], crops[:, 2])


def test_a_crop_is_mirrored_after_it_is_taken() -> None:
    images = torch.rand(40, 3, 8, 10, generator=rng())
    offsets, flips = draw_offsets(40, 2, rng(1)), draw_flips(40, rng(2))
    expected = flip(pad_and_crop(images, 2, offsets), flips)
    crops = pad_and_crop(images, 2, offsets, flips)
    assert torch.equal(crops, expected)
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_flip_mirrors_about_half_and_nothing_else() -> None:
    images = torch.rand(2000, 1, 2, 3, generator=rng())
    flipped = flip(images, draw_flips(2000, rng(1)))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 900 < mirrored.sum() < 1100


def test_random_numbers_come_only_from_the_generator() -> None:
    torch.manual_seed(1)
    offsets, flips = draw_offsets(8, 4, rng(7)), draw_flips(8, rng(8))
    torch.manual_seed(2)
    assert torch.equal(offsets, draw_offsets(8, 4, rng(7)))
    assert torch.equal(flips, draw_flips(8, rng(8)))
