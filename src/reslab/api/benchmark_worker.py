"""The process that `reslab benchmark` times: one model in one backend, alone in its memory.

It is started by `Worker`. It answers one image at once, and then one request per line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from reslab.api.models import open_classifier, set_precision
from reslab.deploy.proof import network_input
from reslab.deploy.proof_images import USUAL_SIDE, seeded_image
from reslab.evaluation.fuse import model_for_inference
from reslab.evaluation.scoring import log_mean_softmax
from reslab.models.model_file import Model
from reslab.runtime.cpu import limit_kernels
from reslab.runtime.load import watch_load

EAGER = "eager"  # the backend that others are compared with
PHOTOGRAPH = (375, 500)  # height and width of ImageNet's usual photographs
STATUS = Path("/proc/self/status")  # Linux


@dataclass(frozen=True)
class Setup:
    """What a worker measures: a model, what computes it, and in which precision."""

    model: str
    backend: str
    precision: str = "fp32"

    def __str__(self) -> str:
        return self.backend if self.precision == "fp32" else f"{self.backend} {self.precision}"

    def open(self) -> Model:
        """Open the model on the CPU; raise ValueError if the backend cannot run it."""
        eager = self.backend == EAGER
        cpu = torch.device("cpu")
        _, model = open_classifier(Path(self.model), cpu, "torch" if eager else self.backend)
        if eager:
            return replace(model, net=Eager(model.net))
        return model_for_inference(set_precision(model, self.precision))


class Eager(nn.Module):
    """A network as torchvision's users run it: batch norm apart, channels first, nothing fused."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        for weight in self.net.parameters():
            weight.data = weight.data.contiguous()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.contiguous())


@dataclass(frozen=True)
class Measured:
    """The calls of one measurement."""

    seconds: Sequence[float]  # of each call
    busy: float  # mean number of cores that other programs kept busy
    memory: int  # the largest that the process has had so far, in bytes


def example_image(model: Model) -> np.ndarray:
    """Return an image of a size that the model's images may have, RGB uint8 [H, W, 3]."""
    if model.preprocessing.size or model.resizes:
        image = seeded_image(0, max(PHOTOGRAPH))
        return np.ascontiguousarray(image[: PHOTOGRAPH[0], : PHOTOGRAPH[1]])
    side = model.native_side or USUAL_SIDE
    return np.ascontiguousarray(seeded_image(0, side)[:side, :side])


def call_for(model: Model, batch: int | None) -> Callable[[], Tensor]:
    """Return a function that computes probabilities: of one image, or of a batch of inputs.

    One image is resized and cropped in every call. A batch was before, unless that happens inside
    an exported file.
    """
    image = example_image(model)
    if batch is None:
        return lambda: log_mean_softmax(model(network_input(model, image)[None]))
    inputs = network_input(model, image).expand(batch, -1, -1, -1).contiguous()
    return lambda: log_mean_softmax(model(inputs))


def measure(call: Callable[[], Tensor], seconds: float) -> Measured:
    """Time calls, one after the other, for about `seconds`."""
    busy_elsewhere, times = watch_load(), []
    begun = time.perf_counter()
    while not times or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return Measured(times, busy_elsewhere(), peak_memory())


def peak_memory() -> int:
    """Return the largest memory that this process has had, in bytes."""
    if STATUS.exists():  # the system's own count starts with the parent's memory
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@torch.no_grad()
def serve() -> None:
    """Answer one image, then the requests on standard input, until it is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    limit_kernels()
    try:
        model = Setup(**json.loads(sys.argv[1])).open()
        calls: dict[int | None, Callable[[], Tensor]] = {None: call_for(model, None)}
        calls[None]()
    except ValueError as error:
        print(json.dumps({"mistake": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"resizes": model.resizes}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        batch = request["batch"]
        if batch not in calls:
            calls[batch] = call_for(model, batch)
            calls[batch]()  # compiles, or sets memory aside
        measured = measure(calls[batch], request["seconds"])
        print(json.dumps(asdict(measured)), file=answers, flush=True)


class Worker:
    """A process that measures one setup; a context that ends it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reslab.api.benchmark_worker", json.dumps(asdict(setup))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.resizes: bool = self._answer()["resizes"]
        self.first_answer = time.perf_counter() - begun  # seconds from its start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, batch: int | None, seconds: float) -> Measured:
        assert self.process.stdin
        print(json.dumps({"batch": batch, "seconds": seconds}), file=self.process.stdin, flush=True)
        return Measured(**self._answer())

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the process that measured {self.setup.model} in {self.setup} ended with status "
                f"{self.process.wait()}"
            )
        answer = json.loads(line)
        if "mistake" in answer:
            self.process.communicate()
            raise ValueError(answer["mistake"])
        return answer


if __name__ == "__main__":
    serve()
