"""The run folder: the recipe of a run, its log, its checkpoints and its results."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reslab.errors import unknown_name
from reslab.runtime.files import LOCK, atomic_write, lock
from reslab.training.checkpoint import Checkpoint, save_checkpoint
from reslab.training.recipe import TASKS, Fields, Recipe, RunRecipe, TaskRecipe, recipe_differences

# files that a process leaves when it is killed while it makes the folder
LEFTOVERS = (LOCK, "environment.json", ".environment.json.tmp", ".recipe.json.tmp")
DIFFERENCES_SHOWN = 3  # differences named when a folder holds another recipe


class RunFolder:
    """`recipe.json environment.json metrics.jsonl result.json model.safetensors checkpoints/`.

    Only one of a run's processes `writes`; in the others the methods that write do nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.unwritten = b""  # lines that the disk refused

    @staticmethod
    def create(path: Path, recipe: RunRecipe, environment: dict[str, Any]) -> "RunFolder":
        """Make a folder for this run, or open the one that this same run was started in.

        `environment` names the seed, the data folder and the machine. ValueError for a folder of
        another run or of other files.
        """
        folder = RunFolder(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out {path} is a file; name a folder for the run")
        if (path / "recipe.json").exists():
            folder.must_match(recipe, environment["seed"])
            return folder
        if path.is_dir() and any(file.name not in LEFTOVERS for file in path.iterdir()):
            raise ValueError(f"--out {path} is not empty and not a run; name a new folder")
        path.mkdir(parents=True, exist_ok=True)
        folder.write_json("environment.json", environment)
        folder.write("recipe.json", recipe.model_dump_json(indent=2).encode())
        return folder

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """Open a folder that holds a run; ValueError for another."""
        for name in ("recipe.json", "environment.json"):
            if not (path / name).is_file():
                raise ValueError(
                    f"{path} is not a run folder: there is no {name} in it; "
                    "`reslab train RECIPE --out FOLDER` makes one"
                )
        return RunFolder(path)

    def must_match(self, recipe: RunRecipe, seed: int) -> None:
        """ValueError unless the folder was made with this recipe and seed."""
        RunFolder.open(self.path)
        if self.task() == recipe.task:
            stored = self.recipe_as(type(recipe)).model_dump(mode="json")
        else:
            stored = self.fields()
        differences = recipe_differences(stored, recipe.model_dump(mode="json"))
        if self.environment()["seed"] != seed:
            differences.append(f"seed: {self.environment()['seed']} -> {seed}")
        if differences:
            some = "; ".join(differences[:DIFFERENCES_SHOWN])
            if len(differences) > DIFFERENCES_SHOWN:
                some += f" and {len(differences) - DIFFERENCES_SHOWN} more"
            raise ValueError(
                f"{self.path} holds a run of another recipe ({some}); name another --out, or "
                f"`reslab resume {self.path}` to go on with it"
            )

    def fields(self) -> Fields:
        """Return the recipe as its file has it; a file without a task means classification."""
        file = self.path / "recipe.json"
        try:
            fields = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: the recipe is not valid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{file}: a recipe has keys, this is {fields!r}")
        return {"task": "classification"} | fields

    def task(self) -> str:
        """Return the task of the run, one of TASKS."""
        task = self.fields()["task"]
        if task not in TASKS:
            error = unknown_name("task", str(task), TASKS)
            raise ValueError(f"{self.path / 'recipe.json'}: {error}")
        return task

    def recipe(self) -> Recipe:
        """Return a classifier's recipe; ValueError for a run of another task."""
        return self.recipe_as(Recipe)

    def recipe_as(self, kind: type[TaskRecipe]) -> TaskRecipe:
        """Return the recipe; ValueError unless it is of this kind."""
        wanted = kind.model_fields["task"].default
        if self.task() != wanted:
            raise ValueError(
                f"{self.path} holds a run of a {TASKS[self.task()]}, not of a {TASKS[wanted]}"
            )
        try:
            return kind.from_json((self.path / "recipe.json").read_bytes())
        except ValueError as error:
            raise ValueError(f"{self.path / 'recipe.json'}: {error}") from None

    def result(self) -> dict[str, Any] | None:
        """Return the result of a finished run; None before."""
        if not (self.path / "result.json").exists():
            return None
        return self.read_json("result.json", "train_error", "evaluation", "seconds")

    def environment(self) -> dict[str, Any]:
        """Return the seed, the data folder and the machine that the run was started on."""
        return self.read_json("environment.json", "seed", "data")

    def lock(self) -> int:
        """Keep other processes out until this one ends, however it ends; return the handle."""
        handle = lock(self.path)
        if handle is None:
            raise ValueError(f"{self.path} is being trained by another process")
        return handle

    @staticmethod
    def unlock(handle: int) -> None:
        os.close(handle)

    def rows(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, without a last line that a kill cut short."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith(b"\n")]
        except ValueError as error:
            raise ValueError(f"{self.metrics} is damaged: {error}") from None

    def log(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append lines to metrics.jsonl, after those that an earlier OSError kept out.

        Lines that raise an OSError are written by the next call.
        """
        if not self.writes:
            return
        self.unwritten += as_lines(rows)
        with open(self.metrics, "ab", buffering=0) as file:
            size, left = file.seek(0, os.SEEK_END), self.unwritten
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(size)  # whole lines or none
                raise
        self.unwritten = b""

    def save(self, checkpoint: Checkpoint) -> None:
        """Save a checkpoint, after the log is on the disk: none may outlive its lines."""
        if not self.writes:
            return
        with open(self.metrics, "a") as file:
            os.fsync(file.fileno())
        save_checkpoint(self.checkpoints, checkpoint)

    def forget_after(self, iteration: int, evaluated_until: int) -> None:
        """Remove the lines that a run resumed at `iteration` writes again.

        Evaluations are repeated only after the iteration `evaluated_until`.
        """
        if not self.writes:
            return
        last = {"eval": evaluated_until}
        rows = [row for row in self.rows() if row["iteration"] <= last.get(row["kind"], iteration)]
        self.write("metrics.jsonl", as_lines(rows))

    def write(self, name: str, data: bytes) -> None:
        if self.writes:
            atomic_write(self.path / name, data)

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def read_json(self, name: str, *keys: str) -> dict[str, Any]:
        """Read a JSON file of the folder; ValueError if it is damaged or lacks one of `keys`."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except ValueError as error:
            raise ValueError(f"{self.path / name} is damaged: {error}") from None
        missing = [key for key in keys if not isinstance(value, dict) or key not in value]
        if missing:
            raise ValueError(f"{self.path / name} is damaged: there is no {missing[0]!r} in it")
        return value


def as_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
