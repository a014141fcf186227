from pathlib import Path

from reslab.detection.recipe import DetectionRecipe
from reslab.studies.page.unfinished import errors_so_far, write_unfinished
from reslab.studies.records import Record, read_begun
from reslab.training.recipe import Recipe

HEADING = ("Degradation", "Does depth hurt?")


def stopped(run: Path, lines: int) -> Record[Recipe]:
    """Remove a run's result and all but the first lines of its log."""
    (run / "result.json").unlink()
    log = run / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:lines]))
    return read_begun(run, Recipe)


def test_each_run_has_its_curve_and_its_last_errors(finish, tmp_path: Path) -> None:
    whole = read_begun(finish("digits-plain20", train_error=3.0, test_error=4.0), Recipe)
    half = stopped(finish("digits-plain56", train_error=30.0), lines=9)
    other = stopped(finish("digits-plain56", seed=2), lines=1)
    page = write_unfinished([whole, half, other], [], 8, tmp_path / "study", HEADING)
    text = page.read_text()
    assert page.name == "report.html"
    assert "<h1>Degradation (unfinished)</h1>" in text
    assert "1 of 8 runs have finished" in text
    assert text.count("<svg") == 1
    assert errors_so_far([whole, half, other]).rows == [
        ["digits-plain20-1", "600 of 600", "8.00", "9.00", "–"],
        ["digits-plain56-1", "300 of 600", "40.00", "22.50", "–"],
        ["digits-plain56-2", "60 of 600", "55.00", "–", "–"],
    ]


def test_detectors_have_a_figure_of_their_own(finish, finish_detector, tmp_path: Path) -> None:
    classifier = read_begun(finish("digits-resnet20"), Recipe)
    run = finish_detector(map_50=80.0)
    (run / "result.json").unlink()
    detector = read_begun(run, DetectionRecipe)
    assert detector.result == {}
    page = write_unfinished([classifier], [detector], 3, tmp_path / "study", HEADING)
    assert page.read_text().count("<svg") == 2
    (row,) = errors_so_far([detector]).rows
    assert row[0] == "trained-1"
    assert row[-3:] == ["5.00", "–", "80.00"]
