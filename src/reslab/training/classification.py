"""The classification task: a network and its images, ready to train."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.data.datasets import ImageSet
from reslab.data.loader import Batch, Draws, EncodedLoader, InMemoryLoader
from reslab.data.sampler import Stream, make_generator
from reslab.evaluation.mistakes import mistakes_json, worst_mistakes
from reslab.evaluation.report import Report, build_report, score_set, wrong_in_top
from reslab.evaluation.scoring import Scores
from reslab.evaluation.views import OneCrop
from reslab.models import batchnorm
from reslab.models.model_file import Model, model_bytes
from reslab.models.preprocessing import Preprocessing
from reslab.models.random_layers import RandomLayer, draw_numbers, numbers_for, random_layers
from reslab.runtime.device import Device
from reslab.runtime.events import Event, Log
from reslab.runtime.files import to_json
from reslab.training.data_record import DATA_FILE
from reslab.training.optimizer import Optimizer
from reslab.training.origin import FILE, InitialState, initial_state_bytes
from reslab.training.recipe import Recipe
from reslab.training.task import CheckStop, Final


@dataclass(frozen=True)
class ClassificationTask:
    """The `Task` that trains a classifier: a recipe's network and images on their device."""

    recipe: Recipe
    device: Device
    net: nn.Module
    optimizer: Optimizer
    preprocessing: Preprocessing
    loader: InMemoryLoader | EncodedLoader
    count: int  # training images
    classes: tuple[str, ...]
    ids: tuple[str, ...]  # folder names of the classes; empty: the same as `classes`
    watched: Sequence[ImageSet]  # monitored during training
    final: Sequence[ImageSet]  # evaluated once, at the end
    class_weights: Tensor | None  # weights in the loss, [classes]
    origin: InitialState
    data_record: bytes = b""  # of the images, for the run folder; empty: sets that cannot change
    log: Log = lambda text: None
    skipped: set[str] = field(default_factory=set)  # bad images of evaluations, each logged once

    @property
    def epoch(self) -> int:
        return -(-self.count // self.recipe.batch_size)

    @property
    def recomputed(self) -> int:
        """Mini-batches for the batch-norm statistics after training; 0 without batch norm."""
        trained = self.recipe.batch_norm == "train" and batchnorm.norms_of(self.net)
        return self.recipe.recompute_bn if trained else 0

    @property
    def files(self) -> Mapping[str, bytes]:
        if self.recipe.data != "pictures":
            return {}
        files = {FILE: initial_state_bytes(self.origin)}
        return files | ({DATA_FILE: self.data_record} if self.data_record else {})

    def close(self) -> None:
        if isinstance(self.loader, EncodedLoader):
            self.loader.close()

    @cached_property
    def random_layers(self) -> list[RandomLayer]:
        """The network's random layers, kept: finding them takes as long as a mini-batch."""
        return random_layers(self.net)

    def draws(self, iteration: int) -> Draws:
        """Sample the mini-batch of `iteration`, and the numbers for the network's random layers.

        The numbers are drawn for the whole mini-batch, so that they do not depend on the number of
        processes.
        """
        if not self.random_layers:
            return self.loader.draws(iteration)
        rng = make_generator(self.loader.seed, Stream.NETWORK, iteration)
        numbers = draw_numbers(self.net, self.recipe.batch_size, rng)
        own_part = tuple(drawn[self.loader.rank_slice] for drawn in numbers)
        return replace(self.loader.draws(iteration), network=own_part)

    def prepare(self, draws: Draws) -> list[Batch]:
        if self.recipe.deviations.parts:  # own layers and optimizers may use torch's generators
            key = (self.loader.seed, Stream.GLOBAL, draws.iteration)
            torch.manual_seed(make_generator(*key).initial_seed())
        batch = self.loader.batch(draws)
        count = self.recipe.virtual_gpus // self.device.processes.count
        numbers = [drawn.to(batch.images.device).chunk(count) for drawn in draws.network]
        pairs = zip(batch.images.chunk(count), batch.labels.chunk(count), strict=True)
        return [
            Batch(images, labels, tuple(drawn[share] for drawn in numbers))
            for share, (images, labels) in enumerate(pairs)
        ]

    def loss(self, share: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy, in fp32, and the training error in percent."""
        numbers = numbers_for(self.net, share.network) if self.random_layers else nullcontext()
        with self.device.autocast(), numbers:
            scores = self.net(share.images)
        return self.loss_of(scores.float(), share)

    def loss_of(self, scores: Tensor, share: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy of a share's scores, and the error in percent."""
        wrong = wrong_in_top(scores.detach(), share.labels, 1)
        loss = F.cross_entropy(scores, share.labels, self.class_weights)
        return loss, 100 * wrong.float().mean()

    def train_mode(self) -> None:
        """Set the network to training mode, except for batch norm whose statistics are kept."""
        batchnorm.train_mode(self.net, keep_statistics=self.recipe.batch_norm != "train")

    def model(self, reports: list[Event]) -> Model:
        """Return the current network with everything that inference needs."""
        recipe = self.recipe.model_dump(mode="json")
        own_net = self.recipe.deviations.net
        return Model(
            self.net, self.classes, self.preprocessing, recipe, reports, self.ids, own_net=own_net
        )

    def model_file(self, reports: list[Event]) -> bytes:
        return model_bytes(self.model(reports))

    def evaluate(self, check_stop: CheckStop) -> list[Event]:
        """Evaluate in fp32 with the current batch-norm statistics; return one report per set."""
        self.net.eval()
        reports = [self.evaluate_set(images, check_stop)[0].as_dict() for images in self.watched]
        self.train_mode()
        return reports

    def error_of(self, report: Event) -> float:
        return report["top1_error"]

    def evaluate_set(
        self, images: ImageSet, check_stop: CheckStop = lambda: None
    ) -> tuple[Report, Scores]:
        """Return the report for one set and the scores it is computed from."""
        protocol = OneCrop(self.preprocessing.resize, self.preprocessing.size)
        scores = score_set(
            self.model([]),
            images,
            protocol,
            device=self.device.torch_device,
            processes=self.device.processes,
            check_stop=check_stop,
        )
        for reason in scores.bad.values():
            if reason not in self.skipped:
                self.skipped.add(reason)
                self.log(f"skipped {reason}")
        return build_report(scores, images, str(protocol)), scores

    def finish(self, check_stop: CheckStop) -> Final:
        """Recompute the batch-norm statistics over augmented mini-batches, then make final reports.

        The mini-batches belong to the iterations after the last: seeded, and new to the network.
        """
        first, count = self.recipe.iterations, self.recomputed
        if count:
            self.recompute_statistics(range(first, first + count), check_stop)
        self.net.eval()
        evaluated = [self.evaluate_set(images, check_stop) for images in self.final]
        _, scores = evaluated[-1]
        test = self.final[-1]
        mistakes = worst_mistakes(scores.log_probabilities, test.labels.cpu(), test)
        reports = [report.as_dict() | report.details() for report, _ in evaluated]
        return reports, {"mistakes.json": to_json(mistakes_json(mistakes)).encode()}

    def recompute_statistics(
        self, iterations: Iterable[int], check_stop: CheckStop = lambda: None
    ) -> None:
        """Average the batch-norm statistics over the mini-batches of `iterations`."""
        processes = self.device.processes
        passes = (
            self.net(share.images)
            for iteration in iterations
            for share in (check_stop() or self.prepare(self.loader.draws(iteration)))
        )
        with self.device.autocast():
            batchnorm.recompute_statistics(
                self.net, passes, processes.all_gather, self.recipe.virtual_gpus // processes.count
            )
