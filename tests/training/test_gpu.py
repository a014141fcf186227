"""Updates by the Triton kernels, interpreted on the CPU, against the eager ones."""

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Literal

import pytest
import torch
from tests.training.test_classification import task
from tests.training.test_replay import Repeat, on_gpu

from reslab.kernels.build import KernelsMissing
from reslab.models.batchnorm import norms_of
from reslab.runtime.device import Device
from reslab.training import gpu
from reslab.training.classification import ClassificationTask
from reslab.training.loop import eager_update_of

pytest.importorskip("triton", reason="it is not available for this system")

WIDE = ("model.widths=[16,32,64]", "batch_size=4", "augmentation.pad=2")
RATES = (0.01, 0.02)


def apart(one: ClassificationTask, other: ClassificationTask) -> float:
    """Return the largest relative distance of two tensors of the state."""
    states = [each.net.state_dict() | each.optimizer.state().tensors for each in (one, other)]
    return max(
        ((states[0][name] - value).norm() / value.norm()).item()
        for name, value in states[1].items()
        if value.is_floating_point()
    )


def test_updates_are_the_eager_ones_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed updates are too, with a learning rate that changes."""
    monkeypatch.setattr("reslab.training.replay.EAGER_UPDATES", 1)
    eager, other, recorder = task(*WIDE), task(*WIDE), Repeat()
    updates = eager_update_of(eager), gpu.gpu_update(other, print, recorder)
    for k, rate in enumerate(RATES):
        tables = [
            update(each.draws(k), rate)
            for update, each in zip(updates, (eager, other), strict=True)
        ]
        torch.testing.assert_close(*tables, rtol=2e-4, atol=1e-4)
    assert apart(other, eager) < 1e-4
    assert recorder.replays == len(RATES) - 1
    counts = [norm.num_batches_tracked for norm in norms_of(other.net)]
    assert all(count == len(RATES) * other.recipe.virtual_gpus for count in counts)


def test_what_the_kernels_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*changes: str, precision: Literal["bf16", "fp32"] = "bf16") -> str | None:
        learner = on_gpu(task(*WIDE, *changes))
        return gpu.lacking(replace(learner, device=Device(torch.device("cuda"), precision)))

    assert lacking() is None
    assert lacking(precision="fp32") == "precision=fp32"
    assert lacking("model.shortcut=B") == "projection shortcuts"
    assert lacking("model.widths=[8,8,8]") == "nets other than the CIFAR nets of Sec. 4.2"
    assert gpu.lacking(task(*WIDE)) == "CPUs"
    monkeypatch.setattr(gpu, "MOST_PIXELS", 1000 * 16 * 16)
    assert lacking() == "more than 1,000 images of this size"


def test_the_label_names_the_compiler_and_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, digest = gpu.label().split(", ")
    assert version == f"triton {metadata.version('triton')}"
    assert len(digest) == 16
    monkeypatch.setattr(gpu, "SOURCE", gpu.SOURCE.parent)
    assert gpu.label() != f"{version}, {digest}"

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(KernelsMissing, match="Triton needs a C compiler, gcc or clang"):
        gpu.label()
    monkeypatch.setenv("CC", "cc")
    assert gpu.label()

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(KernelsMissing, match="Triton is not installed"):
        gpu.label()
