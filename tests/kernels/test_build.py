"""Compiling the kernels: once, by one process, and never with a failure of the run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reslab.kernels import build
from reslab.kernels.build import (
    SOURCES,
    KernelsMissing,
    digest_of,
    instructions_for,
    load_kernels,
)

# stands in for a compiler: writes a library of one function, and a line each time
COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo "stand-in 1.0"; exit; }
echo built >> "$LINES_OF"
# wait until both of two processes are about to load the kernels
tries=0
while [ -f "$LINES_OF.two" ] && [ "$(wc -l < "$LINES_OF.two")" -lt 2 ] && [ $tries -lt 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
sleep 0.3
while [ "$1" != -o ]; do shift; done
echo 'int reslab_stand_in(void) { return 7; }' | cc -x c -shared -fPIC -o "$2" -
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for a compiler first; return the file with a line for each build."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    script, lines = tmp_path / "compiler", tmp_path / "lines"
    script.write_text(COMPILER)
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("LINES_OF", str(lines))
    return lines


def test_kernels_are_compiled_once_with_a_note(compiler: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    first = load_kernels("avx2", notes.append, tmp_path / "cache")
    assert first.library.reslab_stand_in() == 7
    assert "once" in notes[0]
    again = load_kernels("avx2", pytest.fail, tmp_path / "cache")
    assert again.digest == first.digest
    assert compiler.read_text() == "built\n"


def test_a_damaged_library_is_compiled_again(compiler: Path, tmp_path: Path) -> None:
    load_kernels("avx2", print, tmp_path / "cache")
    (library,) = (tmp_path / "cache").glob("*.so")
    other = tmp_path / "other"  # this process has the library in the first folder open
    other.mkdir()
    (other / library.name).write_bytes(b"half a library")
    assert load_kernels("avx2", print, other).library.reslab_stand_in() == 7
    assert compiler.read_text() == "built\nbuilt\n"


def test_a_compiler_may_have_options(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_kernels("avx2", print, tmp_path / "cache")
    monkeypatch.setenv("CXX", f"env {tmp_path / 'compiler'}")
    assert load_kernels("avx2", print, tmp_path / "cache").digest != plain.digest


def test_processes_that_begin_together_share_one_build(compiler: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from reslab.kernels.build import load_kernels;"
        "print('ready', file=open(os.environ['LINES_OF'] + '.two', 'a'), flush=True);"
        "load_kernels('avx2', print, Path(sys.argv[1]))"
    )
    compiler.with_name(compiler.name + ".two").touch()
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert compiler.read_text() == "built\n"
    assert sum("compiling" in text for text in outputs) == 1


def test_a_machine_without_a_compiler_has_no_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelsMissing, match=r"no C\+\+ compiler: g\+\+ is missing"):
        load_kernels("avx2", print, tmp_path)


def test_the_reason_why_a_compiler_fails_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "old"
    script.write_text(
        "#!/bin/sh\n[ $1 = --version ] && { echo old 1.0; exit; }\n"
        "echo 'note: no' >&2; echo 'error: bad value for -march' >&2; exit 1\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    with pytest.raises(KernelsMissing, match="fails: error: bad value for -march"):
        load_kernels("avx512", print, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.so"))


def test_a_folder_that_cannot_be_written_is_a_reason(compiler: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(KernelsMissing, match="cache"):
        load_kernels("avx2", print, tmp_path / "cache")


def test_the_digest_covers_compiler_flags_and_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "cxx"
    shutil.copytree(SOURCES, copy)
    monkeypatch.setattr(build, "SOURCES", copy)
    digests = {
        digest_of("g++ 12", ("-O3",)),
        digest_of("g++ 13", ("-O3",)),
        digest_of("g++ 12", ()),
    }
    sources = list(copy.iterdir())
    for source in sources:
        content = source.read_bytes()
        source.write_bytes(content + b" ")
        digests.add(digest_of("g++ 12", ("-O3",)))
        source.write_bytes(content)
    assert len(digests) == 3 + len(sources)


def test_reslab_cpu_limits_the_instructions() -> None:
    try:
        instructions_for("fp32")
    except KernelsMissing as missing:
        pytest.skip(str(missing))
    code = (
        "from reslab.runtime.cpu import limit_kernels; limit_kernels();"
        "from reslab.kernels.build import instructions_for; print(instructions_for('fp32'))"
    )
    environment = os.environ | {"RESLAB_CPU": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "avx2"
