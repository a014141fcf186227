"""Start, repeat and compare runs for the steps of `gpu.py`."""

import json
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpu_steps import Fork, Notes, command, finished, memory, wait_for


def sets(**changes: object) -> list[str]:
    """Return `--set KEY=VALUE` for each change."""
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def repeated(
    where: Path, notes: Notes, words: Sequence[object], *, stop: bool = False, label: str = "",
    deterministic: bool = False,
) -> None:  # fmt: skip
    """Run the same command twice to its end, once killed and, if `stop`, once stopped by SIGTERM.

    All run at once; interrupted runs are resumed. All should end with the same bits.
    """
    train = partial(command, deterministic=deterministic)

    def begun(name: str) -> Fork:
        return train(where / f"{name}.log", *words, "--out", where / name)

    where.mkdir(parents=True, exist_ok=True)
    uninterrupted = [begun("one"), begun("two")]
    broken = {"killed": signal.SIGKILL} | ({"stopped": signal.SIGTERM} if stop else {})
    interrupted, processes = {}, {name: begun(name) for name in broken}
    for name, number in broken.items():
        saved = where / name / "checkpoints"
        interrupted[name] = wait_for(lambda saved=saved: any(saved.glob("0*")), processes[name])
        processes[name].send(number)
    for process in processes.values():
        process.join()
    resumed = [train(where / f"{name}-again.log", "resume", where / name) for name in broken]
    finished(*uninterrupted, *resumed)
    hashes = {name: result(where / name)["state_sha256"][:12] for name in ("one", "two", *broken)}
    notes.add(**{
        f"{label}hashes": hashes,
        f"{label}same": len(set(hashes.values())) == 1,
        f"{label}interrupted": interrupted,
        f"{label}exit_statuses": [process.exitcode for process in processes.values()],
        f"{label}not_exact": [run.log.name for run in resumed if "not bit-exact" in run.said()],
        f"{label}seconds": [result(where / name)["seconds"] for name in ("one", "two")],
        f"{label}gib": memory(uninterrupted[0]),
        f"{label}warned": warned(uninterrupted[0]),
    })  # fmt: skip


def warned(run: Fork) -> list[str]:
    """Return the beginnings of a run's warnings, without repetitions."""
    lines = (line.split("warning: ")[1] for line in run.said().splitlines() if "warning: " in line)
    return sorted({line[:110] for line in lines})


def compared(one: Path, other: Path) -> dict[str, Any]:
    """Compare two runs: relative differences of losses over iterations, and final results."""
    losses = [[row["loss"] for row in rows(folder, "train")] for folder in (one, other)]
    apart = [abs(a - b) / b for a, b in zip(*losses, strict=True)]
    finals = [result(folder)["evaluation"][-1] for folder in (one, other)]
    return {
        "first_loss": losses[0][0],
        "apart": {at: f"{max(apart[:at]):.1e}" for at in (1, 2, 5, 10, 20, 60) if at <= len(apart)},
        "final": [[row.get("top1_error"), row.get("loss"), row.get("map_50")] for row in finals],
    }
