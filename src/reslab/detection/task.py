"""The detection task: the losses of Faster R-CNN and Fast R-CNN, and the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.loader import Draws
from reslab.data.sampler import make_generator
from reslab.detection.average_precision.measure import measure
from reslab.detection.average_precision.results import as_results
from reslab.detection.detect_set import detect_set
from reslab.detection.inference import Detector
from reslab.detection.loader import DetectionLoader, Example
from reslab.detection.network import AnchorPredictions, FasterRCNN
from reslab.detection.predict import detector_bytes
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.targets import (
    AnchorTargets,
    RegionTargets,
    anchor_targets,
    inside_image,
    region_targets,
)
from reslab.models.batchnorm import train_mode
from reslab.models.preprocessing import Preprocessing
from reslab.runtime.device import Device
from reslab.runtime.events import Event, Log
from reslab.runtime.files import to_json
from reslab.training.data_record import DATA_FILE
from reslab.training.optimizer import Optimizer
from reslab.training.origin import FILE, InitialState, initial_state_bytes
from reslab.training.task import CheckStop, Final

# where the smooth L1 loss changes from quadratic to linear, 1 / sigma^2: the released code's sigma
# is 3 for proposals and 1 for regions
PROPOSAL_BETA, REGION_BETA = 1 / 9, 1.0


def proposal_loss(predicted: AnchorPredictions, targets: AnchorTargets) -> Tensor:
    """Return the sum of objectness and box losses, divided by the number of sampled anchors, []."""
    count = max(len(targets.anchors), 1)  # an image smaller than every anchor has no samples
    logits = predicted.logits[targets.anchors]
    objectness = F.binary_cross_entropy_with_logits(logits, targets.objects, reduction="sum")
    deltas = predicted.deltas[targets.anchors[: len(targets.deltas)]]
    boxes = F.smooth_l1_loss(deltas, targets.deltas, reduction="sum", beta=PROPOSAL_BETA)
    return (objectness + boxes) / count


def region_loss(scores: Tensor, deltas: Tensor, targets: RegionTargets) -> Tensor:
    """Return the classification loss plus the box loss of the foreground, divided by the number of
    sampled regions, [].

    scores [S, classes + 1], deltas [S, classes, 4]
    """
    count = max(len(targets.labels), 1)  # an image may have no samples
    classes = F.cross_entropy(scores, targets.labels, reduction="sum")
    objects = torch.arange(len(targets.deltas), device=deltas.device)
    predicted = deltas[objects, targets.labels[objects] - 1]  # each class has its own regressor
    boxes = F.smooth_l1_loss(predicted, targets.deltas, reduction="sum", beta=REGION_BETA)
    return (classes + boxes) / count


# in a run folder: the final detections in COCO's results format
DETECTIONS_FILE = "detections.json"


@dataclass(frozen=True)
class DetectionTask:
    """The `Task` of training a detector: a recipe's network and images on their device."""

    recipe: DetectionRecipe
    device: Device
    net: FasterRCNN
    optimizer: Optimizer
    preprocessing: Preprocessing
    loader: DetectionLoader
    test: DetectionSet
    protocol: str  # evaluation protocol, as in `measure`
    proposer: FasterRCNN | None  # proposes the regions in step 2; None: `net` itself does
    log: Log
    data_record: bytes = b""  # of the images, for the run folder; empty: sets that cannot change

    @property
    def epoch(self) -> int:
        return -(-self.loader.count // self.recipe.batch_size)

    @property
    def files(self) -> Mapping[str, bytes]:
        files = {FILE: initial_state_bytes(InitialState(preprocessing=self.preprocessing))}
        return files | ({DATA_FILE: self.data_record} if self.data_record else {})

    def close(self) -> None:
        self.loader.close()

    def draws(self, iteration: int) -> Draws:
        return self.loader.draws(iteration)

    def prepare(self, draws: Draws) -> list[list[Example]]:
        examples = self.loader.batch(draws)
        size = self.recipe.batch_size // self.recipe.virtual_gpus
        return [examples[at : at + size] for at in range(0, len(examples), size)]

    def loss(self, share: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Return the mean loss over the images of `share`, the part of a mini-batch for one virtual
        GPU, and the percentage of sampled regions that are misclassified (of sampled anchors in a
        step that trains only proposals)."""
        losses, errors = zip(*(self.image_loss(example) for example in share), strict=True)
        return torch.stack(losses).mean(), torch.stack(errors).mean()

    def image_loss(self, example: Example) -> tuple[Tensor, Tensor]:
        """Return the loss and error for one image, in joint training or one of the four steps."""
        rng = make_generator(*example.seed)
        with self.device.autocast():
            features = self.net.features(example.image)
            proposed = self.net.proposals(features)
        if self.recipe.stage in (1, 3):
            return self.proposal_loss(proposed, example, rng)
        if self.recipe.stage in (2, 4):
            return self.region_loss(features, proposed, example, rng)
        proposals, _ = self.proposal_loss(proposed, example, rng)
        regions, error = self.region_loss(features, proposed, example, rng)
        return proposals + regions, error

    def proposal_loss(
        self, proposed: AnchorPredictions, example: Example, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        height, width = example.image.shape[2:]
        sampled = anchor_targets(
            proposed.anchors, inside_image(proposed.anchors, width, height), example.boxes,
            example.ignored, rng, count=self.recipe.sampling.anchors,
        )  # fmt: skip
        wrong = (proposed.logits.detach()[sampled.anchors] > 0) != (sampled.objects > 0)
        return proposal_loss(proposed, sampled), percent_true(wrong)

    def region_loss(
        self, features: Tensor, proposed: AnchorPredictions, example: Example, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        targets = self.targets(proposed, example, rng)
        height, width = example.image.shape[2:]
        with self.device.autocast():
            boxes = self.net.append_whole_image(targets.boxes, width, height)
            regions = self.net.region_features(self.net.pool(features, boxes))
            count = len(targets.boxes)
            scores, deltas = self.net.classify_regions(regions[:count], regions[count:])
        wrong = scores.detach().argmax(1) != targets.labels
        return region_loss(scores, deltas, targets), percent_true(wrong)

    @torch.no_grad()
    def targets(
        self, proposed: AnchorPredictions, example: Example, rng: torch.Generator
    ) -> RegionTargets:
        """Sample regions from the proposals, without a gradient through their coordinates
        ("approximate" joint training)."""
        if self.proposer is not None:
            with self.device.autocast():
                proposed = self.proposer.proposals(self.proposer.features(example.image))
        sampling = self.recipe.sampling
        height, width = example.image.shape[2:]
        boxes = proposed.proposals(
            width, height, before=sampling.before, after=sampling.proposals,
            smallest=self.recipe.search.smallest * example.ratio,
        )  # fmt: skip
        return region_targets(
            boxes, example.boxes, example.labels, example.ignored, rng,
            count=sampling.regions, background=(sampling.background, 0.5),
        )  # fmt: skip

    def detector(self, reports: list[Event]) -> Detector:
        """Return the current network with everything that inference needs."""
        recipe = self.recipe.model_dump(mode="json")
        return Detector(
            self.net, self.test.classes, self.test.ids, self.preprocessing, self.recipe.search,
            recipe, reports,
        )  # fmt: skip

    def model_file(self, reports: list[Event]) -> bytes:
        return detector_bytes(self.detector(reports))

    def evaluate(self, check_stop: CheckStop) -> list[Event]:
        """Return a report on the first `watched` test images, or nothing in steps 1 and 3."""
        if self.recipe.stage in (1, 3):  # the region head is not trained yet
            return []
        count = min(self.recipe.watched, len(self.test))
        monitored = self.test.take(self.test.name, torch.arange(count))
        images, detections = self.detect_images(monitored, check_stop)
        detector_train_mode(self.net, self.recipe)
        return [measure(images, detections, self.protocol).as_dict()]

    def error_of(self, report: Event) -> float:
        return 100 - report["map_50"]

    def detect_images(
        self, images: DetectionSet, check_stop: CheckStop = lambda: None
    ) -> tuple[DetectionSet, list[Detections]]:
        """Return the set without its bad images, and the detections in each remaining image."""
        self.net.eval()

        def on_progress(line: str | None) -> None:
            if line:
                self.log(line)

        return detect_set(
            [self.detector([])],
            images,
            self.recipe.search,
            on_progress,
            self.device.processes,
            check_stop,
        )

    def finish(self, check_stop: CheckStop) -> Final:
        """Return the final report, and all detections as a file for the run folder."""
        if self.recipe.stage in (1, 3):
            return [], {}
        images, detections = self.detect_images(self.test, check_stop)
        report = measure(images, detections, self.protocol)
        results = to_json(as_results(images, detections)).encode()
        return [report.as_dict() | report.details()], {DETECTIONS_FILE: results}


def percent_true(wrong: Tensor) -> Tensor:
    """Return the percentage of true values, bool [N] -> []; 0 if N is 0."""
    return 100 * wrong.float().sum() / max(len(wrong), 1)


def trainable_parts(net: FasterRCNN, recipe: DetectionRecipe) -> list[nn.Module]:
    """Return the modules that the recipe trains."""
    free = net.trunk[recipe.fixed_stages + 1 if recipe.fixed_stages else 0 :]
    regions = [net.stages[-1], net.classifier, net.regressor]
    match recipe.stage:
        case None:
            return [*free, net.proposals, *regions]
        case 1:
            return [*free, net.proposals]
        case 2:
            return [*free, *regions]
        case 3:
            return [net.proposals]
        case 4:
            return regions


def detector_train_mode(net: FasterRCNN, recipe: DetectionRecipe) -> None:
    """Enable gradients for the trained parts only; batch norm keeps its statistics."""
    net.requires_grad_(False)
    for part in trainable_parts(net, recipe):
        part.requires_grad_(True)
    train_mode(net, keep_statistics=True)
