"""The process of `gpu.py` that carries out steps: all in one, because starting CUDA takes seconds.

It ends at the first step that fails, whose error may have left the GPU unusable.
"""

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

import gpu_checks as checks
import gpu_runs as runs
import gpu_speed as speed
from gpu import DEPTHS, LEAST, STEPS
from gpu_setting import REHEARSAL, Notes, Setting, Sizes
from reslab.runtime.device import setup_device
from reslab.training.run import Interrupted

WORK: dict[str, Callable[[Setting, Notes], None]] = {
    "machine": checks.machine,
    "engines": checks.engines,
    "precision": checks.precision,
    "runs": runs.runs,
    "detector": checks.detector,
    "evaluation": runs.evaluation,
    **{f"speed-resnet{depth}": speed.cifar(depth) for depth in DEPTHS},
    "speed-resnet1202": speed.deep,
    "speed-resnet50": speed.resnet50,
    **{f"cifar10-resnet{depth}": runs.table_6(depth) for depth in DEPTHS},
}


def carry_out(step: str, setting: Setting) -> str:
    """Carry out a step, and return its status."""
    notes, begun = Notes(step), time.monotonic()
    notes.add("begin")
    try:
        WORK[step](setting, notes)
        status = "ok"
    except Interrupted as interrupted:
        notes.log(str(interrupted))
        status = "no time"
    except Exception:
        notes.log(traceback.format_exc())
        notes.fact("error", traceback.format_exc().strip().splitlines()[-1][:300])
        status = "failed"
    notes.add("end", status=status, seconds=round(time.monotonic() - begun, 1))
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--end", type=float, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("steps", nargs="+", choices=STEPS)
    options = parser.parse_args()
    sizes = Sizes()
    if options.rehearse:
        sizes = REHEARSAL
        torch.set_num_threads(1)  # more would train shares side by side, with other bits
    device = setup_device().torch_device
    setting = Setting(options.out, options.data, options.end, sizes, device)
    for step in options.steps:
        if setting.end - time.time() < LEAST:
            break
        setup_device()  # a step may have left other switches
        if carry_out(step, setting) == "failed":
            return 1
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
