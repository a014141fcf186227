"""The run folder: what a run is, what it measured, what came out."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reslab.errors import unknown_name
from reslab.runtime.files import LOCK, atomic_write, lock
from reslab.training.checkpoint import Checkpoint, save_checkpoint
from reslab.training.recipe import TASKS, Fields, Recipe, RunRecipe, TaskRecipe, recipe_differences

# what a process that was killed while it made the folder may leave there
LEFTOVERS = (LOCK, "environment.json", ".environment.json.tmp", ".recipe.json.tmp")
DIFFERENCES_SHOWN = 3  # differences named when a folder holds another recipe


class RunFolder:
    """`recipe.json environment.json metrics.jsonl result.json model.safetensors checkpoints/`."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes  # of the processes of a run, one writes
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.waiting = b""  # lines that could not be written

    @staticmethod
    def create(path: Path, recipe: RunRecipe, environment: dict[str, Any]) -> "RunFolder":
        """A folder for this run: a new one, or the one that this same run was begun in.

        `environment` names the seed, the data folder and the machine.
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
        """A folder that holds a run."""
        for name in ("recipe.json", "environment.json"):
            if not (path / name).is_file():
                raise ValueError(
                    f"{path} is not a run folder: there is no {name} in it; "
                    "`reslab train RECIPE --out FOLDER` makes one"
                )
        return RunFolder(path)

    def must_match(self, recipe: RunRecipe, seed: int) -> None:
        """ValueError if the folder was made with another recipe or seed."""
        RunFolder.open(self.path)
        if self.task() == recipe.task:
            here = self.recipe_as(type(recipe)).model_dump(mode="json")
        else:
            here = self.fields()
        found = recipe_differences(here, recipe.model_dump(mode="json"))
        if self.environment()["seed"] != seed:
            found.append(f"seed: {self.environment()['seed']} -> {seed}")
        if found:
            more = (
                f" and {len(found) - DIFFERENCES_SHOWN} more"
                if len(found) > DIFFERENCES_SHOWN
                else ""
            )
            raise ValueError(
                f"{self.path} holds a run of another recipe ({'; '.join(found[:DIFFERENCES_SHOWN])}"
                f"{more}); name another --out, or `reslab resume {self.path}` to go on with it"
            )

    def fields(self) -> Fields:
        """The recipe as it is written; one that does not say its task is a classification."""
        file = self.path / "recipe.json"
        try:
            fields = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: the recipe is not valid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{file}: a recipe has keys, this is {fields!r}")
        return {"task": "classification"} | fields

    def task(self) -> str:
        """What the run trains, one of TASKS."""
        task = self.fields()["task"]
        if task not in TASKS:
            raise ValueError(
                f"{self.path / 'recipe.json'}: {unknown_name('task', str(task), TASKS)}"
            )
        return task

    def recipe(self) -> Recipe:
        """That of a classifier; ValueError for a run of anything else."""
        return self.recipe_as(Recipe)

    def recipe_as(self, kind: type[TaskRecipe]) -> TaskRecipe:
        """The recipe, which must be of this kind."""
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
        """What came out; None while the run is not finished."""
        if not (self.path / "result.json").exists():
            return None
        return self.read_json("result.json", "train_error", "evaluation", "seconds")

    def environment(self) -> dict[str, Any]:
        """Seed, data folder and the machine that the run was begun on."""
        return self.read_json("environment.json", "seed", "data")

    def lock(self) -> int:
        """Keep a second process out until this one ends, however it ends; the lock's handle."""
        handle = lock(self.path)
        if handle is None:
            raise ValueError(f"{self.path} is being trained by another process")
        return handle

    @staticmethod
    def unlock(handle: int) -> None:
        os.close(handle)

    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that a kill cut short is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith(b"\n")]
        except ValueError as error:
            raise ValueError(f"{self.metrics} is damaged: {error}") from None

    def log(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append lines to metrics.jsonl, and those before that an OSError kept out; they wait."""
        if not self.writes:
            return
        self.waiting += "".join(json.dumps(row) + "\n" for row in rows).encode()
        with open(self.metrics, "ab", buffering=0) as file:
            size, left = file.seek(0, os.SEEK_END), self.waiting
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(size)  # half a line is none
                raise
        self.waiting = b""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; the log comes to the disk before, so that none outlives its lines."""
        if not self.writes:
            return
        with open(self.metrics, "a") as file:
            os.fsync(file.fileno())
        save_checkpoint(self.checkpoints, checkpoint)

    def forget_after(self, iteration: int, judged: int) -> None:
        """Drop the lines that the resumed run is going to write again: those after its iteration,
        and evaluations after the iteration that was `judged` last."""
        if not self.writes:
            return
        kept = [
            row
            for row in self.rows()
            if row["iteration"] <= (judged if row["kind"] == "eval" else iteration)
        ]
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept).encode())

    def write(self, name: str, data: bytes) -> None:
        if self.writes:
            atomic_write(self.path / name, data)

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def read_json(self, name: str, *keys: str) -> dict[str, Any]:
        """A file of the folder, which must hold `keys`."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except ValueError as error:
            raise ValueError(f"{self.path / name} is damaged: {error}") from None
        missing = [key for key in keys if not isinstance(value, dict) or key not in value]
        if missing:
            raise ValueError(f"{self.path / name} is damaged: there is no {missing[0]!r} in it")
        return value
