"""Names of classes, files and runs that hold markup, escapes, formulas, and no Unicode."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.training.walls import TINY, draw

import reslab
from reslab.cli import main
from reslab.studies.page.tables import markdown_text

NAMES = [
    "[bold]", "[x]", ":smile:", r"a$\frac$b", "_hidden", "\x1b[2J\x1b]0;owned\x07", "new\nline",
    "\u202eidib", "<b>", "{{7*7}}", "a|b`c`*d*", "虎", os.fsdecode(b"caf\xe9"),
]  # fmt: skip
NAME = "n$\\frac$_[x]<b>|虎"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")
skip_on_mac = pytest.mark.skipif(sys.platform == "darwin", reason="macOS allows only UTF-8 names")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    photos = draw(folder / "photos", dict.fromkeys(NAMES, 4))
    for name in NAMES:
        (photos / name / "000.jpg").rename(photos / name / "\x1b[2J.jpg")
    changes = [*TINY, "iterations=1", f"name={json.dumps(NAME)}"]
    recipe = reslab.recipe("own-resnet18", data=photos).with_changes(changes)
    reslab.train(recipe, folder / "run", data=photos, on_event=None)
    return folder / "run"


@skip_on_mac
def test_tables_and_lines_show_every_name_as_it_is(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["evaluate", run], ["evaluate", run, "--csv"], ["predict", run, run.parent]):
        assert main([str(word) for word in command]) == 0
        shown = capsys.readouterr()
        assert not CONTROL.search(shown.out + shown.err)
        if command[0] == "evaluate":
            for name in ("[bold]", "[x]", ":smile:", r"a$\frac$b", "{{7*7}}", r"\x1b[2J", "虎"):
                assert name in shown.out
            assert r"new\nline" in shown.out
            assert r"caf\udce9" in shown.out
    assert r"\x1b[2J.jpg" in shown.out


@skip_on_mac
def test_json_gives_back_every_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--json"]) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    (report,) = json.loads(text)
    assert {row["class"] for row in report["per_class"]} == set(NAMES)


@skip_on_mac
def test_pages_and_figures_show_every_name(run: Path, tmp_path: Path) -> None:
    report = reslab.report(run, tmp_path / "report").path
    page = reslab.evaluate(run, on_event=None).write_page(tmp_path / "page")
    for html in (report.read_text("utf-8"), page.read_text("utf-8")):
        assert not CONTROL.search(html)
        assert "&lt;b&gt;" in html
        assert "{{7*7}}" in html
    for file in (report.with_name("report.md"), report.with_name("table.csv")):
        assert not CONTROL.search(file.read_text("utf-8"))
    curves = ElementTree.parse(run / "curves.svg")  # the letter that the font lacks stays text
    assert NAME in "".join(curves.getroot().itertext())


def test_markdown_shows_markup_as_text() -> None:
    assert markdown_text(r"a|b `c` *d* $e$ <i> \ [x](y) _f_ g_h &amp; [.5]") == (
        r"a\|b \`c\` \*d\* \$e\$ &lt;i> \\ [x\](y) \_f\_ g_h \&amp; [.5]"
    )
    assert markdown_text("a\nb") == r"a\\nb"  # which is shown as a\nb


@pytest.mark.parametrize(
    "url",
    [
        "https://user:HUNTER2@host.invalid:99999/x", "ftp://user:HUNTER2@host.invalid/x",
        "htps://user:HUNTER2@h/x", "https:/user:HUNTER2@h/x", "https://user:HUNTER2@[bad/x",
        "https://user:HUNTER2/@h/x",
    ],
)  # fmt: skip
def test_no_password_is_repeated(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["train", "own-resnet18", "--data", url, "--out", "r"],
        ["train", "own-resnet18", "--out", "r", url],
        ["check", url],
        ["predict", url, "a.jpg"],
        ["report", url],
    ):
        assert main(arguments) in (1, 2)
        said = capsys.readouterr()
        assert "HUNTER2" not in said.out + said.err
        assert len(said.err.splitlines()) == 1


def test_a_password_with_spaces_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["check"], ["predict", "a.jpg"], ["train", "own-resnet18", "--out", "r", "--data"],
    ):  # fmt: skip
        assert main([*arguments, "https://user:HUN HUNTER2 TER@h:x/x"]) == 2
        assert "HUNTER2" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pipe.jpg", "endless.jpg"])
def test_a_pipe_or_device_among_images_is_named_and_the_rest_go_on(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path, {"brick": 1})
    if name == "pipe.jpg":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    assert main(["predict", str(run), str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert re.search(rf"{name}: not a regular file but a (pipe|device)$", said.err, re.MULTILINE)
    assert "brick/000.jpg" in said.out


@pytest.mark.parametrize(
    ("arguments", "redirection", "status"),
    [
        ("models", ">&- 2>&- <&-", 0),
        ("models", "2>&-", 0),
        ("models", ">/dev/full", 1),
        ("--help", ">/dev/full", 1),
        ("nonsense", "2>/dev/full", 2),
    ],
)  # fmt: skip
def test_a_closed_or_full_stream_ends_nothing_but_its_output(
    arguments: str, redirection: str, status: int, tmp_path: Path
) -> None:
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = f'"{sys.executable}" -m reslab {arguments} {redirection}'
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
    if status == 1:
        assert done.stderr.startswith("reslab: no space left on device")


def test_training_needs_no_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("stdin", "stdout", "stderr"):  # None if closed when Python starts
        monkeypatch.setattr(sys, stream, None)
    small = ["iterations=1", "model.blocks=[1,1,1]", "recompute_bn=1"]
    changes = [word for change in small for word in ("--set", change)]
    assert main(["train", "digits-resnet20", "--out", str(tmp_path / "run"), *changes]) == 0
    for opened in (sys.stdin, sys.stdout, sys.stderr):
        opened.close()
    assert (tmp_path / "run" / "result.json").exists()
