import subprocess
import sys

import pytest
import torch

from reslab.runtime.device import Device, setup_device


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_the_forward_pass_has_the_given_precision(precision, dtype) -> None:
    device = Device(torch.device("cpu"), precision)
    with device.autocast():
        assert torch.nn.functional.linear(torch.zeros(1, 2), torch.zeros(3, 2)).dtype == dtype


def test_auto_is_bf16_or_fp32_and_an_explicit_precision_is_kept() -> None:
    """In a new process, because setup_device sets process-wide switches."""
    code = """
import torch
from reslab.runtime.device import setup_device
assert setup_device("auto").precision in ("bf16", "fp32")
assert setup_device("fp32").precision == "fp32"
assert setup_device("bf16").precision == "bf16"
tiny = torch.tensor([1e-39])
assert (tiny * 0.5 == 0).all(), "denormals are flushed"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_setting_up_twice_gives_equal_devices() -> None:
    assert setup_device("fp32") == setup_device("fp32")
