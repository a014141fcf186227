"""A verb imports what it uses: slow modules must not come back into commands that need none.

Each test runs several verbs in one new process, and looks at `sys.modules` after each of them.
"""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

# torch's compiler with sympy, and what scikit-learn needs, take seconds to import
NEVER = {"torch._dynamo", "torch._inductor", "sympy", "sklearn", "scipy", "pandas", "triton"}
NEVER |= {"onnx", "onnxruntime", "onnxscript", "openvino"}  # only for exports and other backends
FIGURES = {"matplotlib"}
TINY = ["--set", "batch_size=4", "--set", "recompute_bn=1", "--set", "iterations=1"]

PROGRAM = """
import json, sys
verbs = json.loads(sys.argv[1])
from reslab.cli import main
for arguments, unwanted in verbs:
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    print(json.dumps([arguments, status, sorted(set(unwanted) & sys.modules.keys())]))
"""


def unwanted_imports(verbs: list[tuple[list[str], set[str]]]) -> dict[str, list[str]]:
    """Run verbs one after the other in a new process; return the unwanted modules after each.

    Raise AssertionError if a verb fails.
    """
    text = json.dumps([(arguments, sorted(unwanted)) for arguments, unwanted in verbs])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, text], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    results = [json.loads(line) for line in lines]
    assert [(arguments, status) for arguments, status, _ in results] == [
        (arguments, 0) for arguments, _ in verbs
    ], done.stderr
    return {" ".join(arguments): found for arguments, _, found in results if found}


def test_verbs_that_only_describe_need_no_torch() -> None:
    verbs = [
        ["--help"], ["--version"], ["check", "--help"], ["train", "--help"], ["models"],
        ["models", "--json"], ["recipes"], ["recipes", "--json"], ["recipes", "digits-resnet20"],
        ["recipes", "coco-resnet50-c4"],
    ]  # fmt: skip
    assert not unwanted_imports([(verb, {"torch"} | NEVER | FIGURES) for verb in verbs])


def test_training_and_using_a_net_need_no_compiler_and_no_figures(tmp_path: Path) -> None:
    """The order matters: training ends with a figure, for which matplotlib is imported."""
    run, image = str(tmp_path / "run"), tmp_path / "image.png"
    Image.new("RGB", (16, 16), "grey").save(image)
    train = ["train", "digits-resnet20", "--out", run, *TINY]
    no_figures = NEVER | FIGURES
    trained = unwanted_imports([(train, NEVER)])
    used = unwanted_imports(
        [
            (["predict", run, str(image)], no_figures),
            (["evaluate", run], no_figures),
            (["resume", run], no_figures),
            (["plan", "digits-resnet20", *TINY, "--iterations", "1"], no_figures),
            (["report", run, "--out", str(tmp_path / "page")], NEVER),
        ]
    )
    assert not trained
    assert not used
