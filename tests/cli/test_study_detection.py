"""`reslab study detection` and `reslab report` on detectors, as a user calls them."""

import json
from pathlib import Path

import pytest

from reslab.cli import main


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--on", "digits"), "--on digits does not apply to the detection study"),
        (("--depths", "20"), "--depths 20 does not apply"),
        (("--data", "x"), "--data x does not apply"),
        (("--iterations", "0"), "--iterations 0 must be at least 1"),
    ],
)
def test_what_does_not_apply_is_refused(options, why, capsys, tmp_path: Path) -> None:
    out = tmp_path / "study"
    assert main(["study", "detection", "--out", str(out), *options]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert why in printed.err
    assert not out.exists()


@pytest.mark.slow
def test_the_study_goes_from_nothing_to_its_page(reslab, tmp_path: Path) -> None:
    command = ("study", "detection", "--out", tmp_path, "--iterations", 2, "--jobs", 2, "--json")
    done = reslab(*command)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    names = [Path(run["run"]).name for run in said["runs"]]
    assert names == ["digits-resnet20", "trained-seed1", "untrained-seed1"]
    html = Path(said["report"]).read_text()
    assert html.count("<img ") == 8 * 3
    classifier, trained, untrained = said["runs"]
    weights = json.loads((Path(trained["run"]) / "recipe.json").read_text())["weights"]
    assert weights == classifier["weights_sha256"]
    assert json.loads((Path(untrained["run"]) / "recipe.json").read_text())["weights"] is None
    again = reslab(*command)
    assert json.loads(again.stdout) == said  # no run was repeated
    other = reslab("study", "detection", "--out", tmp_path, "--iterations", 3)
    assert other.returncode == 2
    assert "holds a run of another recipe" in other.stderr

    out = tmp_path / "page"
    done = reslab("report", trained["run"], untrained["run"], "--out", out)
    assert done.returncode == 0, done.stderr
    assert "ResNet-20, from scratch" in (out / "report.html").read_text()
    mixed = reslab("report", classifier["run"], trained["run"], "--out", tmp_path / "none")
    assert mixed.returncode == 2
    assert "report on them separately" in mixed.stderr
    assert mixed.stderr.count("\n") == 1
