import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from reslab.evaluation.mistakes import Mistake, mistakes_json
from reslab.studies.page.classifiers import (
    details_of,
    read_mistakes,
    write_classifiers,
    write_evaluations,
    write_responses,
)
from reslab.studies.page.page import SHOWN_CLASSES
from reslab.studies.page.tables import error_table, label_classifiers
from reslab.studies.records import group_by_recipe, read_record
from reslab.training.recipe import Recipe

PIXEL = "data:image/png;base64,iVBORw0KGgo="
CONFUSION = [[8, 2, 0], [0, 10, 0], [1, 3, 6]]


def test_the_report_is_whole_and_needs_no_network(degradation, tmp_path: Path) -> None:
    out = tmp_path / "out"
    html = write_classifiers(degradation, out, ("Depth <hurts>?", "Does it?")).read_text()
    assert {path.name for path in out.iterdir()} == {
        "report.html", "report.md", "table.md", "table.csv", "figures",
    }  # fmt: skip
    assert not re.findall(r"(?:src|href)=[\"'](?!#)", html)  # nothing is fetched
    assert "@import" not in html
    assert "Depth &lt;hurts&gt;?" in html
    assert html.count("<svg") == 1
    table = error_table(label_classifiers(group_by_recipe(degradation)))
    assert all(f"<td>{row[0]}</td>" in html for row in table.rows)
    markdown = (out / "report.md").read_text()
    assert table.markdown() in markdown
    assert table.markdown() == (out / "table.md").read_text()
    assert "](figures/errors.svg)" in markdown
    assert "- `data: cifar10 -> digits`" in markdown
    figure = ET.parse(out / "figures" / "errors.svg")  # well-formed
    assert figure.getroot().tag.endswith("svg")
    again = write_classifiers(degradation, tmp_path / "again", ("Depth <hurts>?", "Does it?"))
    assert again.read_text() == html


def with_details(run: Path, names: tuple[str, ...] = ("ant", "bee", "<cat>")) -> Path:
    """Add the mistakes and the errors by class to a finished run."""
    rows = [
        {"class": name, "n": 10, "top1_error": error, "taken_for": taken_for}
        for name, error, taken_for in zip(
            names,
            (20.0, 0.0, 40.0, *[50.0] * 97),
            ([[names[1], 2]], [], [[names[1], 3], [names[0], 1]], *[[]] * 97),
            strict=False,
        )
    ]
    result = json.loads((run / "result.json").read_text())
    result["evaluation"][-1] |= {"per_class": rows, "confusion": CONFUSION}
    (run / "result.json").write_text(json.dumps(result))
    mistakes = [
        Mistake(part, f"bee/{part}.jpg", "<cat>", "bee", 0.987, 0.001, PIXEL)
        for part in ("test", "held_out")
    ]
    (run / "mistakes.json").write_text(json.dumps(mistakes_json(mistakes)))
    return run


def test_mistakes_and_classes_are_shown_and_nothing_is_fetched(finish, tmp_path: Path) -> None:
    run = with_details(finish("digits-resnet20"))
    page = write_classifiers([read_record(run, Recipe)], tmp_path / "out", ("t", "q"))
    html = page.read_text()
    assert html.count(f'<img src="{PIXEL}" alt="bee/test.jpg">') == 1
    assert "held_out.jpg" not in html  # not the set that the page reports on
    assert "predicted <b>bee</b>, 98.7&nbsp;%" in html
    assert "true <b>&lt;cat&gt;</b>, 0.1&nbsp;%" in html
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:image/)", html)
    markdown = page.with_name("report.md").read_text()
    assert "| bee/test.jpg | &lt;cat> | bee | 98.7 |" in markdown
    assert "| &lt;cat> | 10 | 40.0 | bee (3), ant (1) |" in markdown
    assert "data:image" not in markdown

    rows = re.findall(r"<tr><td>(.*?)</td><td>10</td><td>([\d.]+)</td>", html)
    assert rows == [("&lt;cat&gt;", "40.0"), ("ant", "20.0"), ("bee", "0.0")]  # worst first
    assert "bee (3), ant (1)" in html
    matrix = html[html.index('<table class="matrix') :]
    matrix = matrix[: matrix.index("</table>")]
    cells = re.findall(r"<td(?: style=\"([^\"]+)\")?>(\d*)</td>", matrix)
    assert [int(count or 0) for _, count in cells] == [n for row in CONFUSION for n in row]
    blue = ["0,114,178" in style for style, _ in cells]
    assert blue == [at % 4 == 0 for at in range(9)]  # the diagonal


def test_an_unreadable_or_incomplete_matrix_is_left_out() -> None:
    evaluation = {"set": "test", "protocol": "one-crop", "n": 400, "top1_error": 50.0}
    rows = [
        {"class": f"class {k}", "n": 10, "top1_error": 50.0, "taken_for": []} for k in range(40)
    ]
    full = evaluation | {"per_class": rows, "confusion": [[0] * 40] * 40}
    details = details_of("net", full, [])
    assert (details.matrix, len(details.classes)) == ([], 40)
    # a class without images has no row, so the names would not match the matrix
    some = evaluation | {"per_class": rows[:2], "confusion": CONFUSION}
    assert details_of("net", some, []).matrix == []


def test_many_classes_and_several_runs_are_collapsed(finish, tmp_path: Path) -> None:
    many = tuple(f"class {k}" for k in range(100))
    runs = [with_details(finish("digits-resnet20"), many), with_details(finish("digits-plain20"))]
    records = [read_record(run, Recipe) for run in runs]
    html = write_classifiers(records, tmp_path / "out", ("t", "q")).read_text()
    assert f"{100 - SHOWN_CLASSES} more classes" in html
    assert html.count("<details open>") == 1
    assert "<b>plain-20, seed 1</b>; test, one-crop" in html


def test_mistakes_that_are_damaged_are_named(finish) -> None:
    run = with_details(finish("digits-resnet20"))
    for text in ("{", "{}", '{"mistakes": [{}]}'):
        (run / "mistakes.json").write_text(text)
        with pytest.raises(ValueError, match=r"mistakes\.json is damaged"):
            read_mistakes(run)


def test_a_page_of_models_from_elsewhere_has_no_recipes(tmp_path: Path) -> None:
    report = {"set": "val", "protocol": "ten-crop 256-224", "n": 1234, "top1_error": 25.0,
              "top5_error": 7.5, "per_class": [], "confusion": None}  # fmt: skip
    mistake = Mistake("val", "a/b.jpg", "tench", "coho", 0.9, 0.05, PIXEL)
    html = write_evaluations([("net.safetensors", report, [mistake])], tmp_path / "out").read_text()
    assert "<td>net.safetensors</td>" in html
    assert "<td>25.00</td><td>7.50</td>" in html
    assert "predicted <b>coho</b>" in html
    assert "Recipes" not in html
    assert "Deviations" not in html
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "report.html"]


def test_a_page_of_few_classes_has_no_top5_errors(tmp_path: Path) -> None:
    report = {"set": "val", "protocol": "one-crop", "n": 12, "top1_error": 25.0,
              "top5_error": None, "per_class": [], "confusion": None}  # fmt: skip
    html = write_evaluations([("net.safetensors", report, [])], tmp_path / "out").read_text()
    assert "<td>25.00</td>" in html
    assert "top-5" not in html


def test_responses_make_a_page_too(degradation, tmp_path: Path) -> None:
    responses = [{"stem.0": 1.5, "stages.0": 0.5}] * 2
    page = write_responses(degradation[:2], responses, tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "responses.svg").exists()
    rows = list(csv.DictReader(io.StringIO(page.with_name("table.csv").read_text())))
    assert [row["network"] for row in rows] == ["plain-20"] * 2 + ["plain-56"] * 2
    assert "smaller responses" in page.read_text()
