"""RESLAB_CPU applies to kernels, precision and every process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reslab.runtime.cpu import SWITCHES, kernel_limit

KERNELS = re.compile(r"onednn_verbose.*isa:(.*)")
# what the suite itself may run under
NAMES = {"RESLAB_CPU", *(name for switches in SWITCHES.values() for name in switches)}


def python(code: str, **environment: str) -> str:
    """Run code in a new process, which may choose its kernels, and return its output."""
    own = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.run(
        [sys.executable, "-c", code], env=own | environment, check=True, capture_output=True,
        text=True,
    ).stdout  # fmt: skip


def test_a_run_obeys_reslab_cpu(reslab, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = reslab(
        "train", "digits-resnet20", "--out", out, "--set", "iterations=1",
        "--set", "model.blocks=[1,1,1]", "--set", "recompute_bn=1", "--set", "batch_size=16",
        RESLAB_CPU="avx2", ONEDNN_VERBOSE="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert KERNELS.findall(done.stdout) == ["Intel AVX2"]
    environment = json.loads((out / "environment.json").read_text())
    assert environment["precision"] == "fp32"
    assert environment["processor"].endswith(" cores, kernels for avx2")


def test_a_device_set_up_from_python_and_its_child_processes_obey() -> None:
    code = """
import subprocess, sys, torch
from reslab.runtime.device import setup_device
print(setup_device().precision, torch.backends.cpu.get_cpu_capability())
torch.nn.functional.conv2d(torch.zeros(16, 8, 32, 32), torch.zeros(8, 8, 3, 3))
child = "import os; print(os.environ['ATEN_CPU_CAPABILITY'], os.environ['ONEDNN_MAX_CPU_ISA'])"
sys.stdout.flush()
subprocess.run([sys.executable, "-c", child], check=True)
"""
    printed = python(code, RESLAB_CPU="avx2", ONEDNN_VERBOSE="1")
    assert {"fp32 AVX2", "avx2 AVX2"} <= set(printed.splitlines())
    assert KERNELS.findall(printed) == ["Intel AVX2"]


def test_a_device_set_up_too_late_is_refused(start_python, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import os, torch
torch.zeros(3) + 1
os.environ["RESLAB_CPU"] = "avx2"
from reslab.runtime.device import setup_device
try:
    setup_device()
except ValueError as error:
    print(error)
"""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    done = start_python("-c", code, ATEN_CPU_CAPABILITY="default").end()
    assert done.stdout.startswith("RESLAB_CPU=avx2, but torch uses DEFAULT kernels: ")


def test_an_unknown_instruction_set_is_refused(refused) -> None:
    line = refused("models", RESLAB_CPU="avx512")
    assert line == "reslab: RESLAB_CPU=avx512 is unknown; set it to avx2, or leave it unset"


def test_an_empty_variable_means_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLAB_CPU", "")
    assert kernel_limit() is None
