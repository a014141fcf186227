"""What a detector is trained to do: the losses of Faster R-CNN and Fast R-CNN, of one picture."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.boxes.sets import Detections, DetectionSet
from reslab.data.sampler import generator
from reslab.detection.average_precision.measure import measure
from reslab.detection.average_precision.results import as_results
from reslab.detection.evaluation import search_set
from reslab.detection.initial import train_mode
from reslab.detection.loader import DetectionBatches, Example
from reslab.detection.model import Detector, detector_bytes
from reslab.detection.network import FasterRCNN, Proposed
from reslab.detection.recipe import DetectionRecipe
from reslab.detection.targets import (
    AnchorTargets,
    RegionTargets,
    anchor_targets,
    inside,
    region_targets,
)
from reslab.models.preprocessing import Preprocessing
from reslab.runtime.device import World
from reslab.training.log import Row
from reslab.training.optim import build_sgd
from reslab.training.probe import Probed, read_last
from reslab.training.run import Final, Parts

# where the smooth L1 loss turns from a parabola into a line: the released code's sigma is 3 for
# proposals and 1 for regions, and this is 1 / sigma^2
PROPOSAL_BETA, REGION_BETA = 1 / 9, 1.0


def proposal_loss(found: Proposed, targets: AnchorTargets) -> Tensor:
    """Whether there is an object, and where; both divided by the number of sampled anchors, []."""
    count = max(len(targets.anchors), 1)  # a picture smaller than all anchors has none
    logits = found.logits[targets.anchors]
    objects = F.binary_cross_entropy_with_logits(logits, targets.objects, reduction="sum")
    deltas = found.deltas[targets.anchors[: len(targets.deltas)]]
    places = F.smooth_l1_loss(deltas, targets.deltas, reduction="sum", beta=PROPOSAL_BETA)
    return (objects + places) / count


def region_loss(scores: Tensor, deltas: Tensor, targets: RegionTargets) -> Tensor:
    """Which class, and for foreground where; both divided by the number of sampled regions, [].

    scores [S, classes + 1], deltas [S, classes, 4]
    """
    count = max(len(targets.labels), 1)  # nothing may be left of a picture's proposals
    kinds = F.cross_entropy(scores, targets.labels, reduction="sum")
    objects = torch.arange(len(targets.deltas), device=deltas.device)
    own = deltas[objects, targets.labels[objects] - 1]  # each by what regresses its own class
    places = F.smooth_l1_loss(own, targets.deltas, reduction="sum", beta=REGION_BETA)
    return (kinds + places) / count


FOUND = "detections.json"  # in a run folder: what was found at the end, as COCO writes results


@dataclass(frozen=True)
class DetectorTraining:
    """A recipe's detector and pictures, on their device."""

    recipe: DetectionRecipe
    world: World
    net: FasterRCNN
    preprocessing: Preprocessing
    batches: DetectionBatches
    test: DetectionSet
    protocol: str  # of `measure`
    proposer: FasterRCNN | None  # whose proposals step 2 learns from; none: its own
    say: Callable[[str], None]

    @property
    def epoch(self) -> int:
        """Iterations of one."""
        return -(-self.batches.count // self.recipe.batch_size)

    def close(self) -> None:
        """End the threads that prepare pictures."""
        self.batches.close()

    def shares_of(self, iteration: int) -> list[list[Example]]:
        """The pictures of `iteration`, an equal share for each virtual GPU of this process."""
        examples = self.batches(iteration)
        size = self.recipe.batch_size // self.recipe.virtual_gpus
        return [examples[at : at + size] for at in range(0, len(examples), size)]

    def loss_of(self, share: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Mean over the pictures of the losses that the step trains; the error is the percentage
        of sampled regions whose class is wrong, or of sampled anchors where only they learn."""
        losses, errors = zip(*(self.losses_of(example) for example in share), strict=True)
        return torch.stack(losses).mean(), torch.stack(errors).mean()

    def losses_of(self, example: Example) -> tuple[Tensor, Tensor]:
        """Of one picture: approximate joint training, or the losses of one step."""
        rng = generator(*example.seed)
        with self.world.autocast():
            features = self.net.features(example.image)
            proposed = self.net.proposals(features)
        if self.recipe.stage in (1, 3):
            return self.loss_of_proposals(proposed, example, rng)
        if self.recipe.stage in (2, 4):
            return self.loss_of_regions(features, proposed, example, rng)
        proposals, _ = self.loss_of_proposals(proposed, example, rng)
        regions, error = self.loss_of_regions(features, proposed, example, rng)
        return proposals + regions, error

    def loss_of_proposals(
        self, proposed: Proposed, example: Example, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        height, width = example.image.shape[2:]
        sampled = anchor_targets(
            proposed.anchors, inside(proposed.anchors, width, height), example.boxes,
            example.ignored, rng, count=self.recipe.sampling.anchors,
        )  # fmt: skip
        wrong = (proposed.logits.detach()[sampled.anchors] > 0) != (sampled.objects > 0)
        return proposal_loss(proposed, sampled), percentage(wrong)

    def loss_of_regions(
        self, features: Tensor, proposed: Proposed, example: Example, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        targets = self.targets(proposed, example, rng)
        height, width = example.image.shape[2:]
        with self.world.autocast():
            boxes = self.net.with_whole(targets.boxes, width, height)
            seen = self.net.region_features(self.net.pool(features, boxes))
            count = len(targets.boxes)
            scores, deltas = self.net.judge(seen[:count], seen[count:])
        wrong = scores.detach().argmax(1) != targets.labels
        return region_loss(scores, deltas, targets), percentage(wrong)

    @torch.no_grad()
    def targets(self, proposed: Proposed, example: Example, rng: torch.Generator) -> RegionTargets:
        """Regions to judge, of proposals that are taken as they are: no gradient goes through
        their places ("approximate" joint training)."""
        if self.proposer is not None:
            with self.world.autocast():
                proposed = self.proposer.proposals(self.proposer.features(example.image))
        sampling = self.recipe.sampling
        height, width = example.image.shape[2:]
        boxes = proposed.boxes(
            width, height, before=sampling.before, after=sampling.proposals,
            smallest=self.recipe.search.smallest * example.ratio,
        )  # fmt: skip
        return region_targets(
            boxes, example.boxes, example.labels, example.ignored, rng,
            count=sampling.regions, background=(sampling.background, 0.5),
        )  # fmt: skip

    def detector(self, reports: list[Row]) -> Detector:
        """The network as it stands, with all that its use needs."""
        recipe = self.recipe.model_dump(mode="json")
        return Detector(
            self.net, self.test.classes, self.test.ids, self.preprocessing, self.recipe.search,
            recipe, reports,
        )  # fmt: skip

    def evaluate(self, beat: Callable[[], None]) -> list[Row]:
        """The report on the way, over the first of the test pictures."""
        count = min(self.recipe.watched, len(self.test))
        if self.recipe.stage in (1, 3):  # nothing judges regions yet
            return []
        found = self.search(self.test.take(self.test.name, torch.arange(count)), beat)
        train_mode(self.net, self.recipe)
        return [measure(*found, self.protocol).as_dict()]

    def search(
        self, pictures: DetectionSet, beat: Callable[[], None] = lambda: None
    ) -> tuple[DetectionSet, list[Detections]]:
        """A set without its bad pictures, and what is found in them."""
        self.net.eval()

        def hear(line: str | None) -> None:
            if line:
                self.say(line)

        return search_set(
            [self.detector([])], pictures, self.recipe.search, hear, self.world.processes, beat
        )

    def finish(self, beat: Callable[[], None]) -> Final:
        """The final report and all detections."""
        if self.recipe.stage in (1, 3):
            return Final([], {})
        seen, found = self.search(self.test, beat)
        report = measure(seen, found, self.protocol)
        results = json.dumps(as_results(seen, found))
        return Final([report.as_dict() | report.details()], {FOUND: results.encode()})


def percentage(wrong: Tensor) -> Tensor:
    """Of what is wrong; 0 where there is nothing to be wrong about, bool [N] -> []"""
    return 100 * wrong.float().sum() / max(len(wrong), 1)


def parts_of(it: DetectorTraining) -> Parts:
    """A detector's training as the parts of a run."""
    return Parts(
        net=it.net,
        optimizer=build_sgd(
            it.net, momentum=it.recipe.momentum, weight_decay=it.recipe.weight_decay
        ),
        epoch=it.epoch,
        loss_of=it.loss_of,
        shares_of=it.shares_of,
        evaluate=it.evaluate,
        error_of=lambda report: 100 - report["map_50"],
        finish=it.finish,
        model_file=lambda reports: detector_bytes(it.detector(reports)),
        processes=it.world.processes,
    )


EVALUATED = 8  # pictures that are searched to time it


def detector_probed(it: DetectorTraining) -> Probed:
    """For `reslab.training.probe.probe`. In alternating training, each of the four steps counts as
    one of joint training, about what the dearest of them costs."""
    recipe = it.recipe
    steps, looking = (4, 2) if recipe.training == "alternating" else (1, 1)
    it = replace(it, recipe=recipe.model_copy(update={"training": "joint"}))
    train_mode(it.net, it.recipe)
    looks = (recipe.iterations - 1) // recipe.eval_every

    def evaluate() -> int:
        some = it.test.take("some", torch.arange(min(len(it.test), EVALUATED)))
        it.search(some)
        train_mode(it.net, it.recipe)
        return len(some)

    train = it.batches.train
    return Probed(
        recipe, it.world, parts_of(it), it.batches.count,
        batches=steps * recipe.iterations,
        evaluated=looking * (looks * min(recipe.watched, len(it.test)) + len(it.test)),
        evaluate=evaluate,
        read=partial(read_last, train.files, train.read),
    )  # fmt: skip
