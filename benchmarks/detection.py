"""Time what a detector does besides its convolutions: suppression and pooling of regions.

Sizes are as in Faster R-CNN on ResNet-101: an image of 600 x 1000 pixels, features of 1024 channels
at stride 16, 6,000 boxes of which 300 are kept, 7x7 bins per region. With --whole, one image is
timed from bytes to detections. Each measurement is one JSON line: best and median of the rounds, in
milliseconds.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from reslab.detection.box_ops import clip, decode_boxes, iou, nms, nms_by_class
from reslab.detection.inference import (
    Detector,
    ImageFeatures,
    detect_objects,
    prepare_for_inference,
)
from reslab.detection.network import build_detector
from reslab.detection.recipe import InferenceConfig
from reslab.detection.roi import roi_align, roi_pool
from reslab.detection.targets import Anchors
from reslab.models.batchnorm import recompute_statistics
from reslab.models.layers import channels_last
from reslab.models.preprocessing import minus_mean
from reslab.recipes import detection_recipe

HEIGHT, WIDTH, STRIDE, CHANNELS = 600, 1000, 16, 1024
BOXES, REGIONS, BINS = 6000, 300, 7


def measure(what: str, turn: Callable[[], object], rounds: int) -> None:
    """Warm up, time the rounds and print a line of JSON."""
    turn()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        turn()
        times.append(1000 * (time.perf_counter() - start))
    best, median = round(min(times), 1), round(statistics.median(times), 1)
    line = {"what": what, "best_ms": best, "median_ms": median, "rounds": rounds}
    print(json.dumps(line | {"threads": torch.get_num_threads()}), flush=True)


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


def suppression(rounds: int, rng: torch.Generator) -> None:
    boxes, scores = proposals(rng)
    for what, kind in (("proposals", boxes), ("any boxes", regions(BOXES, rng))):
        for most in (REGIONS, None):
            kept = len(nms(kind, scores, 0.7, most))
            name = f"nms of {BOXES} {what} at 0.7 to {kept}" + (", all" if most is None else "")
            measure(name, partial(nms, kind, scores, 0.7, most), rounds)
    labels = torch.randint(0, 80, (BOXES,), generator=rng)
    name = f"nms_by_class of {BOXES} boxes of 80 classes at 0.3"
    measure(name, partial(nms_by_class, boxes, scores, labels, 0.3), rounds)


def pooling(rounds: int, rng: torch.Generator) -> None:
    shape = (1, CHANNELS, 38, 63)
    features = torch.randn(shape, generator=rng).relu()
    features = features.contiguous(memory_format=torch.channels_last)
    with_grad = features.clone().requires_grad_()
    images = torch.zeros(REGIONS, dtype=torch.int64)
    whole = torch.tensor([[0.0, 0, WIDTH, HEIGHT]]).expand(REGIONS, 4)
    gradient = torch.randn(REGIONS, BINS, BINS, CHANNELS, generator=rng).permute(0, 3, 1, 2)
    for layer in (roi_pool, roi_align):
        for kind, boxes in (("any", regions(REGIONS, rng)), ("whole-image", whole)):
            name = f"{layer.__name__} of {REGIONS} {kind} regions to 7x7 on {list(shape)}"
            pool = partial(layer, boxes=boxes, images=images, size=BINS, stride=STRIDE)
            measure(f"{name}, forward", partial(pool, features), rounds)
            measure(f"{name}, forward in training", partial(pool, with_grad), rounds)
            pooled = pool(with_grad)
            backward = partial(torch.autograd.grad, pooled, with_grad, gradient, retain_graph=True)
            measure(f"{name}, backward", backward, rounds)


def whole(model: str, rounds: int, rng: torch.Generator) -> None:
    """Time an image of 600 x 1000 pixels from bytes to detections, in fp32, batch norm folded.

    The weights are random, with batch-norm statistics of this image so that activations stay in
    range. The detections are meaningless, but the work is the same as for a trained net.
    """
    config = detection_recipe(f"voc07+12-{model}-c4").model
    net = channels_last(build_detector(config, rng))
    pixels = torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=rng, dtype=torch.uint8).numpy()
    plain = Detector(
        net, tuple(map(str, range(20))), tuple(map(str, range(20))),
        minus_mean(torch.full((3, 1, 1), 128.0)), InferenceConfig(threshold=0.0), {}, [],
    )  # fmt: skip
    image = plain.preprocess(pixels)
    boxes = regions(REGIONS, rng)

    def region_features() -> Tensor:
        return net.region_features(net.pool(net.features(image), boxes))

    recompute_statistics(net, (region_features() for _ in range(2)))
    detector = prepare_for_inference(plain)
    features = ImageFeatures(detector, pixels, detector.search)
    boxes = features.proposals()
    name = f"{model} on {HEIGHT}x{WIDTH}"
    with torch.no_grad():
        measure(f"{name}, features and proposals",
                lambda: ImageFeatures(detector, pixels, detector.search).proposals(),
                rounds)  # fmt: skip
        measure(
            f"{name}, classifying {len(boxes)} proposals",
            lambda: features.classify_regions(boxes),
            rounds,
        )
        measure(f"{name}, all", lambda: detect_objects(detector, pixels, detector.search), rounds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"what": f"{name}, memory", "GiB": round(peak, 2)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--whole", metavar="MODEL", help="time a whole image on this trunk instead")
    options = parser.parse_args()
    rounds = options.rounds
    rng = torch.Generator().manual_seed(0)
    if options.whole:
        whole(options.whole, rounds, rng)
        return
    suppression(rounds, rng)
    pooling(rounds, rng)


if __name__ == "__main__":
    main()
