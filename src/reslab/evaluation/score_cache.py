"""Scores kept beside a run: a file for each view of a set, bound to the model and the images."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from reslab.data.datasets import ImagesInMemory
from reslab.evaluation.scoring import AnySet, Scores
from reslab.evaluation.views import View
from reslab.runtime.events import Callback, note
from reslab.runtime.files import TensorFile, atomic_write
from reslab.runtime.threads import map_in_order

NAME = "log_probabilities"
READ_AHEAD = 64  # files read before their turn


@dataclass(frozen=True)
class ScoreCache:
    """The kept scores of one model; they are used wherever they are found."""

    folder: Path
    model: str  # a digest of all that its scores depend on
    keep: bool = False  # what is computed
    images: str | None = None  # the digest of the set, where it is known

    @property
    def in_use(self) -> bool:
        """Whether there are scores, or there will be."""
        return self.keep or self.folder.is_dir()

    def for_set(self, images: AnySet, threads: int, on_event: Callback) -> "CachedScores | None":
        """Where this set's scores are or will be; None if there are none and none are wanted."""
        if not self.in_use:
            return None
        digest = self.images or digest_set(images, threads, on_event)
        plain = re.sub(r"[^\w.-]+", "-", images.name)
        folder = self.folder / f"{plain}-{digest[:12]}"
        if self.keep:
            folder.mkdir(parents=True, exist_ok=True)  # before hours of work, not after
        return CachedScores(
            folder, self.model, digest, (len(images), len(images.classes)), on_event
        )


@dataclass(frozen=True)
class CachedScores:
    """The kept scores of one model on one set."""

    folder: Path
    model: str
    images: str  # a digest of the set
    shape: tuple[int, int]  # images, classes
    on_event: Callback

    def file(self, view: View) -> Path:
        return self.folder / f"{view}.safetensors"

    def find(self, view: View) -> Scores | None:
        """The scores of a view; None, and a line, if the file is damaged or not of this model."""
        file = self.file(view)
        if not file.is_file():
            return None
        try:
            content = TensorFile.read(file)
            facts, scores = content.facts, content.tensors[NAME]
            if facts["model"] != self.model or facts["pictures"] != self.images:
                self.on_event(note(f"{file} holds the scores of another model: not used"))
                return None
            first_edition = first_edition_checksum(scores, facts["bad"])
            if facts.get("sha256", first_edition) != first_edition:
                raise ValueError("its checksum does not match")
            bad = {int(index): reason for index, reason in facts["bad"].items()}
        except (OSError, KeyError, ValueError) as error:
            self.on_event(note(f"{file} is damaged, or no file of scores: not used ({error})"))
            return None
        assert scores.shape == self.shape
        return Scores(scores, bad)

    def keep(self, view: View, scores: Scores) -> None:
        """Write the scores of a view."""
        facts = {
            "model": self.model, "pictures": self.images, "view": str(view), "bad": scores.bad,
        }  # fmt: skip
        content = TensorFile({NAME: scores.log_probabilities}, facts).to_bytes()
        atomic_write(self.file(view), content, writer=f".{os.getpid()}")


def first_edition_checksum(scores: Tensor, bad: dict[str, str]) -> str:
    """The checksum that the first edition wrote into a file of scores."""
    digest = hashlib.sha256(scores.numpy().data)
    digest.update(json.dumps(bad).encode())
    return digest.hexdigest()


def digest_set(images: AnySet, threads: int, on_event: Callback) -> str:
    """One digest of a set: its classes, labels, names, and every byte of its images."""
    digest = hashlib.sha256(json.dumps([len(images), images.classes]).encode())
    digest.update(images.labels.cpu().numpy().data)
    for part in contents(images, threads, on_event):
        digest.update(part)
    return digest.hexdigest()


def contents(images: AnySet, threads: int, on_event: Callback) -> Iterator[bytes | memoryview]:
    """The pixels of a set in memory; of files, the name and the digest of each."""
    if isinstance(images, ImagesInMemory):
        yield str(tuple(images.images.shape)).encode()
        yield images.images.cpu().contiguous().numpy().data
        return

    def read(index: int) -> bytes:
        return hashlib.sha256(images.read(images.files[index])).digest()

    on_event(note(f"reading {len(images):,} images, to know which kept scores are theirs"))
    digests = map_in_order(read, images.announced(range(len(images))), threads, READ_AHEAD)
    for file, digest in zip(images.files, digests, strict=True):
        yield json.dumps(file).encode() + digest
