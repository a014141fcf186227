"""The rows of the benchmark table: reslab beside a peer, measured in alternating turns.

Each benchmark is a script with a function `rows` that yields them; run by itself, it prints one
JSON line per row, which is also how `bench.py` collects them.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from reslab.kernels.inference import FusedConv
from reslab.runtime.device import Device

ROUNDS = 5
LEAST_ROUNDS = 3  # even when the time is up: a ratio without a range says little

PAUSE = 0.05  # seconds before each turn: threads may spin for a while after the last one

Turn = Callable[[], float]  # measures once, and returns the value in the row's unit


class Row(BaseModel):
    """One comparison; `ratio` is how many times better reslab is, above 1 if it is.

    Values are medians of the rounds. `other` and `ratio` are None if the peer is not installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str  # what is measured: "training ResNet-20, batch 128"
    unit: str  # "images/s"; every other unit is better when lower: "s", "ms", "MiB"
    reslab: float
    peer: str  # "eager, channels first"
    other: float | None
    ratio: float | None
    ratio_range: tuple[float, float] | None
    rounds: int
    path: str  # how reslab computed: "bf16, AVX512, 2 threads"
    check: str  # how equality was checked, with the value: "losses 4e-7 apart"


def alternate(turns: Mapping[str, Turn], seconds: float) -> dict[str, list[float]]:
    """Take the turns one after another, A B A B, and return the values of each.

    A first round warms up and is not counted. After `seconds`, no further round begins unless there
    are fewer than three.
    """
    values: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    start = time.perf_counter()
    for number in range(ROUNDS):
        if number >= LEAST_ROUNDS and time.perf_counter() - start > seconds:
            break
        for name, turn in turns.items():
            time.sleep(PAUSE)
            values[name].append(turn())
    return values


def compare(
    what: str, unit: str, *, reslab: list[float], peer: str, other: list[float], path: str,
    check: str,
) -> Row:  # fmt: skip
    """Build the row from the values of each round."""
    pairs = zip(reslab, other, strict=True)
    higher_is_better = unit.endswith("/s")
    ratios = [ours / theirs if higher_is_better else theirs / ours for ours, theirs in pairs]
    return Row(
        what=what, unit=unit, reslab=rounded(median(reslab)), peer=peer,
        other=rounded(median(other)), ratio=round(median(ratios), 2),
        ratio_range=(round(min(ratios), 2), round(max(ratios), 2)), rounds=len(ratios), path=path,
        check=check,
    )  # fmt: skip


def not_installed(what: str, unit: str, *, reslab: list[float], peer: str, path: str) -> Row:
    """Build the row of a peer that cannot be measured here."""
    return Row(
        what=what, unit=unit, reslab=rounded(median(reslab)), peer=peer, other=None, ratio=None,
        ratio_range=None, rounds=len(reslab), path=path, check="not installed",
    )  # fmt: skip


def rounded(value: float) -> float:
    """Round to three significant digits, and large numbers to whole ones."""
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))


def apart(difference: float) -> str:
    """Word a relative difference for a row's check."""
    return f"{difference:.0e} apart" if difference else "equal"


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def path_of(device: Device, net: nn.Module | None = None) -> str:
    """Return the precision, torch's kernels, the threads, and whether `net` has fused layers."""
    kernels = torch.backends.cpu.get_cpu_capability()
    fused = net is not None and any(isinstance(layer, FusedConv) for layer in net.modules())
    path = f"{device.precision}, {kernels}, {threads()}"
    return f"{path}, fused convolutions" if fused else path


def threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def print_rows(rows: Iterable[Row]) -> None:
    for row in rows:
        print(row.model_dump_json(), flush=True)
