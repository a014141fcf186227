"""The run folder: a run's recipe, log, checkpoints and results."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from reslab.errors import unknown_name
from reslab.models.model_facts import quoted
from reslab.runtime.files import read_regular, to_json
from reslab.runtime.json_text import parse_json
from reslab.runtime.writing import (
    LOCK,
    TEMPORARY,
    atomic_write,
    lock,
    naming,
    remove_leftovers,
    unlock,
)
from reslab.training.checkpoint import Checkpoint, save_checkpoint
from reslab.training.overrides import Fields, recipe_differences
from reslab.training.recipe import TASKS, UNWRITTEN, Deviations, Recipe, RunRecipe, TaskRecipe
from reslab.training.stored import Environment, must_be, must_be_result, must_be_row

DIFFERENCES_SHOWN = 3  # differences listed when a folder holds another recipe


class FolderGone(RuntimeError):
    """The folder of a run was moved, deleted or replaced while the run was being trained."""


class RunFolder:
    """A folder with `recipe.json environment.json metrics.jsonl result.json model.safetensors
    checkpoints/`.

    Only one of a run's processes has `writes` set; in the others the writing methods do nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.unwritten = b""  # log lines that could not be written yet
        self.log_end: int | None = None  # size of the log before a write that failed
        self.held: int | None = None  # handle of the lock, while this process holds it
        self.started: list[bytes] = []  # `start()` when it was locked

    @staticmethod
    def create(path: Path, recipe: RunRecipe, environment: dict[str, Any]) -> "RunFolder":
        """Create the folder for a run, or open it if the same run was started there.

        `environment` records the seed, the data folder and the machine. Raise ValueError if `path`
        holds another run or other files.
        """
        folder = RunFolder(path)
        handle = folder.enter(recipe, environment)
        if handle is not None:
            folder.unlock(handle)
        return folder

    def enter(self, recipe: RunRecipe, environment: dict[str, Any]) -> int | None:
        """Lock the folder, then look what is in it, then create or open the run; see `create`.

        Return the handle of the lock, or None for a finished run, which may be on a read-only disk.
        """
        path, seed = self.path, environment["seed"]
        if path.exists() and not path.is_dir():
            raise ValueError(f"`out` {path} is a file; name a folder for the run")
        if self.has_run():
            self.must_match(recipe, seed)
            if self.result() is not None:
                return None
        else:
            self.must_be_unused()  # before anything is written
            path.mkdir(parents=True, exist_ok=True)
        handle = self.lock()
        try:
            if self.has_run():  # another process may have been faster
                self.must_match(recipe, seed)
            else:
                self.must_be_unused()
                self.write_json("environment.json", environment)
                self.write("recipe.json", recipe.model_dump_json(indent=2).encode())
        except BaseException:
            self.unlock(handle)
            raise
        self.started = self.start()
        return handle

    def has_run(self) -> bool:
        """Return whether a run was started here; its recipe is the last file to be created."""
        return (self.path / "recipe.json").exists()

    def must_be_unused(self) -> None:
        """Raise ValueError if the folder has files, except those of a creation that was killed."""
        names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        begun = {LOCK, "environment.json"} if LOCK in names else set()
        if any(name not in begun and not TEMPORARY.fullmatch(name) for name in names):
            raise ValueError(f"`out` {self.path} is not empty and not a run; name a new folder")

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """Open the folder of an existing run; raise ValueError if `path` is not a run folder."""
        for name in ("recipe.json", "environment.json"):
            if not (path / name).is_file():
                raise ValueError(
                    f"{path} is not a run folder: there is no {name} in it; "
                    "`reslab train RECIPE --out FOLDER` makes one"
                )
        return RunFolder(path)

    def must_match(self, recipe: RunRecipe, seed: int) -> None:
        """Raise ValueError unless the run in this folder has this recipe and seed."""
        RunFolder.open(self.path)
        if self.task() == recipe.task:
            stored = self.recipe_as(type(recipe)).model_dump(mode="json")
        else:
            stored = self.fields()
        deviations = Deviations.model_validate(stored.get("deviations", {}))
        given = recipe.model_dump(mode="json")
        if given.get("engine") == "torch":  # another engine may continue a run, with other bits
            stored["engine"] = "torch"
        differences = recipe_differences(UNWRITTEN | stored, UNWRITTEN | given)
        if self.environment()["seed"] != seed:
            differences.append(f"seed: {self.environment()['seed']} -> {seed}")
        if differences:
            some = "; ".join(differences[:DIFFERENCES_SHOWN])
            if len(differences) > DIFFERENCES_SHOWN:
                some += f" and {len(differences) - DIFFERENCES_SHOWN} more"
            raise ValueError(
                f"{self.path} holds a run of another recipe ({some}): name another folder, or "
                f"resume that run with {deviations.resume_command(self.path)}"
            )

    def fields(self) -> Fields:
        """Return the recipe's fields as stored; the task defaults to classification."""
        file = self.path / "recipe.json"
        try:
            fields = parse_json(read_regular(file))
        except ValueError as error:
            raise ValueError(f"{file}: the recipe is not valid JSON: {error}") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{file}: a recipe is an object with keys, not {quoted(fields)}")
        return {"task": "classification"} | fields

    def task(self) -> str:
        """Return the run's task, one of TASKS."""
        task = self.fields()["task"]
        if not isinstance(task, str) or task not in TASKS:
            error = unknown_name("task", str(task), TASKS)
            raise ValueError(f"{self.path / 'recipe.json'}: {error}")
        return task

    def recipe(self) -> Recipe:
        """Return a classifier's recipe; raise ValueError if the run has another task."""
        return self.recipe_as(Recipe)

    def recipe_as(self, kind: type[TaskRecipe]) -> TaskRecipe:
        """Return the recipe; raise ValueError unless it is a `kind`."""
        wanted = kind.model_fields["task"].default
        if self.task() != wanted:
            raise ValueError(
                f"{self.path} holds a run of a {TASKS[self.task()]}, not of a {TASKS[wanted]}"
            )
        try:
            return kind.from_json(read_regular(self.path / "recipe.json"))
        except ValueError as error:
            raise ValueError(f"{self.path / 'recipe.json'}: {error}") from None

    def result(self) -> dict[str, Any] | None:
        """Return the result, or None if the run is not finished."""
        if not (self.path / "result.json").exists():
            return None
        return self.read_json("result.json", must_be_result)

    def environment(self) -> dict[str, Any]:
        """Return the seed, the data folder and the machine with which the run was started."""
        return self.read_json("environment.json", partial(must_be, Environment))

    def lock(self) -> int:
        """Lock the folder until `unlock` or the end of this process; return the lock's handle."""
        handle = lock(self.path)
        if handle is None:
            raise ValueError(f"{self.path} is being trained by another process")
        self.held, self.started = handle, self.start()
        return handle

    def unlock(self, handle: int) -> None:
        self.held = None
        unlock(handle)

    def remove_leftovers(self) -> None:
        """Remove the temporary files of an earlier process that was killed; hold the lock."""
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)

    def must_be_held(self) -> None:
        """Raise FolderGone if the folder that was locked is no longer at its path.

        Without this, a run would write into the folder of another run, started after the deletion.
        """
        if self.held is None:
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat(os.fstat(self.held), os.stat(self.path / LOCK)):
                return
        # the lock file alone may be new, for example if the folder was replaced by its copy
        if self.start() == self.started and (handle := lock(self.path)) is not None:
            os.dup2(handle, self.held, inheritable=False)
            os.close(handle)
            return
        raise FolderGone(
            f"{self.path} is no longer the folder of this run: it was moved, deleted or replaced, "
            "or its disk is gone; the run ends and saves nothing more. If the folder was moved, "
            "resume the run there"
        )

    def start(self) -> list[bytes]:
        """Return the content of the files that the run began with, as far as they exist."""
        files = [self.path / name for name in ("recipe.json", "environment.json")]
        return [read_regular(file) for file in files if file.is_file()]

    def rows(self) -> list[dict[str, Any]]:
        """Return the parsed lines of metrics.jsonl, except a last line truncated by a kill."""
        if not self.metrics.exists():
            return []
        rows = []
        for number, line in enumerate(read_regular(self.metrics).splitlines(keepends=True), 1):
            if line.endswith(b"\n"):
                rows.append(parse_stored(line, must_be_row, f"{self.metrics}:{number}"))
        return rows

    def log(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append lines to metrics.jsonl, after any lines left over from an earlier OSError.

        If the disk raises an OSError, the lines are kept and written by the next call.
        """
        if not self.writes:
            return
        self.unwritten += as_lines(rows)
        self.must_be_held()
        with naming(self.metrics), open(self.metrics, "ab", buffering=0) as file:
            if self.log_end is not None:
                file.truncate(self.log_end)  # the rest was written in part
            self.log_end, left = file.seek(0, os.SEEK_END), self.unwritten
            while left:
                left = left[file.write(left) :]
        self.unwritten, self.log_end = b"", None

    def save(self, checkpoint: Checkpoint, keep_every: int | None = None) -> None:
        """Flush the log to disk, then save a checkpoint as `save_checkpoint` does.

        A checkpoint must not be on disk before the log lines of earlier iterations.
        """
        if not self.writes:
            return
        self.must_be_held()
        with naming(self.metrics), open(self.metrics, "a") as file:
            os.fsync(file.fileno())
        save_checkpoint(self.checkpoints, checkpoint, keep_every)

    def forget_after(self, iteration: int, evaluated_until: int) -> None:
        """Remove the log lines that a run resumed at `iteration` will write again.

        Evaluations are repeated only after iteration `evaluated_until`.
        """
        if not self.writes:
            return
        last = {"eval": evaluated_until}
        rows = [row for row in self.rows() if row["iteration"] <= last.get(row["kind"], iteration)]
        self.write("metrics.jsonl", as_lines(rows))

    def write(self, name: str, data: bytes) -> None:
        if self.writes:
            self.must_be_held()
            atomic_write(self.path / name, data)

    def write_missing(self, name: str, data: bytes) -> None:
        """Write a file that describes the start of the run, unless the folder already has it."""
        if not (self.path / name).exists():
            self.write(name, data)

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, (to_json(value, indent=2) + "\n").encode())

    def read_json(self, name: str, check: Callable[[Any], None]) -> dict[str, Any]:
        """Read a JSON file in the folder; raise ValueError if it is damaged or fails the check."""
        return parse_stored(read_regular(self.path / name), check, str(self.path / name))


def parse_stored(text: bytes, check: Callable[[Any], None], place: str) -> dict[str, Any]:
    """Parse the JSON at `place`; raise ValueError if it is damaged or fails the check."""
    try:
        value = parse_json(text)
        check(value)
    except ValueError as error:
        raise ValueError(f"{place} is damaged: {error}") from None
    return value


def as_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(to_json(row) + "\n" for row in rows).encode()
