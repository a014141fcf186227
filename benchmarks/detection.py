"""Compare detection with eager torch as people write it: suppression, pooling, images, updates.

Sizes are as in Faster R-CNN: an image of 600 x 1000 pixels, features of 1024 channels at stride 16,
6,000 boxes to suppress, 300 regions to pool. The peers are loops over boxes and over regions, on
a network in fp32 and channels first; for suppression also torchvision's kernel, if installed.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.boxes.digit_scenes import digit_scenes
from reslab.data.boxes.sets import Detections, DetectionSplits
from reslab.detection import box_ops, network
from reslab.detection.box_ops import clip, decode_boxes, iou, nms
from reslab.detection.inference import Detector, detect_objects, prepare_for_inference
from reslab.detection.network import build_detector
from reslab.detection.recipe import InferenceConfig
from reslab.detection.roi import roi_pool
from reslab.detection.setup import setup_detection
from reslab.detection.targets import Anchors
from reslab.models.batchnorm import recompute_statistics
from reslab.models.preprocessing import minus_mean
from reslab.recipes import detection_recipe
from reslab.runtime.device import Device, setup_device
from reslab.training.loop import eager_update_of, training_steps
from reslab.training.optimizer import build_sgd
from reslab.training.schedule import Schedule
from rows import (
    Row,
    Turn,
    alternate,
    apart,
    compare,
    not_installed,
    path_of,
    print_rows,
    seconds_of,
)

HEIGHT, WIDTH, STRIDE, CHANNELS = 600, 1000, 16, 1024
BOXES, REGIONS, BINS = 6000, 300, 7
TRUNK = "resnet50"  # of the image that is searched
SCENES = "digit-scenes-resnet20-c4"
ITERATIONS = 3  # in each turn
EAGER = "eager, channels first, loops"


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float, limit: int | None = None) -> Tensor:
    """Keep the best box, remove those that overlap it, and repeat."""
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while len(order) and (limit is None or len(kept) < limit):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[iou(boxes[best][None], boxes[order])[0] <= threshold]
    return torch.stack(kept) if kept else order


def plain_roi_pool(
    features: Tensor, boxes: Tensor, images: Tensor, size: int, stride: int
) -> Tensor:
    """Crop each region from the features, and pool it to size x size bins."""
    features = F.pad(features, (0, 1, 0, 1), value=-torch.inf)  # rounding may add a cell
    starts = (boxes[:, :2] / stride + 0.5).floor().long().tolist()
    ends = ((boxes[:, 2:] - 1) / stride + 0.5).floor().long().tolist()
    pooled = []
    for image, (left, top), (right, bottom) in zip(images.tolist(), starts, ends, strict=True):
        rows, columns = slice(top, max(bottom, top) + 1), slice(left, max(right, left) + 1)
        pooled.append(F.adaptive_max_pool2d(features[image, :, rows, columns], size))
    stacked = torch.stack(pooled)
    return stacked.masked_fill(stacked.isinf(), 0)


@contextmanager
def plain_functions() -> Iterator[None]:
    """Return a context in which a detector suppresses and pools in loops."""
    with (
        patch.object(network, "nms", plain_nms),
        patch.object(box_ops, "nms", plain_nms),
        patch.object(network, "roi_pool", plain_roi_pool),
    ):
        yield


def proposals(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Imitate a region proposal network: jittered anchors, the 6,000 with the highest scores.

    Scores rise towards a few objects, as in a real image.
    """
    anchors = Anchors().grid(38, 63)
    deltas = 0.1 * torch.randn(anchors.shape, generator=rng)
    boxes = clip(decode_boxes(anchors, deltas), WIDTH, HEIGHT)
    objects = regions(12, rng)
    scores = iou(boxes, objects).amax(1) + 0.1 * torch.rand(len(boxes), generator=rng)
    best = scores.topk(BOXES).indices
    return boxes[best], scores[best]


def regions(count: int, rng: torch.Generator) -> Tensor:
    """Draw boxes between random points of the image, at least 16 pixels wide and high."""
    corners = torch.rand(count, 2, 2, generator=rng) * torch.tensor([WIDTH - 16.0, HEIGHT - 16.0])
    return torch.cat([corners.amin(1), corners.amax(1) + 16], 1)


def milliseconds(work: Callable[[], object]) -> float:
    return 1000 * seconds_of(work)


def suppression(path: str, rng: torch.Generator) -> Iterator[Row]:
    """Compare suppression of proposals; the same boxes must be kept in the same order."""
    boxes, scores = proposals(rng)
    works: dict[str, Callable[[], Tensor]] = {
        "reslab": partial(nms, boxes, scores, 0.7),
        "a loop over boxes": partial(plain_nms, boxes, scores, 0.7),
    }
    if find_spec("torchvision"):
        import torchvision.ops  # pyrefly: ignore[missing-import]

        works["torchvision"] = partial(torchvision.ops.nms, boxes, scores, 0.7)
    kept = {name: work() for name, work in works.items()}
    turns: dict[str, Turn] = {name: partial(milliseconds, work) for name, work in works.items()}
    times = alternate(turns, seconds=5)
    what = f"suppression of {BOXES:,} boxes to {len(kept['reslab']):,}"
    for peer in list(works)[1:]:
        same = kept[peer].tolist() == kept["reslab"].tolist()
        yield compare(
            what, "ms", reslab=times["reslab"], peer=peer, other=times[peer], path=path,
            check="equal" if same else "different boxes",
        )  # fmt: skip
    if "torchvision" not in works:
        yield not_installed(what, "ms", reslab=times["reslab"], peer="torchvision", path=path)


def pooling(path: str, rng: torch.Generator) -> Iterator[Row]:
    """Compare RoI pooling of 300 regions, forward and backward, and its gradients."""
    features = torch.randn(1, CHANNELS, 38, 63, generator=rng)
    features = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    boxes, images = regions(REGIONS, rng), torch.zeros(REGIONS, dtype=torch.int64)
    gradient = torch.randn(REGIONS, CHANNELS, BINS, BINS, generator=rng)

    def work(pool: Callable[..., Tensor]) -> Tensor:
        pooled = pool(features, boxes, images, BINS, STRIDE)
        return torch.autograd.grad(pooled, features, gradient)[0]

    ours, theirs = work(roi_pool), work(plain_roi_pool)
    times = alternate(
        {
            "reslab": lambda: milliseconds(partial(work, roi_pool)),
            "loop": lambda: milliseconds(partial(work, plain_roi_pool)),
        },
        seconds=10,
    )
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    yield compare(
        f"pooling of {REGIONS} regions, forward and backward", "ms", reslab=times["reslab"],
        peer="a loop over regions", other=times["loop"], path=path,
        check=f"gradients {apart(difference)}",
    )  # fmt: skip


@torch.no_grad()
def image(device: Device, rng: torch.Generator) -> Iterator[Row]:
    """Compare an image from bytes to detections, in fp32.

    The weights are random, with batch-norm statistics of this image so that activations stay in
    range. The detections are meaningless, but the work is the same as for a trained net.
    """
    net = build_detector(detection_recipe(f"voc07+12-{TRUNK}-c4").model, rng)
    pixels = torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=rng, dtype=torch.uint8).numpy()
    classes = tuple(map(str, range(20)))
    mean = minus_mean(torch.full((3, 1, 1), 128.0))
    plain = Detector(net, classes, classes, mean, InferenceConfig(threshold=0.0), {}, [])
    inputs, boxes = plain.preprocess(pixels), regions(REGIONS, rng)
    features = (net.region_features(net.pool(net.features(inputs), boxes)) for _ in range(2))
    recompute_statistics(net, features)
    ready = prepare_for_inference(plain)

    found: dict[str, Detections] = {}

    def search(name: str, detector: Detector) -> None:
        found[name] = detect_objects(detector, pixels, detector.search)

    def theirs() -> None:
        with plain_functions():
            search(EAGER, plain)

    times = alternate(
        {
            "reslab": lambda: seconds_of(partial(search, "reslab", ready)),
            EAGER: lambda: seconds_of(theirs),
        },
        seconds=25,
    )
    one, other = found["reslab"], found[EAGER]
    difference = abs(one.scores[0] - other.scores[0]).item() / one.scores[0].item()
    yield compare(
        f"detection on {TRUNK}, an image of {HEIGHT} x {WIDTH}", "s", reslab=times["reslab"],
        peer=EAGER, other=times[EAGER], path=path_of(device, ready.net),
        check=f"{len(one)} and {len(other)} objects, best scores {apart(difference)}",
    )  # fmt: skip


def losses(device: Device, sets: DetectionSplits, first: bool) -> Iterator[float]:
    """Yield the loss of each update of a detector of digit-scenes, with its data.

    The network is channels first if `first`, else channels last.
    """
    # as for a trunk without weights
    recipe = detection_recipe(SCENES).with_changes(["model.norm=group"])
    task = setup_detection(
        recipe, 1, sets, "coco", device, weights=None, preprocessing=None, proposer=None,
        begun=False, log=lambda line: None,
    )  # fmt: skip
    if first:
        net = copy.deepcopy(task.net)
        for parameter in net.parameters():
            parameter.data = parameter.data.contiguous()
        optimizer = build_sgd(net, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
        task = replace(task, net=net, optimizer=optimizer)
    update, schedule = eager_update_of(task), Schedule(recipe)
    for step in training_steps(update, task.draws, schedule, range(recipe.iterations)):
        yield step.loss.item()


def updates(device: Device) -> Iterator[Row]:
    """Compare the updates of `reslab train` with the same in fp32, channels first, with loops."""
    sets, exact = digit_scenes(), replace(device, precision="fp32")
    ours, theirs = losses(device, sets, False), losses(exact, sets, True)

    def their_loss() -> float:
        with plain_functions():
            return next(theirs)

    # in bf16 other proposals are sampled
    expected, loss = their_loss(), next(losses(exact, sets, False))
    times = alternate(
        {
            "reslab": lambda: milliseconds(lambda: [next(ours) for _ in range(ITERATIONS)]),
            "plain": lambda: milliseconds(lambda: [their_loss() for _ in range(ITERATIONS)]),
        },
        seconds=15,
    )
    yield compare(
        f"{ITERATIONS} updates of a detector, {detection_recipe(SCENES).batch_size} digit-scenes",
        "ms", reslab=times["reslab"], peer=EAGER, other=times["plain"], path=path_of(device),
        check=f"first losses {apart(abs(loss - expected) / expected)} in fp32",
    )  # fmt: skip


def rows() -> Iterator[Row]:
    device = setup_device()
    exact = replace(device, precision="fp32")
    path = path_of(exact)
    rng = torch.Generator().manual_seed(0)
    yield from suppression(path, rng)
    yield from pooling(path, rng)
    yield from image(exact, rng)
    yield from updates(device)


if __name__ == "__main__":
    print_rows(rows())
