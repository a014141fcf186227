from pathlib import Path

from reslab.api.train import interrupted_run, request_run
from reslab.training.folder import RunFolder


def test_an_interrupted_run_is_described_by_its_folder(tmp_path: Path) -> None:
    recipe, _ = request_run("digits-resnet20", changes=["iterations=7"])
    assert recipe.iterations == 7
    data = str(tmp_path / "data")
    RunFolder.create(tmp_path / "run", recipe, {"seed": 5, "data": data})
    known, inputs, seed = interrupted_run(tmp_path / "run", None)
    assert (known, seed, str(inputs.data)) == (recipe, 5, data)
    _, moved, _ = interrupted_run(tmp_path / "run", str(tmp_path / "moved"))
    assert moved.data == tmp_path / "moved"
