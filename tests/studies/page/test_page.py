from reslab.studies.page.page import Page, deviations_by_section, render, write_html
from reslab.studies.page.tables import Table
from reslab.studies.records import group_by_recipe


def test_a_deviation_of_some_runs_names_them(classifier) -> None:
    groups = group_by_recipe([classifier("digits-resnet20"), classifier("digits-resnet20-B")])
    (lines,) = deviations_by_section(groups).values()
    assert "data: cifar10 -> digits" in lines
    assert "model.shortcut: A -> B  (ResNet-20 B)" in lines


def test_long_tables_are_collapsed_in_html_and_complete_in_markdown(tmp_path) -> None:
    rows = [(f"row {k}", "1") for k in range(60)]
    tables = [Table("Table", ("a", "b"), rows, "A note."), Table("Other", ("c",), [("x",)])]
    page = Page(("<Title>", "Why?"), ["It is so."], {}, tables)
    html = write_html(page, tmp_path / "out").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert "<h1>&lt;Title&gt;</h1>" in html
    assert "10 more rows" in html
    assert "Deviations" not in html  # since there are no runs
    markdown = render("report.md.j2", page, ())
    assert markdown.startswith(
        "# &lt;Title>\n\nWhy?\n\nIt is so.\n\n| a | b |\n| --- | --- |\n| row 0 |"
    )
    assert "| row 59 | 1 |\n\nA note.\n\n## Other\n\n| c |\n| --- |\n| x |\n\n## Dev" in markdown
