"""Cached scores beside a model: one file per view of a set, valid for exactly these weights and
images."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reslab.data.datasets import ImageSet, ImagesInMemory
from reslab.errors import os_reason
from reslab.evaluation.scoring import Scores
from reslab.evaluation.views import View
from reslab.models.config import ResNetConfig
from reslab.models.model_file import Model
from reslab.runtime.events import Callback, note
from reslab.runtime.files import TensorFile, sha256_of
from reslab.runtime.threads import map_in_order
from reslab.runtime.writing import atomic_write, prepare_folder

NAME = "log_probabilities"
FILES_AHEAD = 64  # files read ahead


@dataclass(frozen=True)
class ScoreCache:
    """A model's cached scores on all sets."""

    folder: Path
    model: str  # a digest of everything that the scores depend on
    keep: bool = False  # whether to write new scores
    images: str | None = None  # the digest of the set, if already known

    @property
    def in_use(self) -> bool:
        return self.keep or self.folder.is_dir()

    def for_set(self, images: ImageSet, threads: int, on_event: Callback) -> "CachedScores | None":
        """Open the cached scores of a set; return None if the cache is not in use."""
        if not self.in_use:
            return None
        digest = self.images or digest_set(images, threads, on_event)
        name = re.sub(r"[^\w.-]+", "-", images.name)
        folder = self.folder / f"{name}-{digest[:12]}"
        if self.keep:
            prepare_folder(folder)  # better to fail now than after scoring
        return CachedScores(
            folder, self.model, digest, (len(images), len(images.classes)), on_event
        )


@dataclass(frozen=True)
class CachedScores:
    """A model's cached scores on one set."""

    folder: Path
    model: str
    images: str  # a digest of the set
    shape: tuple[int, int]  # images, classes
    on_event: Callback

    def file(self, view: View) -> Path:
        return self.folder / f"{view}.safetensors"

    def find(self, view: View) -> Scores | None:
        """Read the scores of a view; return None if there are none.

        Damaged scores, and scores of another model or set, are reported and not used.
        """
        file = self.file(view)
        if not file.is_file():
            return None
        try:
            content = TensorFile.read(file)
            facts, scores = content.facts, content.tensors[NAME]
            if facts["model"] != self.model or facts["pictures"] != self.images:
                self.on_event(
                    note(f"{file} is not used: it has the scores of another model or set")
                )
                return None
            bad = facts["bad"]
            if not isinstance(bad, dict) or not all(isinstance(why, str) for why in bad.values()):
                raise ValueError("its bad images have no reasons")
            if scores.dtype != torch.float32 or scores.shape != self.shape:
                raise ValueError(f"{scores.dtype} {list(scores.shape)} instead of fp32 scores")
            first_edition = first_edition_checksum(scores, bad)
            if facts.get("sha256", first_edition) != first_edition:
                raise ValueError("its checksum does not match")
            bad = {int(index): reason for index, reason in bad.items()}
        except (OSError, KeyError, ValueError) as error:
            self.on_event(note(f"{file} is not used: it is damaged or has no scores ({error})"))
            return None
        return Scores(scores, bad)

    def keep(self, view: View, scores: Scores) -> None:
        """Write the scores of a view; a full disk is reported, since the evaluation is complete."""
        facts = {
            "model": self.model, "pictures": self.images, "view": str(view), "bad": scores.bad,
        }  # fmt: skip
        content = TensorFile({NAME: scores.log_probabilities}, facts).to_bytes()
        try:
            atomic_write(self.file(view), content)
        except OSError as error:
            self.on_event(note(f"scores are not kept: {os_reason(error)}: {self.file(view)}"))


def first_edition_checksum(scores: Tensor, bad: dict[str, str]) -> str:
    """Return the checksum that the first edition of reslab stored with a file's scores."""
    digest = hashlib.sha256(scores.numpy().data)
    digest.update(json.dumps(bad).encode())
    return digest.hexdigest()


def digest_set(images: ImageSet, threads: int, on_event: Callback) -> str:
    """Return a digest of a set's classes, labels, file names, and every byte of its images."""
    digest = hashlib.sha256(json.dumps([len(images), images.classes]).encode())
    digest.update(images.labels.cpu().numpy().data)
    if isinstance(images, ImagesInMemory):
        digest.update(str(tuple(images.images.shape)).encode())
        digest.update(images.images.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def digest_file(index: int) -> bytes:
        return hashlib.sha256(images.read(images.files[index])).digest()

    on_event(note(f"reading {len(images):,} images to look up their cached scores"))
    indices = images.prefetching(range(len(images)))
    digests = map_in_order(digest_file, indices, threads, FILES_AHEAD)
    for file, file_digest in zip(images.files, digests, strict=True):
        digest.update(json.dumps(file).encode() + file_digest)
    return digest.hexdigest()


def config_json(config: ResNetConfig) -> str:
    """Return a configuration as JSON, without newer fields that have their default value.

    Scores cached before these fields existed are thus still found.
    """
    fields = config.model_dump(mode="json")
    added = {"norm": {"kind": "batch"}, "stochastic_depth": 0.0, "dropout": 0.0}
    same = {key: value for key, value in fields.items() if added.get(key) != value}
    return json.dumps(same, separators=(",", ":"))


def score_cache_of(path: Path, model: Model, keep: bool) -> ScoreCache:
    """Return the score cache of a model, in its run folder or beside its file.

    Scores in bf16, in fp32 and from other backends have separate folders, so that none overwrites
    the others.
    """
    # scores also depend on the configuration and the preprocessing
    network = model.own_net or config_json(model.config)
    facts = f"{network} {json.dumps(model.preprocessing.facts())}"
    tensors = model.net.state_dict() | model.preprocessing.tensors()
    kind = "scores-bf16" if model.dtype == torch.bfloat16 else "scores"
    kind += "" if model.backend == "torch" else f"-{model.backend}"
    folder = path / kind if path.is_dir() else path.with_name(f"{path.name}.{kind}")
    return ScoreCache(folder, sha256_of(tensors | {facts: torch.empty(0)}), keep)
