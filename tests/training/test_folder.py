import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.training.finder import FinderRecipe
from tests.training.test_checkpoint import checkpoint

from reslab.recipes import recipe
from reslab.runtime.writing import LOCK
from reslab.training.folder import FolderGone, RunFolder

RECIPE = recipe("digits-resnet20")
HERE = {"seed": 1, "data": None}


def test_a_folder_is_opened_again_by_the_same_run(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a" / "run", RECIPE, HERE)
    again = RunFolder.create(tmp_path / "a" / "run", RECIPE, HERE | {"data": "/elsewhere"})
    assert again.recipe() == RECIPE
    assert again.environment() == HERE


def test_another_recipe_or_seed_is_refused(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", RECIPE, HERE)
    other = RECIPE.with_changes(["iterations=7"])
    with pytest.raises(ValueError, match="iterations: 600 -> 7"):
        RunFolder.create(tmp_path / "run", other, HERE)
    with pytest.raises(ValueError, match="seed: 1 -> 2"):
        RunFolder.create(tmp_path / "run", RECIPE, HERE | {"seed": 2})


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="not empty and not a run"):
        RunFolder.create(tmp_path, RECIPE, HERE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run folder"):
        RunFolder.open(tmp_path)
    with pytest.raises(ValueError, match="not a run folder"):
        RunFolder.open(tmp_path / "nowhere")


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    handle = folder.lock()
    with pytest.raises(ValueError, match="another process"):
        RunFolder.open(tmp_path / "run").lock()
    folder.unlock(handle)
    folder.unlock(folder.lock())


def row(kind: str, iteration: int) -> dict[str, object]:
    error = "train_error" if kind == "train" else "top1_error"
    return {"kind": kind, "iteration": iteration, "set": "test", error: 50.0}


def test_a_file_of_the_same_name_is_no_run(tmp_path: Path) -> None:
    """Only a creation that was killed leaves environment.json without recipe.json, and a lock."""
    (tmp_path / "environment.json").write_text("mine")
    with pytest.raises(ValueError, match="not empty and not a run"):
        RunFolder.create(tmp_path, RECIPE, HERE)
    assert (tmp_path / "environment.json").read_text() == "mine"


def race(out: Path, begin: float, seed: int) -> int:
    """Start a run in a fork of this process, which exits with status 0 if it has the lock."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            while time.monotonic() < begin:
                pass
            changed = RECIPE.with_changes([f"iterations={seed}"])
            RunFolder(out).enter(changed, HERE | {"seed": seed})
            time.sleep(0.02)
            status = 0
        except ValueError:
            pass
        finally:
            os._exit(status)
    return process


def test_two_runs_at_the_same_moment_do_not_mix(tmp_path: Path) -> None:
    """The process that has the lock also wrote the seed and the recipe."""
    for number in range(30):
        out, begin = tmp_path / str(number), time.monotonic() + 0.01
        processes = {race(out, begin, seed): seed for seed in (1, 2)}
        won = [
            seed
            for process, seed in processes.items()
            if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        ]
        folder = RunFolder.open(out)
        assert won == [folder.environment()["seed"]] == [folder.recipe().iterations]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[RunFolder]:
    """A run's folder, locked by this process."""
    folder = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    handle = folder.lock()
    folder.log([row("train", 1)])
    yield folder
    folder.unlock(handle)


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_a_folder_that_is_gone_ends_the_run(held: RunFolder, how: str) -> None:
    """Nothing is written into the folder that may have taken its place."""
    held.path.rename(held.path.with_name("elsewhere"))
    if how == "deleted":
        shutil.rmtree(held.path.with_name("elsewhere"))
    if how == "replaced":
        other = RunFolder.create(held.path, RECIPE.with_changes(["iterations=7"]), HERE)
        other.unlock(other.lock())
    writes = (
        lambda: held.log([row("train", 2)]),
        lambda: held.write("model.safetensors", b""),
        lambda: held.save(checkpoint(2)),
    )
    for write in writes:
        with pytest.raises(FolderGone, match=r"run is no longer the folder of this run"):
            write()
    files = {"recipe.json", "environment.json", ".lock"} if how == "replaced" else set()
    assert {path.name for path in held.path.glob("*")} == files


def test_a_folder_replaced_by_its_copy_is_locked_again(held: RunFolder) -> None:
    shutil.copytree(held.path, held.path.with_name("copy"))
    shutil.rmtree(held.path)
    held.path.with_name("copy").rename(held.path)
    held.log([row("train", 2)])
    (held.path / LOCK).unlink()
    held.log([row("train", 3)])
    assert [line["iteration"] for line in held.rows()] == [1, 2, 3]
    with pytest.raises(ValueError, match="another process"):
        RunFolder.open(held.path).lock()


def test_lines_after_a_checkpoint_are_forgotten_and_a_cut_line_too(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    folder.log([row("train", k) for k in (10, 20, 30)])
    with open(folder.metrics, "a") as file:
        file.write('{"iterat')  # as after a kill in the middle of a line
    assert [row["iteration"] for row in folder.rows()] == [10, 20, 30]
    folder.forget_after(20, evaluated_until=20)
    folder.log([row("train", 25)])
    assert [row["iteration"] for row in folder.rows()] == [10, 20, 25]


def test_evaluations_after_the_last_checkpoint_are_made_again(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    folder.log([row(kind, k) for k in (20, 40) for kind in ("train", "eval")])
    folder.forget_after(40, evaluated_until=39)
    kept = [(row["kind"], row["iteration"]) for row in folder.rows()]
    assert kept == [("train", 20), ("eval", 20), ("train", 40)]


def test_a_folder_whose_making_was_killed_is_made_whole(tmp_path: Path) -> None:
    whole = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    (tmp_path / "run" / "recipe.json").rename(tmp_path / "run" / ".reslab-0123456789abcdef.tmp")
    assert RunFolder.create(tmp_path / "run", RECIPE, HERE).recipe() == RECIPE
    assert whole.environment() == HERE


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff\xfe", b"[1]"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    (tmp_path / "run" / "environment.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"environment.json is damaged"):
        folder.environment()
    folder.metrics.write_bytes(content + b"garbage\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl:1 is damaged"):
        folder.rows()


def test_a_detectors_run_is_not_taken_for_a_classifiers(tmp_path: Path) -> None:
    finder = FinderRecipe(name="finder")
    folder = RunFolder.create(tmp_path / "finder", finder, HERE)
    RunFolder.create(tmp_path / "finder", finder, HERE)
    assert (folder.task(), folder.recipe_as(FinderRecipe)) == ("detection", finder)
    with pytest.raises(ValueError, match="finder holds a run of a detector, not of a classifier"):
        folder.recipe()
    with pytest.raises(ValueError, match=r"another recipe \(task: detection -> classification;"):
        RunFolder.create(tmp_path / "finder", RECIPE, HERE)
    with pytest.raises(ValueError, match="shorter: 600 -> 400"):
        RunFolder.create(tmp_path / "finder", finder.with_changes(["shorter=400"]), HERE)
    digits = RunFolder.create(tmp_path / "digits", RECIPE, HERE)
    with pytest.raises(ValueError, match="digits holds a run of a classifier, not of a detector"):
        digits.recipe_as(FinderRecipe)
    with pytest.raises(ValueError, match="task: classification -> detection"):
        RunFolder.create(tmp_path / "digits", finder, HERE)


def test_a_folder_from_before_there_were_tasks_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    fields = json.loads(RECIPE.model_dump_json())
    del fields["task"]
    folder.write_json("recipe.json", fields)
    assert folder.task() == "classification"
    assert RunFolder.create(tmp_path / "run", RECIPE, HERE).recipe() == RECIPE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1]", "an object with keys"),
        ("{", "not valid JSON"),
        ("{}", "the recipe has no 'name'"),
        ('{"name": "x", "task": "poetry"}', "no task 'poetry'"),
    ],
)
def test_a_recipe_that_is_none_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    folder = RunFolder.create(tmp_path / "run", RECIPE, HERE)
    folder.write("recipe.json", content.encode())
    with pytest.raises(ValueError, match=rf"recipe.json.*{reason}"):
        RunFolder.create(tmp_path / "run", RECIPE, HERE)
