"""Where a run was made: enough to make it again, and to say when the bits may differ."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import reslab
from reslab.data.location import Location, absolute
from reslab.runtime.cpu import kernel_limit
from reslab.runtime.device import Device
from reslab.runtime.threads import usable_cores

# a run resumed where one of these differs is still right, but not the same to the last bit
BINDING = ("device", "precision", "threads", "torch", "processor")


def environment(
    device: Device, *, seed: int, data: Location | None, weights: Path | None = None
) -> dict[str, Any]:
    """What environment.json holds."""
    return {
        "seed": seed,
        "data": absolute(data) if data else None,
        "weights": str(weights.resolve()) if weights else None,
        "device": device_name(device.torch_device),
        "precision": device.precision,
        "threads": torch.get_num_threads(),
        "processes": device.processes.count,
        "processor": processor(),
        "reslab": reslab.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "command": " ".join(["reslab", *sys.argv[1:]]),
    }


def environment_changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two environments that can change a run's last bits."""
    return [f"{key}: {then.get(key)} -> {now[key]}" for key in BINDING if then.get(key) != now[key]]


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def processor() -> str:
    """The processor's own name, how many cores this process may use, and RESLAB_CPU where set."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass  # not Linux: the plain name serves
    kernels = f", kernels for {limit}" if (limit := kernel_limit()) else ""
    return f"{name}, {usable_cores()} cores{kernels}"


def commit() -> str | None:
    """The commit of the source tree that runs, `+` appended if it was changed; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # an installed copy inside another repository
            return None
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None
