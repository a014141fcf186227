"""The stored runs of `make study` are those it would train now; the README states their errors."""

import re
from pathlib import Path

import pytest

from reslab.studies.experiments import plan_study, write_report
from reslab.training.folder import RunFolder

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "docs" / "runs"


@pytest.fixture(scope="module")
def errors() -> dict[str, float]:
    """Return the training error of each run of the study, by network."""
    planned = plan_study("degradation", out=Path("out")).runs
    folders = {run.base: RunFolder(RUNS / f"{run.base}-seed{run.seed}") for run in planned}
    for run in planned:
        assert run.recipe.differences(folders[run.base].recipe()) == []
    results = {name: folder.result() for name, folder in folders.items()}
    return {name: result["train_error"] for name, result in results.items() if result}


def test_the_readme_states_the_gaps(errors: dict[str, float]) -> None:
    plain, residual = (
        errors[f"digits-{kind}56"] - errors[f"digits-{kind}20"] for kind in ("plain", "resnet")
    )
    text = " ".join((ROOT / "README.md").read_text().split())
    stated = re.search(r"the 56-layer plain net is (\d+) points higher", text)
    assert stated
    assert int(stated[1]) == round(plain)
    assert "for residual nets the gap is below one" in text
    assert residual < 1
    assert errors["digits-resnet56"] < 5


def test_the_page_is_that_of_the_stored_runs(tmp_path: Path) -> None:
    page, _ = write_report(sorted(RUNS.glob("digits-*")), tmp_path)
    stored = ROOT / "docs" / "results" / "digits"
    for name in ("report.md", "table.md", "table.csv"):
        assert page.with_name(name).read_text() == (stored / name).read_text()
