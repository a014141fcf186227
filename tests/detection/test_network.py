from math import exp

import pytest
import torch
from tests.detection import references
from tests.detection.small import LARGE, SMALL, network, scatter_statistics
from torch import Tensor, nn

from reslab.detection.box_ops import decode_boxes, iou
from reslab.detection.config import DetectorConfig
from reslab.detection.network import (
    PROPOSAL_NMS,
    AnchorPredictions,
    FasterRCNN,
    ProposalNetwork,
    build_detector,
)
from reslab.detection.targets import Anchors
from reslab.models.config import ResNetConfig, config_named
from reslab.models.layers import ConvBN
from reslab.models.parts import GroupNorm, NoisyBatchNorm, NoNorm
from reslab.models.random_layers import random_layers
from reslab.models.resnet import build_resnet

TRUNKS = {
    "cifar": SMALL,
    "imagenet": LARGE,
    "padded": LARGE.model_copy(update={"pool": "padded", "stride_on": "3x3"}),
}
CLASSES = 3


def config(trunk: ResNetConfig = SMALL, **changes: object) -> DetectorConfig:
    few = {"trunk": trunk, "classes": CLASSES, "sizes": (8, 16), "width": 5, "pooled": 6}
    return DetectorConfig.model_validate(few | changes)


def random_image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_a_config_is_json_both_ways() -> None:
    original = config(context=True, norm="group", pooling="align")
    assert DetectorConfig.model_validate_json(original.model_dump_json()) == original


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
@pytest.mark.parametrize("context", [False, True])
def test_shapes_from_image_to_deltas(trunk: ResNetConfig, context: bool) -> None:
    net = network(config(trunk, context=context))
    expansion, stride = (1, 2) if trunk is SMALL else (4, 16)
    assert net.config.stride == stride
    features = net.features(random_image(64, 96))
    assert features.shape == (1, 8 * expansion, 64 // stride, 96 // stride)
    boxes = torch.tensor([[0.0, 0, 20, 30], [5, 5, 64, 60]])
    regions_and_whole = net.append_whole_image(boxes, 96, 64)
    assert regions_and_whole.tolist() == boxes.tolist() + [[0, 0, 96, 64]] * context
    pooled = net.pool(features, regions_and_whole)
    assert pooled.shape == (len(regions_and_whole), 8 * expansion, 6, 6)
    regions = net.region_features(pooled)
    assert regions.shape == (len(regions_and_whole), 8 * expansion)
    scores, deltas = net.classify_regions(regions[:2], regions[2:])
    assert scores.shape == (2, CLASSES + 1)
    assert deltas.shape == (2, CLASSES, 4)
    assert net.classifier.in_features == (2 if context else 1) * 8 * expansion


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_the_paper_trunks_end_with_conv4_at_a_stride_of_16(name: str) -> None:
    trunk = config_named(name)
    with torch.device("meta"):
        net = FasterRCNN(config(trunk, norm="group"))
    assert net.config.stride == 16
    shared = 256 if name in ("resnet18", "resnet34") else 1024
    assert net.proposals.conv.in_channels == shared
    assert net.classifier.in_features == 2 * shared
    assert len(net.trunk) == 4  # conv1, conv2_x, conv3_x, conv4_x


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
@pytest.mark.parametrize("sides", [(64, 96), (61, 77), (67, 110), (33, 47)])
def test_a_map_covers_the_image_in_cells_of_the_stride(
    trunk: ResNetConfig, sides: tuple[int, int]
) -> None:
    net = network(config(trunk))
    map_sides = net.features(random_image(*sides)).shape[2:]
    for cells, side in zip(map_sides, sides, strict=True):
        # the authors' pooling drops a cell of four pixels if its last window lies outside
        fewest = -(-(side - 3) // net.config.stride)
        assert fewest <= cells <= -(-side // net.config.stride)
    assert len(net.config.anchors.grid(*map_sides)) == map_sides[0] * map_sides[1] * 6


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_moving_the_image_by_the_stride_moves_its_map_by_a_cell(trunk: ResNetConfig) -> None:
    net = network(config(trunk))
    stride = net.config.stride
    wide = random_image(20 * stride, 21 * stride)
    left_part = net.features(wide[..., :-stride])
    right_part = net.features(wide[..., stride:])
    middle = slice(8, 12)  # no receptive field reaches a border
    torch.testing.assert_close(
        left_part[..., 9:13][:, :, middle], right_part[..., 8:12][:, :, middle]
    )
    assert not torch.allclose(
        left_part[..., 8:12][:, :, middle], right_part[..., 8:12][:, :, middle]
    )


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_a_cells_receptive_field_lies_around_its_place(trunk: ResNetConfig) -> None:
    """The gradient of a cell is centred on its pixels, within half a cell."""
    net = network(config(trunk)).double()
    stride = net.config.stride
    image = random_image(20 * stride, 20 * stride).double().requires_grad_()
    net.features(image)[0, :, 10, 7].sum().backward()
    assert image.grad is not None
    reached = image.grad.abs().sum((0, 1)) > 0
    rows, columns = (reached.any(dim).nonzero()[:, 0] for dim in (1, 0))
    for touched, cell in ((rows, 10), (columns, 7)):
        middle = (touched.min().item() + touched.max().item() + 1) / 2
        assert abs(middle - (cell + 0.5) * stride) <= stride / 2


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_the_residual_part_is_the_classifiers(trunk: ResNetConfig) -> None:
    rng = torch.Generator().manual_seed(5)
    net = build_resnet(trunk, rng).eval()
    scatter_statistics(net, rng)
    mine = network(config(trunk))
    residual = {
        name: weight for name, weight in net.state_dict().items() if not name.startswith("fc.")
    }
    names = {name for name in mine.state_dict() if name.startswith(("stem.", "stages."))}
    assert names == residual.keys()
    mine.load_state_dict(mine.state_dict() | residual)
    image = random_image(125, 140)
    with torch.no_grad():
        shared = net.stages[:-1](net.stem(image))
        assert torch.equal(mine.features(image), shared)
        last = net.stages[-1](shared).mean((2, 3))
        torch.testing.assert_close(mine.region_features(shared), last)
        logits = net(image)
        torch.testing.assert_close(net.fc(last), logits)


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
def test_group_norm_replaces_every_batch_norm(trunk: ResNetConfig) -> None:
    rng = torch.Generator().manual_seed(0)
    net, plain = build_detector(config(trunk, norm="group"), rng), FasterRCNN(config(trunk))
    norms = [module.norm for module in net.modules() if isinstance(module, ConvBN)]
    assert len(norms) == sum(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert all(isinstance(norm, nn.GroupNorm) for norm in norms)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    for norm in norms:
        assert isinstance(norm, nn.GroupNorm)
        assert norm.num_channels // norm.num_groups >= 2
        assert torch.equal(norm.weight, torch.ones(norm.num_channels))
    # its output does not depend on the scale of its input
    image = random_image(40, 40)
    same = [net.stem[0](times * image) for times in (1, 7)]
    torch.testing.assert_close(*same, rtol=1e-3, atol=1e-3)


def test_a_trunk_is_not_random() -> None:
    """Weights of a net that was trained with random layers fit; the layers themselves are gone."""
    random = {"norm": NoisyBatchNorm(), "stochastic_depth": 0.5, "dropout": 0.2, "shortcut": "A"}
    trunk = ResNetConfig.model_validate(dict(SMALL) | random)
    net, plain = FasterRCNN(config(trunk)).train(), FasterRCNN(config(SMALL))
    assert not random_layers(net)
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert net.config.trunk == trunk


@pytest.mark.parametrize("norm", [GroupNorm(groups=2), NoNorm()])
def test_a_trunk_keeps_a_norm_of_its_own(norm: GroupNorm | NoNorm) -> None:
    trunk = ResNetConfig.model_validate(dict(SMALL) | {"norm": norm})
    rng = torch.Generator().manual_seed(0)
    net = build_detector(config(trunk, norm="group"), rng)  # for batch norm, which it has not
    norms = [module.norm for module in net.modules() if isinstance(module, ConvBN)]
    expected = nn.GroupNorm if isinstance(norm, GroupNorm) else nn.Identity
    assert all(isinstance(module, expected) for module in norms)
    assert net.features(random_image(40, 40)).isfinite().all()
    assert {name for name in build_resnet(trunk).state_dict() if name[:2] == "st"} == {
        name for name in net.state_dict() if name[:2] == "st"
    }


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7, 48, 80, 256])
def test_groups_share_any_number_of_channels_equally(width: int) -> None:
    trunk = SMALL.model_copy(update={"widths": (width, width, width)})
    net = FasterRCNN(config(trunk, norm="group"))
    (norm,) = {module for module in net.stem.modules() if isinstance(module, nn.GroupNorm)}
    assert width % norm.num_groups == 0
    assert norm.num_groups <= 32
    if width == 256:
        assert norm.num_groups == 32


def test_context_is_the_whole_image_beside_each_region() -> None:
    net = network(config(context=True))
    regions, whole = torch.randn(3, 8), torch.randn(1, 8)
    scores, deltas = net.classify_regions(regions, whole)
    for at in range(3):
        both = torch.cat([regions[at], whole[0]])
        torch.testing.assert_close(scores[at], net.classifier(both))
        torch.testing.assert_close(deltas[at].flatten(), net.regressor(both))
    other, _ = net.classify_regions(regions, whole + 1)
    assert not torch.allclose(other, scores)
    plain = network(config())
    alone, _ = plain.classify_regions(regions, whole[:0])
    torch.testing.assert_close(alone, plain.classifier(regions))


def test_deltas_are_ordered_class_by_class() -> None:
    net = network(config())
    net.regressor.weight.zero_()
    net.regressor.bias.copy_(torch.arange(12.0))
    _, deltas = net.classify_regions(torch.zeros(2, 8), torch.zeros(0, 8))
    assert deltas[1].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_new_layers_are_initialised_as_in_fast_rcnn() -> None:
    wide = config(SMALL.model_copy(update={"widths": (64, 64, 256)}), width=200, classes=40)
    net = build_detector(wide, torch.Generator().manual_seed(1))
    same = build_detector(wide, torch.Generator().manual_seed(1))
    other = build_detector(wide, torch.Generator().manual_seed(2))
    for layer, std in (
        (net.proposals.conv, 0.01), (net.proposals.objectness, 0.01), (net.proposals.deltas, 0.01),
        (net.classifier, 0.01), (net.regressor, 0.001),
    ):  # fmt: skip
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
        assert layer.bias is not None
        assert not layer.bias.any()
    state = net.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in same.state_dict().items())
    for name in ("regressor.weight", "stages.0.0.body.0.conv.weight"):
        assert not torch.equal(other.state_dict()[name], state[name])


@pytest.mark.parametrize("trunk", TRUNKS.values(), ids=TRUNKS)
@pytest.mark.parametrize("sides", [(1, 1), (1, 40), (40, 1), (2, 3), (3, 2)])
def test_an_image_one_pixel_high_or_wide_has_a_map(
    trunk: ResNetConfig, sides: tuple[int, int]
) -> None:
    net = network(config(trunk))
    image = random_image(*sides)
    features = net.features(image)
    assert min(features.shape[2:]) >= 1
    padded = torch.zeros(1, 3, max(sides[0], 3), max(sides[1], 3))
    padded[..., : sides[0], : sides[1]] = image
    assert torch.equal(features, net.features(padded))


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_regions_are_pooled_from_the_map_at_its_stride(pooling: str) -> None:
    net = network(config(pooling=pooling, pooled=3))
    board, boxes = torch.randn(1, 2, 9, 12), torch.tensor([[4.0, 3, 17, 16], [0, 0, 24, 18]])
    first = torch.zeros(2, dtype=torch.int64)
    if pooling == "max":
        expected = references.roi_pool(board, boxes, first, 3, stride=2)
    else:
        expected = references.roi_align(board, boxes, first, 3, stride=2, points=2)
    torch.testing.assert_close(net.pool(board, boxes), expected)


ANCHORS = Anchors(sizes=(8, 16), ratios=(0.5, 1, 2), stride=4)


def zero_network() -> ProposalNetwork:
    """Build a network whose weights are all zero."""
    net = ProposalNetwork(2, 3, ANCHORS).requires_grad_(False)
    for weight in net.parameters():
        weight.zero_()
    return net


@pytest.mark.parametrize(("row", "column", "anchor"), [(0, 0, 0), (1, 4, 3), (2, 1, 5)])
def test_a_bright_cell_and_an_anchors_weight_make_one_logit(
    row: int, column: int, anchor: int
) -> None:
    """The active anchor is centred on the bright cell and has the shape of its channel."""
    net = zero_network()
    net.conv.weight[1, 0, 1, 1] = 1
    net.objectness.weight[anchor, 1] = 5
    net.deltas.weight[4 * anchor + 2, 1] = 0.5  # its width doubles
    features = torch.zeros(1, 2, 3, 5)
    features[0, 0, row, column] = 1
    features[0, 1] = 7  # a channel with zero weights
    predictions = net(features)
    assert predictions.anchors.shape == (3 * 5 * 6, 4)
    (active,) = predictions.logits.nonzero()[:, 0].tolist()
    assert active == (row * 5 + column) * 6 + anchor
    assert predictions.logits[active] == 5
    expected = torch.zeros(90, 4)
    expected[active, 2] = 0.5
    assert torch.equal(predictions.deltas, expected)
    x0, y0, x1, y1 = predictions.anchors[active].tolist()
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (4 * column + 2, 4 * row + 2)
    shape = ANCHORS.shapes()[anchor].tolist()
    assert [x1 - x0, y1 - y0] == [shape[2] - shape[0], shape[3] - shape[1]]


def test_the_window_is_three_by_three_and_negative_hidden_values_are_cut() -> None:
    net = zero_network()
    net.conv.weight[0, 0, 0, 2] = 1  # the values above and to the right
    net.objectness.weight[2, 0] = 1
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, 1, 3], features[0, 0, 2, 1] = 2, -3
    (active,) = net(features).logits.nonzero()[:, 0].tolist()
    assert active == (2 * 4 + 2) * 6 + 2


def test_predictions_are_float32_and_have_gradients() -> None:
    net = ProposalNetwork(2, 3, ANCHORS)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    predictions = net.to(torch.bfloat16)(torch.ones(1, 2, 2, 2, dtype=torch.bfloat16))
    assert (
        predictions.logits.dtype
        == predictions.deltas.dtype
        == predictions.anchors.dtype
        == torch.float32
    )
    (predictions.logits.sum() + predictions.deltas.sum()).backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in net.parameters())


def slow_boxes(
    predictions: AnchorPredictions,
    width: float,
    height: float,
    before: int,
    after: int,
    smallest: float,
) -> list[list[float]]:
    """Decode one anchor at a time, in Python's arithmetic."""
    candidates = []
    for index, (anchor, delta) in enumerate(
        zip(predictions.anchors.tolist(), predictions.deltas.tolist(), strict=True)
    ):
        x0, y0, x1, y1 = anchor
        across, down = x1 - x0, y1 - y0
        x, y = (x0 + x1) / 2 + delta[0] * across, (y0 + y1) / 2 + delta[1] * down
        across, down = (
            side * min(exp(min(growth, 100)), 62.5)
            for side, growth in ((across, delta[2]), (down, delta[3]))
        )
        box = [x - across / 2, y - down / 2, x + across / 2, y + down / 2]
        box = [
            min(max(corner, 0), edge)
            for corner, edge in zip(box, (width, height, width, height), strict=True)
        ]
        if box[2] - box[0] >= smallest and box[3] - box[1] >= smallest:
            candidates.append((predictions.logits[index].item(), -index, box))
    best = [box for _, _, box in sorted(candidates, reverse=True)[:before]]
    kept_boxes: list[list[float]] = []
    for box in best:
        if all(references.iou(box, other) <= 0.7 for other in kept_boxes):
            kept_boxes.append(box)
    return kept_boxes[:after]


def random_predictions(
    cells: tuple[int, int], seed: int, steps: int | None = None
) -> AnchorPredictions:
    """Sample predictions; with `steps`, there are few distinct scores."""
    rng = torch.Generator().manual_seed(seed)
    anchors = ANCHORS.grid(*cells)
    logits = torch.randn(len(anchors), generator=rng)
    if steps:
        logits = (logits * steps).round() / steps
    return AnchorPredictions(anchors, logits, torch.randn(len(anchors), 4, generator=rng) * 0.4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("before", "after", "smallest"), [(10_000, 10_000, 0.5), (60, 20, 5), (300, 7, 9.5), (5, 50, 2)]
)
def test_proposals_against_a_slow_reference(
    seed: int, before: int, after: int, smallest: float
) -> None:
    predictions = random_predictions((7, 9), seed)
    boxes = predictions.proposals(34.5, 27, before=before, after=after, smallest=smallest)
    expected = slow_boxes(predictions, 34.5, 27, before, after, smallest)
    assert len(boxes) == len(expected) <= after
    torch.testing.assert_close(boxes, torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_equal_scores_keep_the_order_of_the_anchors() -> None:
    predictions = random_predictions((5, 6), 1, steps=1)
    assert len(predictions.logits.unique()) < 9
    boxes = predictions.proposals(24, 20, before=50, after=30, smallest=1)
    expected = slow_boxes(predictions, 24, 20, 50, 30, 1)
    torch.testing.assert_close(boxes, torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_small_boxes_are_dropped_before_the_best_are_taken() -> None:
    """Otherwise an image whose best boxes are slivers would have no proposals."""
    anchors = torch.tensor([[0.0, 0, 3, 30], [0, 0, 10, 10], [20, 0, 30, 10]])
    predictions = AnchorPredictions(anchors, torch.tensor([3.0, 1, 2]), torch.zeros(3, 4))
    assert predictions.proposals(50, 50, before=1, after=1, smallest=4).tolist() == [
        [20, 0, 30, 10]
    ]
    assert predictions.proposals(50, 50, before=9, after=9, smallest=10).tolist() == [
        [20, 0, 30, 10], [0, 0, 10, 10],
    ]  # fmt: skip
    assert predictions.proposals(50, 50, before=9, after=9, smallest=10.01).shape == (0, 4)


def test_boxes_are_clipped_before_they_are_measured() -> None:
    # 9 and 10 pixels of the boxes are inside
    anchors = torch.tensor([[-90.0, 0, 9, 20], [-90, 0, 10, 20]])
    predictions = AnchorPredictions(anchors, torch.tensor([2.0, 1]), torch.zeros(2, 4))
    assert predictions.proposals(40, 40, before=9, after=9, smallest=10).tolist() == [
        [0, 0, 10, 20]
    ]


def test_an_overlap_of_seven_tenths_is_not_suppressed() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 7]])  # IoU 0.7
    assert iou(boxes, boxes)[0, 1] <= PROPOSAL_NMS
    predictions = AnchorPredictions(boxes, torch.tensor([2.0, 1]), torch.zeros(2, 4))
    assert len(predictions.proposals(40, 40, before=9, after=9, smallest=0)) == 2
    more = AnchorPredictions(
        boxes + torch.tensor([0, 0, 0, 0.1]), predictions.logits, predictions.deltas
    )
    assert len(more.proposals(40, 40, before=9, after=9, smallest=0)) == 1


def test_no_gradient_goes_through_proposals() -> None:
    predictions = random_predictions((4, 4), 0)
    learning = AnchorPredictions(
        predictions.anchors,
        predictions.logits.requires_grad_(),
        predictions.deltas.requires_grad_(),
    )
    boxes = learning.proposals(16, 16, before=20, after=10, smallest=1)
    assert len(boxes)
    assert not boxes.requires_grad
    assert decode_boxes(learning.anchors, learning.deltas).requires_grad


def test_unbounded_growth_is_clipped_to_the_image() -> None:
    anchors = torch.tensor([[10.0, 10, 20, 20]])
    predictions = AnchorPredictions(anchors, torch.zeros(1), torch.tensor([[0.0, 0, 500, 500]]))
    assert predictions.proposals(90, 70, before=1, after=1, smallest=1).tolist() == [[0, 0, 90, 70]]


def nothing(count: int) -> Tensor:
    return torch.zeros(0, count)


def test_without_anchors_there_are_no_proposals() -> None:
    predictions = AnchorPredictions(nothing(4), torch.zeros(0), nothing(4))
    assert predictions.proposals(9, 9, before=5, after=5, smallest=0).shape == (0, 4)
