"""A protocol over a set: each image exactly once, errors from whole counts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reslab.data.datasets import EncodedImages
from reslab.evaluation.score_cache import CachedScores, ScoreCache
from reslab.evaluation.scoring import (
    AnySet,
    LoadedRange,
    Scorable,
    Scores,
    load_ranges,
    log_mean,
    log_probabilities,
    ranges_of,
)
from reslab.evaluation.views import OneCrop, View, ViewProtocol
from reslab.runtime.device import Processes, SingleProcess
from reslab.runtime.events import Callback, bad_image, note, progress, silent
from reslab.runtime.threads import cores_for

Interval = Sequence[float]  # low and high, 95 %, percent
LISTED_CLASSES = 1000  # at most, class by class
CONFUSED_CLASSES = 100  # at most, as a matrix
TAKEN_FOR = 3  # other classes that a class's line names
RANKED_ROWS = 10_000  # of scores that are ranked at a time


@dataclass(frozen=True)
class Report:
    """Error rates in percent, never without their set, protocol and number of images."""

    set: str
    protocol: str
    n: int
    top1_error: float
    top5_error: float
    loss: float  # mean cross-entropy, natural logarithm
    skipped: int = 0  # images that could not be decoded; not in n
    top1_interval: Interval | None = None
    top5_interval: Interval | None = None
    per_class: Sequence[dict[str, Any]] = ()  # {"class", "id", "n", "top1_error", "taken_for"}
    confusion: Sequence[Sequence[int]] | None = None  # images, [label][predicted]

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return (
            f"{self.set}: top-1 error {self.top1_error:.2f} %{between(self.top1_interval)}, top-5 "
            f"error {self.top5_error:.2f} %{between(self.top5_interval)}  "
            f"({self.protocol}, n={self.n}{skipped})"
        )

    def as_dict(self) -> dict[str, Any]:
        """What fits on a line of a log."""
        core = ("set", "protocol", "n", "top1_error", "top5_error", "loss", "skipped")
        intervals = ("top1_interval", "top5_interval")
        return {key: getattr(self, key) for key in (*core, *intervals)}

    def details(self) -> dict[str, Any]:
        """Class by class."""
        return {"per_class": list(self.per_class), "confusion": self.confusion}


def between(interval: Interval | None) -> str:
    return f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""


def classify(
    model: Scorable,
    images: AnySet,
    protocol: ViewProtocol = OneCrop(),
    *,
    device: torch.device | None = None,
    threads: int | None = None,
    on_event: Callback = silent,
    score_cache: ScoreCache | None = None,
) -> Report:
    """Test `model`, uint8 [B, 3, H, W] -> scores [B, classes], on every image of a set.

    Top-5 is top-k for k = min(5, classes). Images are shown on `device`, else where the set's
    labels are; `threads` decode. `vault` has what was computed before.
    """
    scores = score_set(
        model,
        images,
        protocol,
        device=device,
        threads=threads,
        on_event=on_event,
        score_cache=score_cache,
    )
    return build_report(scores, images, str(protocol))


@torch.no_grad()
def score_set(
    model: Scorable,
    images: AnySet,
    protocol: ViewProtocol,
    *,
    device: torch.device | None = None,
    threads: int | None = None,
    on_event: Callback = silent,
    score_cache: ScoreCache | None = None,
    processes: Processes = SingleProcess(),
    check_stop: Callable[[], None] = lambda: None,
) -> Scores:
    """The mean over a protocol's views of a model's probabilities; arguments as of `classify`.

    Ranges of images are dealt whole to the processes, and all of them have all scores. `beat` is
    called once a range, equally often by every process, and may raise to stop.
    """
    if not len(images):
        raise ValueError(f"{images.name} holds no images: there is nothing to evaluate")
    threads = threads or cores_for(processes)
    device = device or images.labels.device
    shelf = score_cache.for_set(images, threads, on_event) if score_cache else None
    views = protocol.views()
    kept = find_cached(shelf, views, on_event)
    missing = [view for view in views if view not in kept]
    shape = (len(images), len(images.classes))
    fresh = {view: torch.empty(shape) for view in missing if score_cache and score_cache.keep}
    bad = {index: text for scores in kept.values() for index, text in scores.bad.items()}
    assert score_cache is None or processes.count == 1
    whole = ranges_of(images)
    ranges = whole[processes.rank :: processes.count]
    total = torch.full(shape, -0.0)
    for loaded in load_ranges(images, [view.side for view in missing], threads, ranges):
        check_stop()
        here = slice(loaded.start, loaded.stop)
        parts = score_range(model, loaded, missing, shape[1], device)
        for view, values in fresh.items():
            values[here] = parts[view]
        parts |= {view: scores.log_probabilities[here] for view, scores in kept.items()}
        total[here] = log_mean([parts[view] for view in views])
        bad |= loaded.bad
        for text in loaded.bad.values():
            on_event(bad_image(text))
        on_event(progress(loaded.stop))
    if processes.rank >= len(whole) % processes.count > 0:
        check_stop()  # others have a range more
    for view, values in fresh.items():
        assert shelf is not None
        shelf.keep(view, Scores(values, bad))
    bad = {at: text for one in processes.all_gather_objects(bad) for at, text in one.items()}
    return Scores(processes.join(total), dict(sorted(bad.items())))


def find_cached(
    shelf: CachedScores | None, views: Sequence[View], on_event: Callback
) -> dict[View, Scores]:
    """The views that need not be computed again."""
    if shelf is None:
        return {}
    kept = {view: scores for view in views if (scores := shelf.find(view)) is not None}
    if kept:
        on_event(note(f"{len(kept)} of {len(views)} views from kept scores, {shelf.folder}"))
    named = {text for scores in kept.values() for text in scores.bad.values()}
    for text in sorted(named):
        on_event(bad_image(text))
    return kept


def score_range(
    model: Scorable, loaded: LoadedRange, views: Sequence[View], classes: int, device: torch.device
) -> dict[View, Tensor]:
    """Log-probabilities of a range by view, [images, classes]; NaN for those that are bad."""
    rows = {view: torch.full((loaded.stop - loaded.start, classes), torch.nan) for view in views}
    if not loaded.images:
        return rows
    for view in views:
        found = log_probabilities(model, loaded.images, view, device)
        if found.shape[1] != classes:
            raise ValueError(f"the model scores {found.shape[1]} classes, the set has {classes}")
        rows[view][loaded.positions] = found
    return rows


def build_report(scores: Scores, images: AnySet, protocol: str) -> Report:
    """Scores against a set's labels; images that could not be decoded are left out."""
    good = torch.tensor([index not in scores.bad for index in range(len(images))])
    n = int(good.sum())
    if not n:
        raise ValueError(f"not one image of {images.name} could be decoded")
    labels, logs = images.labels.cpu()[good], scores.log_probabilities[good]
    k = min(5, len(images.classes))
    parts = list(zip(logs.split(RANKED_ROWS), labels.split(RANKED_ROWS), strict=True))
    wrong = torch.cat([wrong_in_top(*part, 1) for part in parts])
    wrong1, wrong5 = int(wrong.sum()), sum(int(wrong_in_top(*part, k).sum()) for part in parts)
    loss = -float(logs.gather(1, labels[:, None]).double().mean())
    confusion = confusion_matrix(logs, labels) if len(images.classes) <= LISTED_CLASSES else None
    small = confusion is not None and len(confusion) <= CONFUSED_CLASSES
    return Report(
        set=images.name, protocol=protocol, n=n,
        top1_error=100 * wrong1 / n, top5_error=100 * wrong5 / n, loss=loss,
        skipped=len(scores.bad), top1_interval=wilson(wrong1, n), top5_interval=wilson(wrong5, n),
        per_class=() if confusion is None else class_errors(confusion, wrong, labels, images),
        confusion=confusion.tolist() if confusion is not None and small else None,
    )  # fmt: skip


def confusion_matrix(logs: Tensor, labels: Tensor) -> Tensor:
    """How many images of each class were taken for each, int64 [label, predicted].

    Scores that are no numbers take an image for nothing.
    """
    classes = logs.shape[1]
    highest = logs.max(1)
    counted = highest.values.isfinite()  # of equal scores `max` gives the lower index
    pairs = labels[counted] * classes + highest.indices[counted]
    return pairs.bincount(minlength=classes**2).view(classes, classes)


def class_errors(
    confusion: Tensor, wrong: Tensor, labels: Tensor, images: AnySet
) -> list[dict[str, Any]]:
    """A row for each class that has images: its error, and what it was mostly taken for."""
    counts = labels.bincount(minlength=len(confusion)).tolist()
    errors = labels[wrong].bincount(minlength=len(confusion)).tolist()
    names, ids = images.classes, images.ids if isinstance(images, EncodedImages) else ()
    rows = []
    for label, count in enumerate(counts):
        if not count:
            continue
        others = confusion[label].clone()
        others[label] = 0
        most = others.sort(descending=True, stable=True).indices[:TAKEN_FOR].tolist()
        rows.append(
            {
                "class": names[label],
                **({"id": ids[label]} if ids else {}),
                "n": count,
                "top1_error": 100 * errors[label] / count,
                "taken_for": [[names[at], int(others[at])] for at in most if others[at]],
            }
        )
    return rows


QUANTILE = 1.959963984540054  # of the normal distribution: 95 % lie within so many deviations


def wrong_in_top(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Which labels are not among the k highest scores; [B, classes], [B] -> bool [B].

    A label shares its score with another class only by accident or by collapse; then the lower
    index ranks first, so a net that scores all classes alike earns nothing by it.
    """
    own = scores.gather(1, labels[:, None])  # [B, 1]
    index = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > own) | ((scores == own) & (index < labels[:, None]))
    right = (ahead.sum(1) < k) & own[:, 0].isfinite()
    return ~right


def wilson(wrong: int, n: int) -> tuple[float, float]:
    """The 95 % interval of an error rate after `wrong` of `n`, in percent (Wilson, 1927)."""
    rate, spread = wrong / n, QUANTILE**2 / n
    middle = rate + spread / 2
    half = math.sqrt(rate * (1 - rate) * spread + spread**2 / 4)
    low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
    return 100 * max(low, 0.0), 100 * min(high, 1.0)
