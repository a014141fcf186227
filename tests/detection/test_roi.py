import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.detection import references
from torch import Tensor

from reslab.detection import roi
from reslab.detection.roi import add_by_place, add_in_order, range_max, roi_align, roi_pool

FIRST = torch.zeros(1, dtype=torch.int64)  # all regions are in image 0


def board(height: int, width: int) -> Tensor:
    """Return a map of 0, 1, 2 ... row by row, [1, 1, height, width]."""
    return torch.arange(float(height * width)).view(1, 1, height, width)


def noise(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def regions(count: int, rng: torch.Generator) -> Tensor:
    """Sample regions on and around a map of 9 x 12 16-pixel cells, some of a pixel or two."""
    start = torch.rand(count, 2, generator=rng) * torch.tensor([220.0, 170]) - 20
    sides = torch.rand(count, 2, generator=rng) ** 3 * torch.tensor([200.0, 150]) + 1
    return torch.cat([start, start + sides], 1).double()


def test_bins_by_hand() -> None:
    """Cells 1 to 5 of 6 rows and 0 to 2 of 4 columns: overlapping bins of 3 rows, of 2 columns."""
    box = torch.tensor([[0.0, 16, 48, 96]])  # the last pixel, (47, 95), is at cells 2.9 and 5.9
    pooled = roi_pool(board(6, 4), box, FIRST, size=2, stride=16)
    # rounded to 3 and 6: columns 0 1 | 2 3, rows 1 2 3 | 4 5 (6 is off the map)
    assert pooled.tolist() == [[[[13, 15], [21, 23]]]]
    pooled = roi_pool(board(6, 4), box - torch.tensor([0.0, 0, 8, 8]), FIRST, size=2, stride=16)
    # last pixels 39 and 87 are at 2.4 and 5.4: columns 0 1 | 1 2, rows 1 2 3 | 3 4 5
    assert pooled.tolist() == [[[[13, 14], [21, 22]]]]


def test_halves_round_up() -> None:
    """Fast R-CNN's C code rounds 0.5 to 1 and 2.5 to 3; torch rounds to even."""
    box = torch.tensor([[8.0, 8, 41, 41]])  # first pixel at 0.5 cells, last pixel at 2.5
    assert roi_pool(board(5, 5), box, FIRST, 1, 16).item() == 18  # row 3, column 3
    pooled = roi_pool(-board(5, 5), box, FIRST, 1, 16).item()
    assert pooled == -6  # row 1, column 1


def test_a_small_region_fills_all_bins_with_its_cell() -> None:
    pooled = roi_pool(board(4, 4), torch.tensor([[17.0, 33, 19, 34]]), FIRST, 7, 16)
    assert torch.equal(pooled, torch.full((1, 1, 7, 7), 9.0))


def test_bins_off_the_map_are_zero_without_gradient() -> None:
    features = (-1 - board(2, 2)).requires_grad_()
    box = torch.tensor([[16.0, 0, 80, 8]])  # row 0, columns 1 to 5 of 2
    pooled = roi_pool(features, box, FIRST, 2, 16)
    assert pooled.tolist() == [[[[-2, 0], [-2, 0]]]]
    pooled.sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [[[[0, 2], [0, 0]]]]


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("together", [2, 256])  # of 5 channels
def test_pooling_against_plain_loops(
    size: int, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images, regions of any size on and off the map, with and without gradients."""
    monkeypatch.setattr(roi, "CHANNELS", together)
    features = noise(2, 5, 9, 12)
    rng = torch.Generator().manual_seed(size)
    boxes = regions(20, rng)
    images = torch.randint(0, 2, (20,), generator=rng)
    expected = references.roi_pool(features, boxes, images, size, 16)
    for layout in (torch.contiguous_format, torch.channels_last):
        ours = features.contiguous(memory_format=layout)
        assert torch.equal(roi_pool(ours, boxes, images, size, 16), expected)
        learning = roi_pool(ours.clone().requires_grad_(), boxes, images, size, 16)
        assert torch.equal(learning, expected)
        assert learning.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_of_pooling_against_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi, "CHANNELS", 1)
    features, boxes = noise(1, 2, 9, 12), regions(8, torch.Generator().manual_seed(0))
    images = torch.zeros(8, dtype=torch.int64)
    weights = noise(8, 2, 3, 3, seed=1)
    gradients = []
    for layer in (roi_pool, references.roi_pool):
        learning = features.clone().requires_grad_()
        (layer(learning, boxes, images, 3, 16) * weights).sum().backward()
        gradients.append(learning.grad)
    torch.testing.assert_close(*gradients)


def test_of_equal_maxima_one_cell_gets_the_gradient() -> None:
    features = torch.zeros(1, 1, 5, 5, requires_grad=True)
    box = torch.tensor([[0.0, 0, 80, 80]])
    grads = []
    for _ in range(2):
        features.grad = None
        roi_pool(features, box, FIRST, 1, 16).sum().backward()
        assert features.grad is not None
        grads.append(features.grad)
    assert sorted(grads[0].flatten().tolist()) == [0] * 24 + [1]
    assert torch.equal(*grads)


@pytest.mark.parametrize("layer", [roi_pool, roi_align])
def test_gradients_in_float64(layer) -> None:
    features = noise(2, 3, 5, 6).requires_grad_()
    boxes = regions(4, torch.Generator().manual_seed(0)) / 2
    images = torch.tensor([0, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda f: layer(f, boxes, images, 3, 16), features)


@pytest.mark.parametrize("layer", [roi_pool, roi_align])
def test_no_regions(layer) -> None:
    features = noise(1, 3, 5, 6).requires_grad_()
    pooled = layer(features, torch.zeros(0, 4), FIRST[:0], 7, 16)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


def test_align_by_hand() -> None:
    """A plane is interpolated exactly: each bin has the value at its centre, half a pixel off."""
    pooled = roi_align(board(6, 8), torch.tensor([[16.0, 32, 80, 64]]), FIRST, 2, 16)
    # cells 1 to 5 and 2 to 4: bin centres 2, 4 and 2.5, 3.5; the centre of cell 0 is at 0.5
    expected = [[8 * y + x for x in (1.5, 3.5)] for y in (2.0, 3.0)]
    assert pooled.tolist() == [[expected]]


@pytest.mark.parametrize("points", [1, 2, 3])
def test_align_against_plain_loops(points: int) -> None:
    features, rng = noise(2, 3, 9, 12), torch.Generator().manual_seed(points)
    boxes, images = regions(20, rng), torch.randint(0, 2, (20,), generator=rng)
    expected = references.roi_align(features, boxes, images, 3, 16, points)
    pooled = roi_align(features, boxes, images, 3, 16, points)
    torch.testing.assert_close(pooled, expected)
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_align_of_a_mirrored_image_is_mirrored() -> None:
    """Max pooling, which rounds, lacks this property."""
    features, boxes = noise(1, 4, 9, 12), torch.tensor([[21.3, 40.2, 101.7, 91.1]]).double()
    mirrored = boxes.clone()
    mirrored[:, [0, 2]] = 12 * 16 - boxes[:, [2, 0]]
    one = roi_align(features, boxes, FIRST, 4, 16)
    other = roi_align(features.flip(3), mirrored, FIRST, 4, 16)
    torch.testing.assert_close(other.flip(3), one)


def largest(features: Tensor, *rectangles: tuple[int, int, int, int, int]) -> Tensor:
    """Return `range_max` for rectangles (image, top, bottom, left, right)."""
    table = torch.tensor(rectangles).T
    return range_max(features, table[0], table[1:3], table[3:5])


def test_range_max_by_hand() -> None:
    features = torch.tensor([[[[1.0, 9, 2], [3, 4, 5]]], [[[-1, -2, -3], [-4, -5, -6]]]])
    values = largest(
        features,
        (0, 0, 2, 0, 3), (0, 1, 2, 0, 2), (0, 0, 1, 2, 3),
        (1, 0, 2, 1, 3), (1, 1, 1, 0, 3), (1, 0, 2, 3, 1),
    )  # fmt: skip
    assert values.tolist() == [[9], [4], [2], [-2], [0], [0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_every_rectangle_of_a_map(height: int, width: int, seed: int) -> None:
    """With few distinct values, so that many are equal; the gradient goes to one maximum."""
    rng = torch.Generator().manual_seed(seed)
    features = torch.randint(-2, 3, (1, 2, height, width), generator=rng).double().requires_grad_()
    rows = [(top, stop) for stop in range(height + 1) for top in range(stop)]
    columns = [(left, stop) for stop in range(width + 1) for left in range(stop)]
    every = [(0, *row, *column) for row in rows for column in columns]
    some = [every[k] for k in torch.randperm(len(every), generator=rng)[:20].tolist()]
    pooled = largest(features, *some)
    for (_, top, bottom, left, right), values in zip(some, pooled, strict=True):
        part = features[0, :, top:bottom, left:right]
        assert torch.equal(values, part.amax((1, 2)))
        (gradient,) = torch.autograd.grad(values.sum(), features, retain_graph=True)
        inside = gradient[0, :, top:bottom, left:right]
        assert gradient.sum() == inside.sum() == 2
        assert torch.equal((inside * part).sum((1, 2)), values)


def test_nan_stays_nan() -> None:
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, 2, 1] = float("nan")
    values = largest(features, (0, 0, 4, 0, 4), (0, 0, 2, 0, 4))
    assert values.isnan().tolist() == [[True], [False]]


def test_both_additions_agree_with_a_plain_loop() -> None:
    """The total is a slice of a larger tensor, like a block of a feature map's channels; half of
    the values go to a quarter of the cells."""
    rng = torch.Generator().manual_seed(0)
    places = torch.randint(0, 8, (40, 3), generator=rng)
    places[:20] %= 2
    values = torch.randint(-9, 10, (40, 3), generator=rng).double()
    expected = torch.ones(8, 6, dtype=torch.float64)
    for row, numbers in zip(places.tolist(), values.tolist(), strict=True):
        for column, (place, number) in enumerate(zip(row, numbers, strict=True)):
            expected[place, 2 + column] += number
    for add in (add_by_place, add_in_order):
        total = torch.ones(8, 6, dtype=torch.float64)
        add(total[:, 2:5], places, values)
        assert torch.equal(total, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU adds in a changing order")
def test_the_gradient_repeats_its_bits_on_a_gpu() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(1, 512, 20, 30, generator=rng).cuda().requires_grad_()
    corners = [torch.randint(0, length, (3000,), generator=rng) for length in (17, 27)]
    rows = [
        (0, y, y + 3, x, x + 3) for y, x in zip(*map(torch.Tensor.tolist, corners), strict=True)
    ]
    table = torch.tensor(rows).T.cuda()
    weights = torch.randn(3000, 512, generator=rng).cuda()
    gradients = [
        torch.autograd.grad(
            (range_max(features, table[0], table[1:3], table[3:5]) * weights).sum(), features
        )[0]
        for _ in range(5)
    ]
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])
