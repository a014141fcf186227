"""Export models: to other runtimes, with a proof, and their weights to other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from pydantic import JsonValue

from reslab.api.display import OnEvent, showing
from reslab.api.export_detector import export_detector
from reslab.api.export_images import images_for_proof
from reslab.api.export_weights import (
    SUFFIXES,
    ExportedWeights,
    export_timm,
    export_torchvision,
)
from reslab.api.import_weights import check_new_file
from reslab.api.int8_loss import (
    LEAST_AGREEMENT,
    Int8Loss,
    images_for_int8,
    measure_loss,
)
from reslab.api.models import IN_MEMORY, AnyModel, holds_detector, open_classifier, path_of
from reslab.deploy import onnx_file
from reslab.deploy.detector_proof import DetectorVerdict
from reslab.deploy.export import Draft, must_have_passed, try_draft, write_draft
from reslab.deploy.int8 import int8_network, model_of_network
from reslab.deploy.openvino_file import openvino_draft
from reslab.deploy.prepare import must_be_exact
from reslab.deploy.proof import ProofImages, Verdict, network_input
from reslab.deploy.torch_file import torch_draft
from reslab.errors import unknown_name
from reslab.models.model_file import Model
from reslab.runtime.events import Callback, note


@dataclass(frozen=True)
class ExportedModel:
    """A file for another runtime, proven to answer as the model does."""

    path: Path
    to: str
    verdict: Verdict | DetectorVerdict
    size: int  # bytes, of all its files
    lines: tuple[str, ...] = ()  # more for the user
    loss: Int8Loss | None = None  # if the network was rounded to int8

    def __str__(self) -> str:
        first = f"{self.path}: {self.to}, {self.size / 1e6:.1f} MB"
        loss = [str(self.loss)] if self.loss else []
        return "\n".join([first, *self.lines, *loss, str(self.verdict)])

    def as_dict(self) -> dict[str, JsonValue]:
        """Return a description of the file and of its proof for JSON."""
        return {
            "file": str(self.path),
            "to": self.to,
            "bytes": self.size,
            "parity": self.verdict.as_dict(),
            **({"loss": self.loss.as_dict()} if self.loss else {}),
        }


Exported = ExportedWeights | ExportedModel


@dataclass(frozen=True)
class Request:
    """What the user wants exported, and how."""

    model: Model
    path: Path  # where the model was loaded from
    to: str
    out: Path
    check: Path | None
    exact: bool
    vnni: bool
    on_event: Callback


@dataclass(frozen=True)
class Target:
    """A format that models are exported to."""

    ending: str  # of the default file name: "model" and this
    suffixes: tuple[str, ...]
    export: Callable[[Request], Exported]
    options: tuple[str, ...] = ()  # that apply, beside `out`


class DraftBuilder(Protocol):
    """Build the export of one model, resizing exactly as Pillow or nearly."""

    def __call__(self, *, exact: bool) -> Draft: ...


def export(
    model: AnyModel,
    to: str,
    out: str | Path | None = None,
    *,
    check: str | Path | None = None,
    exact: bool = False,
    vnni: bool = False,
    on_event: OnEvent = "print",
) -> Exported:
    """Write a model for another runtime, or its weights for another program.

    `to` is a name in `TARGETS`. "onnx" is a file with all preprocessing inside, which is opened in
    its runtime and must answer as reslab does before it is written: on images in the folder
    `check`, by default on the model's own test images, and on seeded ones. If `exact`, it resizes
    images to exactly the pixels of Pillow. "onnx-int8" is such a file with its network in int8,
    calibrated on images in `check` or the model's own; `vnni` is for files that stay on processors
    with VNNI. "openvino" is a pair of files, .xml and .bin, that takes crops. "torch-export" is a
    file of torch, .pt2, otherwise like "onnx". "torchvision" and "timm" are files of weights,
    .safetensors, .pth or .pt, for the networks of these libraries. `out` is a new file, by default
    beside the model. A detector exports to "onnx" only, and is always exact.

    Raise ValueError, with the reason, if the target cannot represent the network, and RuntimeError
    if the file would not answer as reslab does.
    """
    if to not in TARGETS:
        raise ValueError(unknown_name("target of export", to, TARGETS))
    target = TARGETS[to]
    for name, given in (("check", check is not None), ("exact", exact), ("vnni", vnni)):
        if given and name not in target.options:
            raise ValueError(f"`{name}` does not apply to {to}")
    file = Path(out) if out is not None else default_out(model, target)
    check_new_file(file, target.suffixes)
    folder = Path(check) if check is not None else None
    if folder is not None and not folder.exists():
        raise ValueError(f"`check` {folder}: no such folder")
    if holds_detector(model):
        with showing(on_event) as callback:
            verdict, size = export_detector(model, to, file, folder, callback)
        return ExportedModel(file, to, verdict, size)
    path, loaded = open_classifier(model, torch.device("cpu"))
    if loaded.backend != "torch":
        raise ValueError(f"{path} is an exported file: export the model that it was made from")
    with showing(on_event) as callback:
        return target.export(Request(loaded, path, to, file, folder, exact, vnni, callback))


def default_out(model: AnyModel, target: Target) -> Path:
    """Return the path of the exported file if none is given: beside the model.

    A network that was given by its name is in a cache, so its file is written here.
    """
    path = path_of(model)
    if isinstance(model, str | Path) and path != Path(model):
        return Path(f"{str(model).replace(':', '-')}{target.ending}")
    if path == IN_MEMORY:
        raise ValueError("the model was not loaded from a file: say in `out` what file to write")
    if path.is_dir():
        return path / f"model{target.ending}"
    return path.with_name(f"{path.stem}{target.ending}")


def export_onnx(request: Request) -> ExportedModel:
    """Write an ONNX file."""
    return write_proven(request, partial(onnx_file.onnx_draft, request.model))


def export_torch(request: Request) -> ExportedModel:
    """Write a program of torch."""
    return write_proven(request, partial(torch_draft, request.model))


def write_proven(request: Request, draft_for: DraftBuilder) -> ExportedModel:
    """Write a file with all preprocessing inside, once it has been proven."""
    images = images_for_proof(request.model, request.path, request.check)
    _, draft, verdict = proven(request, draft_for, images)
    size = write_draft(request.model, draft, request.out, verdict)
    return ExportedModel(request.out, request.to, verdict, size)


def proven(
    request: Request, draft_for: DraftBuilder, images: ProofImages
) -> tuple[bool, Draft, Verdict]:
    """Return whether a draft resizes exactly as Pillow, the draft, and its verdict.

    It resizes exactly if the request or the model demands it, or if the other draft fails.
    """
    exact = request.exact or must_be_exact(request.model)
    draft = draft_for(exact=exact)
    verdict = try_draft(request.model, draft, request.out.suffix, images)
    if not exact and not verdict.passed:
        request.on_event(note(f"resized exactly as by Pillow, because otherwise: {verdict}"))
        exact, draft = True, draft_for(exact=True)
        verdict = try_draft(request.model, draft, request.out.suffix, images)
    return exact, draft, verdict


def export_openvino(request: Request) -> ExportedModel:
    """Write the two files of OpenVINO, .xml and .bin."""
    check_new_file(request.out.with_suffix(".bin"), (".bin",))
    draft = openvino_draft(request.model)
    images = images_for_proof(request.model, request.path, request.check)
    verdict = try_draft(request.model, draft, request.out.suffix, images)
    size = write_draft(request.model, draft, request.out, verdict)
    text = "it takes crops: resize and crop images first, as reslab does"
    return ExportedModel(request.out, request.to, verdict, size, (text,))


def export_int8(request: Request) -> ExportedModel:
    """Write an ONNX file with its network in int8, if that loses little.

    Its preprocessing is proven with the network in fp32, as rounding hides small mistakes.
    """
    model, out = request.model, request.out
    images = images_for_int8(model, request.path, request.check)
    inputs = [network_input(model, image) for image in images.calibration]
    network = int8_network(model, inputs, vnni=request.vnni)
    loss = measure_loss(model, model_of_network(model, network), request.path, images)
    if loss.agreement < LEAST_AGREEMENT:
        raise RuntimeError(f"{out} was not written: {loss}; the limit is {LEAST_AGREEMENT} %")
    proof = images_for_proof(model, request.path, request.check)
    exact, _, in_fp32 = proven(request, partial(onnx_file.onnx_draft, model), proof)
    must_have_passed(in_fp32, out)
    draft = onnx_file.int8_draft(model, network, exact=exact)
    verdict = try_draft(model, draft, out.suffix, proof)
    findings = {"loss": loss.as_dict(), "fp32": in_fp32.as_dict()}
    size = write_draft(model, draft, out, verdict, findings)
    lines = (f"its preprocessing, with the network in fp32: {in_fp32}",)
    return ExportedModel(out, request.to, verdict, size, lines, loss)


TARGETS: Mapping[str, Target] = {
    "onnx": Target(".onnx", (".onnx",), export_onnx, ("check", "exact")),
    "onnx-int8": Target("-int8.onnx", (".onnx",), export_int8, ("check", "exact", "vnni")),
    "openvino": Target(".xml", (".xml",), export_openvino, ("check",)),
    "torch-export": Target(".pt2", (".pt2",), export_torch, ("check", "exact")),
    "torchvision": Target(
        "-torchvision.safetensors",
        SUFFIXES,
        lambda request: export_torchvision(request.model, request.out),
    ),
    "timm": Target(
        "-timm.safetensors", SUFFIXES, lambda request: export_timm(request.model, request.out)
    ),
}
