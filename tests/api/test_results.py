"""Results of runs as values."""

import math
from pathlib import Path

from reslab.api.results import ReportPage, run_result

RESULT = {"train_error": 12.345, "iterations": 9, "seconds": 61.4}
PRECISION = {
    "set": "test", "protocol": "COCO, pycocotools", "n": 500, "map_50": 81.2, "map_50_95": 45.1,
    "coco": {"ap": 45.1, "ap_small": None},
    "per_class": [{"class": "dog", "id": "1", "boxes": 3, "detections": 4, "ap_50": None}],
}  # fmt: skip
ERRORS = {
    "set": "test", "protocol": "one-crop", "n": 360, "top1_error": 1.5, "top5_error": 0.1,
    "loss": 0.2,
}  # fmt: skip


def test_a_result_is_summed_up_in_the_words_of_its_task() -> None:
    result = run_result(Path("run"), RESULT | {"evaluation": [PRECISION]})
    numbers = "mAP@.5 81.20 %, mAP@[.5:.95] 45.10 %  (COCO, pycocotools, n=500)"
    assert str(result) == (
        f"test: {numbers}\n"
        "training error 12.35 %  (last epoch, augmented)\n"
        "9 iterations in 61 s; see run/curves.svg"
    )
    assert repr(result) == (
        f"RunResult('run': test: {numbers}, training error 12.35 %, 9 iterations in 61 s)"
    )
    first = str(run_result(Path("run"), RESULT | {"evaluation": [ERRORS]})).splitlines()[0]
    assert first == "test: top-1 error 1.50 %, top-5 error 0.10 %  (one-crop, n=360)"


def test_a_report_read_from_json_is_written_to_the_same_json() -> None:
    result = run_result(Path("run"), RESULT | {"evaluation": [ERRORS, PRECISION]})
    _, precision = result.reports
    assert precision.as_dict() | precision.details() == PRECISION
    assert math.isnan(precision.per_class[0]["ap_50"])  # type: ignore[typeddict-item]
    assert result.as_dict()["evaluation"] == [ERRORS, PRECISION]


def test_a_page_lists_its_runs(tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("| run |")
    run = run_result(Path("run"), RESULT | {"evaluation": []})
    page = ReportPage(tmp_path / "report.html", (run,))
    assert page.table == "| run |"
    assert repr(page) == f"ReportPage('{tmp_path}/report.html', 1 run)"
    assert page.as_dict() == {
        "report": str(tmp_path / "report.html"),
        "runs": [{"run": "run", **RESULT, "evaluation": []}],
    }
