"""Evaluate a model on a set: every image exactly once, error rates from integer counts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired

import torch
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from reslab.data.datasets import EncodedImages, ImageSet
from reslab.evaluation.score_cache import CachedScores, ScoreCache
from reslab.evaluation.scoring import (
    LoadedRange,
    Reading,
    Scorable,
    Scores,
    load_ranges,
    log_mean,
    log_probabilities,
    split_into_ranges,
)
from reslab.evaluation.views import OneCrop, View, ViewProtocol, sizes_needed
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.events import Callback, bad_image, note, progress, silent
from reslab.runtime.text import printable
from reslab.runtime.threads import cores_for

Interval = Sequence[float]  # 95 % confidence interval (low, high), in percent
LISTED_CLASSES = 1000  # a report on more classes has no errors by class
CONFUSED_CLASSES = 100  # a report on more classes has no confusion matrix
TAKEN_FOR = 3  # number of the most frequent wrong predictions listed per class
RANKED_ROWS = 10_000  # rows of scores ranked at a time
QUANTILE = 1.959963984540054  # 97.5 % quantile of the normal distribution, for 95 % intervals


# results of one class; in the functional syntax, because "class" is a keyword
ClassErrors = TypedDict(
    "ClassErrors",
    {
        "class": str,
        "id": NotRequired[str],  # the class's folder name, for encoded sets only
        "n": int,
        "top1_error": float,  # percent
        # percent; precision is None if no image was predicted to be of this class
        "precision": NotRequired[float | None],
        "recall": NotRequired[float],
        "f1": NotRequired[float],
        "taken_for": Sequence[Sequence[str | int]],  # [class, images], the most frequent first
    },
)


@dataclass(frozen=True)
class Report:
    """Error rates in percent, with the set, the protocol and the number of images."""

    set: str
    protocol: str
    n: int
    top1_error: float
    top5_error: float | None  # None for 5 classes or fewer, where it says nothing
    loss: float  # mean cross-entropy, natural logarithm
    skipped: int = 0  # images that could not be decoded; not counted in n
    top1_interval: Interval | None = None
    top5_interval: Interval | None = None
    per_class: Sequence[ClassErrors] = field(default=(), repr=False)
    # numbers of images, [label][predicted]
    confusion: Sequence[Sequence[int]] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        errors = f"top-1 error {self.top1_error:.2f} %{between(self.top1_interval)}"
        if self.top5_error is not None:
            errors += f", top-5 error {self.top5_error:.2f} %{between(self.top5_interval)}"
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{printable(self.set)}: {errors}  ({self.protocol}, n={self.n}{skipped})"

    def as_dict(self) -> dict[str, Any]:
        """Return all fields except the details, for one line of a log."""
        details = self.details()
        return {key: value for key, value in vars(self).items() if key not in details}

    def details(self) -> dict[str, Any]:
        """Return the per-class errors and the confusion matrix."""
        return {"per_class": list(self.per_class), "confusion": self.confusion}

    def macro(self) -> dict[str, float] | None:
        """Return the means of precision, recall and F1 over the classes with images, in percent.

        The precision of a class that was never predicted counts as 0. The result is None if the
        report has no results by class, or is older than these numbers.
        """
        if not self.per_class or "f1" not in self.per_class[0]:
            return None
        count = len(self.per_class)
        return {
            "precision": sum(row["precision"] or 0.0 for row in self.per_class) / count,
            "recall": sum(row["recall"] for row in self.per_class) / count,
            "f1": sum(row["f1"] for row in self.per_class) / count,
        }


def between(interval: Interval | None) -> str:
    return f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""


@torch.no_grad()
def score_set(
    model: Scorable,
    images: ImageSet,
    protocol: ViewProtocol,
    *,
    device: torch.device | None = None,
    threads: int | None = None,
    on_event: Callback = silent,
    score_cache: ScoreCache | None = None,
    processes: Processes = SingleProcess(),
    check_stop: Callable[[], None] = lambda: None,
    reading: Reading = Reading(),
) -> Scores:
    """Average a model's probabilities over the views of a protocol, for every image in a set.

    The model maps uint8 [B, 3, H, W] to scores [B, classes] on `device`, by default the device of
    the set's labels. `threads` is the number of decoding threads; `score_cache` supplies scores
    computed earlier and, if its `keep` is set, stores new ones. Ranges of images are distributed
    over the processes, and every process returns all scores. `check_stop` is called once per range,
    equally often in every process, and may raise an exception to stop. `reading` says how files
    become pixels. Raise ValueError if the set
    is empty or its classes differ in number from the model's outputs.
    """
    if not len(images):
        raise ValueError(f"{images.name} has no images: there is nothing to evaluate")
    threads = threads or cores_for(processes)
    device = device or images.labels.device
    assert score_cache is None or processes.count == 1
    cached = score_cache.for_set(images, threads, on_event) if score_cache else None
    views = protocol.views()
    known = find_cached(cached, views, on_event)
    missing = [view for view in views if view not in known]
    shape = (len(images), len(images.classes))
    fresh = {view: torch.empty(shape) for view in missing if score_cache and score_cache.keep}
    bad = {index: text for scores in known.values() for index, text in scores.bad.items()}
    all_ranges = split_into_ranges(images)
    ranges = all_ranges[processes.rank :: processes.count]
    total = torch.full(shape, -0.0)
    for loaded in load_ranges(images, sizes_needed(missing), threads, ranges, reading):
        check_stop()
        rows = slice(loaded.indices.start, loaded.indices.stop)
        logs = score_range(model, loaded, missing, shape[1], device)
        for view, values in fresh.items():
            values[rows] = logs[view]
        logs |= {view: scores.log_probabilities[rows] for view, scores in known.items()}
        total[rows] = log_mean([logs[view] for view in views])
        bad |= loaded.bad
        for text in loaded.bad.values():
            on_event(bad_image(text))
        on_event(progress(loaded.indices.stop))
    if processes.rank >= len(all_ranges) % processes.count > 0:
        check_stop()  # other processes have one more range
    for view, values in fresh.items():
        assert cached is not None
        cached.keep(view, Scores(values, bad))
    gathered = processes.all_gather_objects(bad)
    bad = {index: text for part in gathered for index, text in part.items()}
    return Scores(processes.all_reduce_rows(total), dict(sorted(bad.items())))


def find_cached(
    cached: CachedScores | None, views: Sequence[View], on_event: Callback
) -> dict[View, Scores]:
    """Read the cached scores of the views that have them, and report their number."""
    if cached is None:
        return {}
    known = {view: scores for view in views if (scores := cached.find(view)) is not None}
    if known:
        count = f"{len(known)} of {len(views)} views"
        on_event(note(f"{count} read from cached scores in {cached.folder}"))
    for text in sorted({text for scores in known.values() for text in scores.bad.values()}):
        on_event(bad_image(text))
    return known


def score_range(
    model: Scorable, loaded: LoadedRange, views: Sequence[View], classes: int, device: torch.device
) -> dict[View, Tensor]:
    """Compute the log-probabilities of each view, [images, classes]; NaN for undecodable images."""
    scores = {view: torch.full((len(loaded.indices), classes), torch.nan) for view in views}
    if not loaded.images:
        return scores
    for view in views:
        logs = log_probabilities(model, loaded.images, view, device)
        if logs.shape[1] != classes:
            raise ValueError(
                f"the model has {logs.shape[1]} outputs, but the set has {classes} classes"
            )
        scores[view][loaded.positions] = logs
    return scores


def classify(
    model: Scorable,
    images: ImageSet,
    protocol: ViewProtocol = OneCrop(),
    *,
    device: torch.device | None = None,
    on_event: Callback = silent,
    score_cache: ScoreCache | None = None,
) -> Report:
    """Evaluate a model on a set; the arguments are those of `score_set`."""
    scores = score_set(
        model, images, protocol, device=device, on_event=on_event, score_cache=score_cache
    )
    return build_report(scores, images, str(protocol))


def build_report(scores: Scores, images: ImageSet, protocol: str) -> Report:
    """Compute error rates from scores and a set's labels, leaving out undecodable images.

    With 5 classes or fewer there is no top-5 error. Raise ValueError if no image could be decoded.
    """
    good = torch.tensor([index not in scores.bad for index in range(len(images))])
    n = int(good.sum())
    if not n:
        raise ValueError(f"no image of {images.name} can be decoded")
    labels, logs = images.labels.cpu()[good], scores.log_probabilities[good]
    parts = list(zip(logs.split(RANKED_ROWS), labels.split(RANKED_ROWS), strict=True))
    wrong = torch.cat([wrong_in_top(*part, 1) for part in parts])
    wrong1 = int(wrong.sum())
    top5_error, top5_interval = None, None
    if len(images.classes) > 5:
        wrong5 = sum(int(wrong_in_top(*part, 5).sum()) for part in parts)
        top5_error, top5_interval = 100 * wrong5 / n, wilson(wrong5, n)
    loss = -float(logs.gather(1, labels[:, None]).double().mean())
    confusion = confusion_matrix(logs, labels) if len(images.classes) <= LISTED_CLASSES else None
    small = confusion is not None and len(confusion) <= CONFUSED_CLASSES
    return Report(
        set=images.name, protocol=protocol, n=n,
        top1_error=100 * wrong1 / n, top5_error=top5_error, loss=loss,
        skipped=len(scores.bad), top1_interval=wilson(wrong1, n), top5_interval=top5_interval,
        per_class=() if confusion is None else class_errors(confusion, wrong, labels, images),
        confusion=confusion.tolist() if confusion is not None and small else None,
    )  # fmt: skip


def confusion_matrix(logs: Tensor, labels: Tensor) -> Tensor:
    """Count images by label and prediction, int64 [label, predicted].

    Images with NaN scores have no prediction and are not counted.
    """
    classes = logs.shape[1]
    highest = logs.max(1)  # for equal scores `max` returns the lower index
    counted = highest.values.isfinite()
    pairs = labels[counted] * classes + highest.indices[counted]
    return pairs.bincount(minlength=classes**2).view(classes, classes)


def class_errors(
    confusion: Tensor, wrong: Tensor, labels: Tensor, images: ImageSet
) -> list[ClassErrors]:
    """Return the results of each class that has images, with its most frequent wrong predictions.

    Of a class's n images, `correct` are predicted right; of all images, `predicted` are predicted
    to be of this class. Then precision = correct / predicted, recall = correct / n, and
    F1 = 2 correct / (n + predicted), their harmonic mean.
    """
    counts = labels.bincount(minlength=len(confusion)).tolist()
    errors = labels[wrong].bincount(minlength=len(confusion)).tolist()
    predictions = confusion.sum(0).tolist()
    names, ids = images.classes, images.ids if isinstance(images, EncodedImages) else ()
    rows: list[ClassErrors] = []
    for label, count in enumerate(counts):
        if not count:
            continue
        others = confusion[label].clone()
        others[label] = 0
        most = others.sort(descending=True, stable=True).indices[:TAKEN_FOR].tolist()
        correct, predicted = count - errors[label], predictions[label]
        row: ClassErrors = {
            "class": names[label],
            "id": ids[label] if ids else "",
            "n": count,
            "top1_error": 100 * errors[label] / count,
            "precision": 100 * correct / predicted if predicted else None,
            "recall": 100 * correct / count,
            "f1": 200 * correct / (count + predicted),
            "taken_for": [[names[at], int(others[at])] for at in most if others[at]],
        }
        if not ids:
            del row["id"]
        rows.append(row)
    return rows


def wrong_in_top(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Mark labels that are not among the k highest scores; [B, classes], [B] -> bool [B].

    Ties go to the lower index, so a collapsed net with equal scores for all classes gains nothing.
    """
    label_score = scores.gather(1, labels[:, None])  # [B, 1]
    index = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > label_score) | ((scores == label_score) & (index < labels[:, None]))
    correct = (ahead.sum(1) < k) & label_score[:, 0].isfinite()
    return ~correct


def wilson(wrong: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval in percent of the error rate `wrong` / `n` (Wilson, 1927)."""
    rate, spread = wrong / n, QUANTILE**2 / n
    middle = rate + spread / 2
    half = math.sqrt(rate * (1 - rate) * spread + spread**2 / 4)
    low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)
