import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tests.training.finder import FinderRecipe

from reslab.analysis.responses import Response
from reslab.evaluation.mistakes import Mistake, mistakes_json
from reslab.studies.page.classifiers import write_classifiers, write_evaluations, write_responses
from reslab.studies.page.figures import highest_settled
from reslab.studies.page.findings import (
    classifier_findings,
    depth_findings,
    option_findings,
    response_findings,
)
from reslab.studies.page.mistakes import SHOWN_CLASSES, details_of, mistakes_of
from reslab.studies.page.tables import (
    as_markdown,
    error_rows,
    labels_of,
    paper_entry,
    runs_as_csv,
    unique,
)
from reslab.studies.paper import deviations
from reslab.studies.records import (
    Seeds,
    group_by_recipe,
    read_record,
)
from reslab.training.recipe import Recipe


def test_numbers_over_seeds_are_printed_as_table_6_prints_them() -> None:
    assert str(Seeds((6.43, 6.61, 6.79))) == "6.43 (6.61 ± 0.18, n=3)"
    assert str(Seeds((6.43,))) == "6.43 (n=1)"


def test_runs_of_one_recipe_are_grouped(finish) -> None:
    paths = [finish("digits-plain20", 1), finish("digits-plain56", 1), finish("digits-plain20", 2)]
    groups = group_by_recipe(read_record(path, Recipe) for path in paths)
    assert [len(group.runs) for group in groups] == [2, 1]


def test_how_often_a_run_was_logged_makes_no_other_recipe(finish) -> None:
    paths = [finish("digits-plain20"), finish("digits-plain20", 2, changes=("eval_every=7",))]
    assert len(group_by_recipe(read_record(path, Recipe) for path in paths)) == 1


def test_one_run_does_not_count_as_two_seeds(finish) -> None:
    record = read_record(finish("digits-plain20"), Recipe)
    with pytest.raises(ValueError, match="are the same run"):
        group_by_recipe([record, record])


def test_a_run_that_is_not_finished_is_refused(finish) -> None:
    run = finish("digits-plain20")
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match="not finished; `reslab resume"):
        read_record(run, Recipe)


def test_a_run_of_a_detector_is_refused(finish) -> None:
    run = finish("digits-plain20")
    (run / "recipe.json").write_text(FinderRecipe(name="finder").model_dump_json())
    with pytest.raises(ValueError, match="holds a run of a detector, not of a classifier"):
        read_record(run, Recipe)


def test_the_curve_of_several_seeds_is_their_mean(finish) -> None:
    paths = [finish("digits-plain20", 1, test_error=10), finish("digits-plain20", 2, test_error=30)]
    (group,) = group_by_recipe(read_record(path, Recipe) for path in paths)
    evals = [row for row in group.curve_rows() if row["kind"] == "eval"]
    assert len(evals) == 10
    assert evals[-1]["top1_error"] == pytest.approx(20 + 5)


def degradation(finish):
    errors = {"plain20": 0.5, "plain56": 25.0, "resnet20": 0.1, "resnet56": 0.6}
    paths = [finish(f"digits-{model}", train_error=error) for model, error in errors.items()]
    return [read_record(path, Recipe) for path in paths]


def test_degradation_is_measured_on_both_kinds_of_net(finish) -> None:
    plain, residual, together = depth_findings(group_by_recipe(degradation(finish)))
    assert plain.startswith("plain-56 against plain-20: training error 25.00 % against 0.50 %")
    assert "+24.50 points" in plain
    assert residual.startswith("ResNet-56 against ResNet-20: training error 0.60 %")
    # 1 - 0.5 / 24.5
    assert "plain nets 24.50 points" in together
    assert "ResNet A +0.50; the shortcuts take away 98 % of it" in together


@pytest.mark.parametrize(
    ("plain56", "resnet56", "share"), [(9.0, 0.0, "all"), (9.0, 30.0, "nothing"), (0.1, 0.5, None)]
)
def test_findings_follow_the_numbers(finish, plain56, resnet56, share) -> None:
    errors = {"plain20": 0.5, "plain56": plain56, "resnet20": 0.1, "resnet56": resnet56}
    paths = [finish(f"digits-{model}", train_error=error) for model, error in errors.items()]
    found = depth_findings(group_by_recipe(read_record(path, Recipe) for path in paths))
    if share is None:  # the plain net did not degrade: there is nothing to take away
        assert len(found) == 2
    else:
        assert f"take away {share} of it" in found[2]


def test_nets_of_different_sets_are_not_compared(finish) -> None:
    paths = [finish("digits-resnet20"), finish("cifar10-resnet56", train_error=50.0)]
    assert classifier_findings(group_by_recipe(read_record(path, Recipe) for path in paths)) == []


def test_one_depth_alone_has_no_finding(finish) -> None:
    assert depth_findings(group_by_recipe([read_record(finish("digits-plain20"), Recipe)])) == []


def test_options_are_ordered_by_test_error(finish) -> None:
    errors = {"A": 9.0, "B": 8.5, "C": 8.0}
    paths = [finish(f"digits-resnet20-{o}", test_error=e) for o, e in errors.items()]
    (found,) = option_findings(group_by_recipe(read_record(path, Recipe) for path in paths))
    assert "C 8.00 %, B 8.50 %, A 9.00 % (1.00 apart)" in found
    assert "one seed does not tell" in found


def test_the_weakest_responses_come_first() -> None:
    found = response_findings({"plain-20": [Response("a", 3.0)], "ResNet-20": [Response("a", 1.0)]})
    assert found[0].index("ResNet-20") < found[0].index("plain-20")


def test_the_tables_agree(finish) -> None:
    groups = group_by_recipe(degradation(finish))
    rows = list(csv.DictReader(io.StringIO(runs_as_csv(groups))))
    assert [row["network"] for row in rows] == ["plain-20", "plain-56", "ResNet-20", "ResNet-56"]
    assert [float(row["train_error"]) for row in rows] == [0.5, 25.0, 0.1, 0.6]
    markdown = as_markdown(groups).splitlines()
    assert len(markdown) == 2 + 4
    assert "853,018" in markdown[3]
    assert len({line.count("|") for line in markdown}) == 1


def test_recipes_of_one_network_are_called_by_what_sets_them_apart(finish) -> None:
    whole, digits = finish("cifar10-resnet20"), finish("digits-resnet20")
    short = finish("cifar10-resnet20", seed=2, changes=("iterations=4000", "eval_every=9"))
    many = ("iterations=9", "batch_size=64", "learning_rate=0.2")
    other = finish("cifar10-resnet20", seed=3, changes=many)

    def labels(*paths: Path) -> list[str]:
        return labels_of(group_by_recipe(read_record(path, Recipe) for path in paths))

    assert labels(whole, short, finish("cifar10-resnet56")) == [
        "ResNet-20, iterations=64000", "ResNet-20, iterations=4000", "ResNet-56",
    ]  # fmt: skip
    assert labels(whole, digits) == ["ResNet-20, data=cifar10", "ResNet-20, data=digits"]
    assert labels(whole, other) == ["ResNet-20 #1", "ResNet-20 #2"]


def test_the_papers_number_stands_only_beside_its_own_net_and_set(finish) -> None:
    assert paper_entry(read_record(finish("cifar10-resnet20"), Recipe)) == "8.75"
    assert (
        paper_entry(read_record(finish("cifar10-resnet110"), Recipe)) == "6.43 (6.61 ± 0.16, n=5)"
    )
    assert paper_entry(read_record(finish("digits-resnet20"), Recipe)) == ""
    assert paper_entry(read_record(finish("cifar10-plain20"), Recipe)) == ""
    assert paper_entry(read_record(finish("cifar10-resnet20-B"), Recipe)) == ""


def test_deviations_name_what_differs_from_the_paper(finish) -> None:
    assert deviations(read_record(finish("cifar10-resnet110"), Recipe).recipe) == []
    short = read_record(
        finish("cifar10-resnet20", changes=("iterations=4000", "eval_every=9")), Recipe
    )
    assert deviations(short.recipe) == ["iterations: 64000 -> 4000"]
    option = read_record(finish("cifar10-resnet20-B"), Recipe)
    assert deviations(option.recipe) == ["model.shortcut: A -> B"]
    assert "data: cifar10 -> digits" in deviations(
        read_record(finish("digits-resnet20"), Recipe).recipe
    )


def test_the_report_is_whole_and_needs_no_network(finish, tmp_path: Path) -> None:
    page = write_classifiers(degradation(finish), tmp_path / "out", "Depth <hurts>?", "Does it?")
    html = page.read_text()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "report.html", "report.md", "table.md", "table.csv", "figures",
    }  # fmt: skip
    assert not re.findall(r"(?:src|href)=[\"'](?!#)", html)  # nothing is fetched
    assert "@import" not in html
    assert "Depth &lt;hurts&gt;?" in html
    assert html.count("<svg") == 1
    for row in error_rows(group_by_recipe(degradation_again(tmp_path))):
        assert f"<td>{row[0]}</td>" in html
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert as_markdown(group_by_recipe(degradation_again(tmp_path))).splitlines()[0] in markdown
    assert "](figures/errors.svg)" in markdown
    assert "- `data: cifar10 -> digits`" in markdown
    figure = ET.parse(tmp_path / "out" / "figures" / "errors.svg")  # well-formed
    assert figure.getroot().tag.endswith("svg")


def degradation_again(folder: Path):
    return [read_record(p, Recipe) for p in sorted(folder.glob("digits-*"))]


PIXEL = "data:image/png;base64,iVBORw0KGgo="
CONFUSION = [[8, 2, 0], [0, 10, 0], [1, 3, 6]]


def with_details(run: Path, names: tuple[str, ...] = ("ant", "bee", "<cat>")) -> Path:
    """Add to a finished run what says which images and classes went wrong."""
    rows = [
        {"class": name, "n": 10, "top1_error": error, "taken_for": taken}
        for name, error, taken in zip(
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
        Mistake(of, f"bee/{of}.jpg", "<cat>", "bee", 0.987, 0.001, PIXEL)
        for of in ("test", "held_out")
    ]
    (run / "mistakes.json").write_text(json.dumps(mistakes_json(mistakes)))
    return run


def test_mistakes_are_shown_as_images_and_nothing_is_fetched(finish, tmp_path: Path) -> None:
    run = with_details(finish("digits-resnet20"))
    page = write_classifiers([read_record(run, Recipe)], tmp_path / "out", "t", "q")
    html = page.read_text()
    assert html.count(f'<img src="{PIXEL}" alt="bee/test.jpg">') == 1
    assert "held_out.jpg" not in html  # another set than the one that the page is about
    assert "taken for <b>bee</b>, 98.7&nbsp;%" in html
    assert "is <b>&lt;cat&gt;</b>, 0.1&nbsp;%" in html
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:image/)", html)
    markdown = page.with_name("report.md").read_text()
    assert "| bee/test.jpg | &lt;cat> | bee | 98.7 |" in markdown
    assert "data:image" not in markdown


def test_classes_are_listed_worst_first_and_the_matrix_has_its_counts(
    finish, tmp_path: Path
) -> None:
    run = with_details(finish("digits-resnet20"))
    html = write_classifiers([read_record(run, Recipe)], tmp_path / "out", "t", "q").read_text()
    rows = re.findall(r"<tr><td>(.*?)</td><td>10</td><td>([\d.]+)</td>", html)
    assert rows == [("&lt;cat&gt;", "40.0"), ("ant", "20.0"), ("bee", "0.0")]
    assert "bee (3), ant (1)" in html
    matrix = html[html.index('<table class="matrix') :]
    matrix = matrix[: matrix.index("</table>")]
    cells = re.findall(r"<td(?: style=\"([^\"]+)\")?>(\d*)</td>", matrix)
    assert [int(count or 0) for _, count in cells] == [n for row in CONFUSION for n in row]
    blue = [bool(style) and "0,114,178" in style for style, _ in cells]
    assert blue == [at % 4 == 0 for at in range(9)]  # the diagonal


def test_a_matrix_that_could_not_be_read_or_named_is_left_out() -> None:
    many = tuple(f"class {k}" for k in range(40))
    evaluation = {"set": "test", "protocol": "one-crop", "n": 400, "top1_error": 50.0}
    rows = [{"class": name, "n": 10, "top1_error": 50.0, "taken_for": []} for name in many]
    full = evaluation | {"per_class": rows, "confusion": [[0] * 40] * 40}
    assert (details_of("net", full, []).matrix, len(details_of("net", full, []).classes)) == (
        [],
        40,
    )
    # a class without images has no row, so the matrix's names would be off by one
    some = evaluation | {"per_class": rows[:2], "confusion": CONFUSION}
    assert details_of("net", some, []).matrix == []


def test_many_classes_are_folded_and_several_runs_too(finish, tmp_path: Path) -> None:
    many = tuple(f"class {k}" for k in range(100))
    runs = [with_details(finish("digits-resnet20"), many), with_details(finish("digits-plain20"))]
    html = write_classifiers(
        [read_record(run, Recipe) for run in runs], tmp_path / "out", "t", "q"
    ).read_text()
    assert f"the other {100 - SHOWN_CLASSES} classes" in html
    assert html.count("<details open>") == 1
    assert "<b>plain-20, seed 1</b>; test, one-crop" in html


def test_mistakes_that_are_damaged_are_named(finish) -> None:
    run = with_details(finish("digits-resnet20"))
    for text in ("{", "{}", '{"mistakes": [{}]}'):
        (run / "mistakes.json").write_text(text)
        with pytest.raises(ValueError, match=r"mistakes\.json is damaged"):
            mistakes_of(read_record(run, Recipe))


def test_a_page_of_models_from_elsewhere_has_no_recipes(tmp_path: Path) -> None:
    report = {"set": "val", "protocol": "ten-crop 256-224", "n": 1234, "top1_error": 25.0,
              "top5_error": 7.5, "per_class": [], "confusion": None}  # fmt: skip
    mistake = Mistake("val", "a/b.jpg", "tench", "coho", 0.9, 0.05, PIXEL)
    html = write_evaluations([("net.safetensors", report, [mistake])], tmp_path / "out").read_text()
    assert "<td>net.safetensors</td>" in html
    assert "<td>25.00</td><td>7.50</td>" in html
    assert "taken for <b>coho</b>" in html
    assert "Recipes" not in html
    assert "Deviations" not in html
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "report.html"]


def test_a_report_is_the_same_for_the_same_runs(finish, tmp_path: Path) -> None:
    records = degradation(finish)
    one = write_classifiers(records, tmp_path / "one", "t", "q").read_text()
    assert write_classifiers(records, tmp_path / "two", "t", "q").read_text() == one


def test_the_error_axis_shows_all_of_the_later_training(finish) -> None:
    groups = group_by_recipe(degradation(finish))
    # from 40 % on: 25 + 50 / 4 of the 56-layer plain net's training error, plus 15 %
    assert highest_settled(groups) == pytest.approx(1.15 * (25 + 12.5))


def test_responses_make_a_page_too(finish, tmp_path: Path) -> None:
    records = degradation(finish)[:2]
    responses = [[Response("stem.0", 1.5), Response("stages.0", 0.5)]] * 2
    page = write_responses(records, responses, tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "responses.svg").exists()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))
    assert [(r["network"], r["index"], r["std"]) for r in rows][:2] == [
        ("plain-20", "1", "1.5"), ("plain-20", "2", "0.5"),
    ]  # fmt: skip
    assert "weaker" in page.read_text()


def test_two_runs_of_one_net_get_labels_of_their_own() -> None:
    assert unique(["a", "b", "a"]) == ["a #1", "b", "a #2"]
