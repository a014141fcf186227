"""Pooling of regions in ONNX against loops over bins."""

import pytest
import torch
from tests.deploy.graphs import run_steps
from tests.detection import references
from tests.detection.small import SMALL

from reslab.deploy.regions import add_pooling
from reslab.detection.config import DetectorConfig

CHANNELS, STRIDE = 3, 2  # the stride of the small trunk


def pooled(features: torch.Tensor, boxes: torch.Tensor, config: DetectorConfig) -> torch.Tensor:
    longest = STRIDE * max(features.shape[2:])
    (found,) = run_steps(
        lambda step, names: [add_pooling(step, "map", CHANNELS, "boxes", config, longest)],
        {"map": features.numpy(), "boxes": boxes.numpy()},
    )
    return torch.from_numpy(found)


def regions(height: int, width: int) -> torch.Tensor:
    """Return regions in pixels of a map: of all sizes, at its borders, and without area."""
    rng = torch.Generator().manual_seed(4)
    corners = torch.rand(40, 2, 2, generator=rng) * torch.tensor([width, height]) * STRIDE
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    right, bottom = width * STRIDE, height * STRIDE
    edges = [
        [0, 0, right, bottom],  # the whole image
        [right, bottom, right, bottom],  # outside the map
        [0, 0, 0, 0],
        [right - 1.2, 0, right, bottom],
        [0, bottom - 0.9, right, bottom],
        [5, 3, 5.5, 3.5],
    ]
    return torch.cat([boxes, torch.tensor(edges)])


@pytest.mark.parametrize("size", [1, 3, 14])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 9), (24, 31)])
def test_max_pooling_equals_loops_over_bins(size: int, height: int, width: int) -> None:
    config = DetectorConfig(trunk=SMALL, classes=1, pooled=size)
    assert config.stride == STRIDE
    rng = torch.Generator().manual_seed(5)
    features = torch.randn(1, CHANNELS, height, width, generator=rng)
    boxes = regions(height, width)
    images = torch.zeros(len(boxes), dtype=torch.int64)
    expected = references.roi_pool(features, boxes, images, size, STRIDE)
    assert torch.equal(pooled(features, boxes, config), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (17, 9)])
def test_align_equals_interpolation_point_by_point(height: int, width: int) -> None:
    config = DetectorConfig(trunk=SMALL, classes=1, pooled=3, pooling="align")
    features = torch.randn(1, CHANNELS, height, width, generator=torch.Generator().manual_seed(6))
    boxes = regions(height, width)
    images = torch.zeros(len(boxes), dtype=torch.int64)
    expected = references.roi_align(features, boxes, images, 3, STRIDE, 2)
    torch.testing.assert_close(pooled(features, boxes, config), expected, rtol=1e-4, atol=1e-5)
