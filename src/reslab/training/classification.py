"""The parts of a classification run, and the function that trains one."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from reslab.data.datasets import ImageSet
from reslab.data.loader import Batch, EncodedLoader, InMemoryLoader
from reslab.evaluation.mistakes import mistakes_json, worst_mistakes
from reslab.evaluation.report import Report, build_report, score_set, wrong_in_top
from reslab.evaluation.scoring import Scores
from reslab.evaluation.views import OneCrop
from reslab.models.batchnorm import recompute_statistics, train_mode
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.resnet import ResNet
from reslab.runtime.device import Device
from reslab.runtime.events import Event
from reslab.training.optim import build_sgd
from reslab.training.origin import InitialState
from reslab.training.recipe import Recipe
from reslab.training.run import FinalReports, Task


@dataclass(frozen=True)
class ClassificationTask:
    """A recipe's network and images on their device."""

    recipe: Recipe
    device: Device
    net: ResNet
    preprocessing: Preprocessing
    batches: InMemoryLoader | EncodedLoader
    count: int  # of training images
    classes: tuple[str, ...]
    ids: tuple[str, ...]  # what folders call the classes; none: their names
    watched: Sequence[ImageSet]  # evaluated on the way
    final: Sequence[ImageSet]  # evaluated once, at the end
    class_weights: Tensor | None  # of the loss, [classes]
    origin: InitialState

    @property
    def epoch(self) -> int:
        """Iterations of one."""
        return -(-self.count // self.recipe.batch_size)

    def close(self) -> None:
        """End the threads that prepare photographs."""
        if isinstance(self.batches, EncodedLoader):
            self.batches.close()

    def shares(self, iteration: int) -> list[Batch]:
        """Of the mini-batch of `iteration`, an equal share for each virtual GPU of this process."""
        batch = self.batches(iteration)
        count = self.recipe.virtual_gpus // self.device.processes.count
        pairs = zip(batch.images.chunk(count), batch.labels.chunk(count), strict=True)
        return [Batch(images, labels) for images, labels in pairs]

    def loss(self, share: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy, in fp32, and training error in percent."""
        with self.device.autocast():
            scores = self.net(share.images)
        scores = scores.float()
        wrong = wrong_in_top(scores.detach(), share.labels, 1)
        loss = F.cross_entropy(scores, share.labels, self.class_weights)
        return loss, 100 * wrong.float().mean()

    def train_mode(self) -> None:
        """Layers as training wants them; statistics that are kept stay as they are."""
        train_mode(self.net, keep_statistics=self.recipe.batch_norm != "train")

    def model(self, reports: list[Event]) -> Model:
        """The network as it stands, with all that its use needs."""
        recipe = self.recipe.model_dump(mode="json")
        return Model(self.net, self.classes, self.preprocessing, recipe, reports, ids=self.ids)

    def evaluate(self, check_stop: Callable[[], None]) -> list[Event]:
        """Reports on the way, in fp32 with the statistics as they stand."""
        self.net.eval()
        reports = [self.evaluate_set(images, check_stop)[0].as_dict() for images in self.watched]
        self.train_mode()
        return reports

    def evaluate_set(
        self, images: ImageSet, check_stop: Callable[[], None] = lambda: None
    ) -> tuple[Report, Scores]:
        """The report of one set, and the scores behind it."""
        protocol = OneCrop(self.preprocessing.resize, self.preprocessing.size)
        scores = score_set(
            self.model([]),
            images,
            protocol,
            device=self.device.torch_device,
            processes=self.device.processes,
            check_stop=check_stop,
        )
        return build_report(scores, images, str(protocol)), scores

    def finish(self, check_stop: Callable[[], None]) -> FinalReports:
        """Recompute the statistics over augmented training batches, then evaluate for good.

        The batches are those of the iterations after the last: seeded, and new to the net.
        `beat` is called before each of them and in evaluation, and may raise to stop.
        """
        first = self.recipe.iterations
        if self.recipe.recompute_bn and self.recipe.batch_norm == "train":
            with self.device.autocast():
                recompute_statistics(
                    self.net,
                    (
                        self.net(share.images)
                        for k in range(self.recipe.recompute_bn)
                        for share in (check_stop() or self.shares(first + k))
                    ),
                    self.device.processes.all_gather,
                    self.recipe.virtual_gpus // self.device.processes.count,
                )
        self.net.eval()
        judged = [self.evaluate_set(images, check_stop) for images in self.final]
        _, scores = judged[-1]
        tested = self.final[-1]
        mistakes = worst_mistakes(scores.log_probabilities, tested.labels.cpu(), tested)
        return FinalReports(
            reports=[report.as_dict() | report.details() for report, _ in judged],
            files={"mistakes.json": json.dumps(mistakes_json(mistakes)).encode()},
        )


def parts_of(it: ClassificationTask) -> Task:
    """A classification as the parts of a run."""
    recipe = it.recipe
    return Task(
        net=it.net,
        optimizer=build_sgd(
            it.net,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            classifier_rate=recipe.classifier_rate,
        ),
        epoch=it.epoch,
        loss_of=it.loss,
        shares_of=it.shares,
        evaluate=it.evaluate,
        error_of=lambda report: report["top1_error"],
        finish=it.finish,
        model_file=lambda reports: model_bytes(it.model(reports)),
        processes=it.device.processes,
    )
