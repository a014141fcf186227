"""Every example of docs/extending.md is run, and does what the text says."""

import csv
import json
import runpy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.conftest import Refused, Start
from tests.docs import examples
from tests.docs.examples import DOCUMENT, FILE, OUTPUTS, SHORTER, blocks_in
from torch import Tensor

import reslab
from reslab.training.recipe import Recipe
from reslab.training.run import Interrupted

TEXT = DOCUMENT.read_text()
BLOCKS = blocks_in(TEXT)
RUN = Counter(block.section for block in BLOCKS if block.language != "text")
LAYERS_3X3 = 19  # of a net with 20 layers
Example = Callable[[str], list[str]]


@pytest.fixture
def example(start_python: Start, tmp_path: Path) -> Example:
    """Run a section of the document in `tmp_path`; return what each block prints."""

    def run(section: str) -> list[str]:
        ended = start_python(examples.__file__, section, tmp_path).end()
        assert ended.returncode == 0, ended.stderr
        outputs = json.loads((tmp_path / OUTPUTS).read_text())
        assert len(outputs) == RUN[section]
        return outputs

    return run


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def first_cells(table: str) -> list[str]:
    """Return the first cell of each row of the last Markdown table in a text."""
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    return [row.split("|")[1].strip() for row in rows[2:]]


def interrupted(recipe: Recipe, out: Path, **own: Any) -> None:
    """Train with the user's own parts, and stop after three iterations."""
    signals = iter([None, None, 15])
    with pytest.raises(Interrupted):
        reslab.train(recipe, out, stop=lambda: next(signals), on_event=None, **own)


def test_every_section_is_tested() -> None:
    """A section without a test here would not be run."""
    assert sum("```" in line for line in TEXT.splitlines()) == 2 * len(BLOCKS)
    source = Path(__file__).read_text()
    assert all(f'example("{section}")' in source for section in RUN)


def test_what_is_shortened_stands_in_the_document() -> None:
    assert all(long in TEXT for long in SHORTER)


def test_configuration(example: Example, tmp_path: Path) -> None:
    outputs = example("A network from its configuration")
    deep, group = (read(tmp_path / f"runs/{run}/recipe.json")["model"] for run in ("deep", "group"))
    assert (deep["stochastic_depth"], deep["dropout"]) == (0.5, 0.1)
    assert (group["norm"]["kind"], group["norm"]["groups"]) == ("group", 4)
    names = first_cells(outputs[1])
    assert len(names) == 2
    assert "stochastic depth 0.5" in names[0]
    assert "group norm" in names[1]
    assert outputs[2].startswith("Projection")
    assert "BatchNorm" not in outputs[2].partition("Sequential")[2]


def test_block(example: Example, tmp_path: Path, refused: Refused) -> None:
    outputs = example("A block")
    names = first_cells(outputs[1])
    assert len(names) == 2
    assert "PreActivation" in names[0]
    assert "PreActivation" not in names[1]
    page = (tmp_path / "report/report.md").read_text()
    assert "net: the recipe's -> ResNet with PreActivation; 269,722 parameters" in page
    assert float(outputs[2].split()[0]) > 0  # the probability of the best class

    block = runpy.run_path(str(tmp_path / "preactivation.py"))["PreActivation"]
    recipe = reslab.recipe("digits-resnet20").with_(iterations=6, recompute_bn=2)

    def build(seed: int) -> torch.nn.Module:
        rng = torch.Generator().manual_seed(seed)
        return reslab.build_resnet(recipe.model, rng, block=block)

    out = tmp_path / "runs/again"
    interrupted(recipe, out, net=build(1))
    assert "reslab.train(" in refused("resume", out)
    result = reslab.train(recipe, out, net=build(2), on_event=None)
    assert result.state_sha256 == read(tmp_path / "runs/preactivation/result.json")["state_sha256"]


def activate(x: Tensor) -> Tensor:
    """Batch norm with scale 1 and shift 0, then ReLU."""
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return ((x - mean) / (variance + 1e-5).sqrt()).clamp(min=0)


def test_preactivation_block(tmp_path: Path) -> None:
    """Each block of a net computes the paper's function, the first and the last one too."""
    file = tmp_path / "preactivation.py"
    file.write_text(next(block.code for block in BLOCKS if FILE.match(block.code)))
    config = reslab.config_named("resnet20")
    for place in config.places():
        block = runpy.run_path(str(file))["PreActivation"](config, place).double()
        first, second = (weight for weight in block.parameters() if weight.ndim == 4)
        x = torch.randn(2, place.c_in, 8, 8, dtype=torch.float64)
        y = F.conv2d(x if place.index == 0 else activate(x), first, None, place.stride, 1)
        y = F.conv2d(activate(y), second, None, 1, 1)
        y[:, : place.c_in] += x[:, :, :: place.stride, :: place.stride]
        torch.testing.assert_close(block(x), activate(y) if place.index == 8 else y)


def test_data_set(example: Example, tmp_path: Path) -> None:
    outputs = example("A data set")
    prediction, *evaluation = outputs[0].splitlines()
    classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert prediction.split()[2] in classes
    assert "n=297" in evaluation[0]
    assert prediction in outputs[2]
    deviation = read(tmp_path / "runs/enlarged/recipe.json")["deviations"]["data"]
    assert "1,500 training and 297 test images of 28x28 in 10 classes" in deviation


def test_optimizer(example: Example, tmp_path: Path) -> None:
    example("An optimizer")
    run = tmp_path / "runs/adamw"
    recipe = reslab.recipe("digits-resnet20").with_(
        iterations=6, recompute_bn=2, learning_rate=0.002, warmup=None
    )
    assert "AdamW" in read(run / "recipe.json")["deviations"]["optimizer"]

    def adamw(net: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(net.parameters(), weight_decay=0.05)

    interrupted(recipe, tmp_path / "again", optimizer=adamw)
    result = reslab.train(recipe, tmp_path / "again", optimizer=adamw, on_event=None)
    assert result.state_sha256 == read(run / "result.json")["state_sha256"]


def test_observer(example: Example, tmp_path: Path) -> None:
    outputs = example("Gradients by layer")
    with (tmp_path / "gradients.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    iterations = Counter(int(iteration) for iteration, _, _ in rows)
    assert iterations == dict.fromkeys(range(1, 7), LAYERS_3X3)
    assert all(float(norm) > 0 for _, _, norm in rows)
    names = [line.split()[0] for line in outputs[1].splitlines()]
    assert names == [f"{iteration:08d}.safetensors" for iteration in (2, 4, 6)]


def test_study(example: Example, tmp_path: Path) -> None:
    outputs = example("A study")
    names = first_cells(outputs[0])
    assert [name.partition("weight_decay=")[2] for name in names] == ["0.0001", "0.001"]
    assert outputs[0].count("n=2") == 4  # test and training errors of each
    results = list((tmp_path / "studies/decay").glob("*/result.json"))
    written = [path.stat().st_mtime_ns for path in results]
    assert len(results) == 4
    assert example("A study") == outputs  # finished runs are skipped
    assert [path.stat().st_mtime_ns for path in results] == written


def test_loop(example: Example, tmp_path: Path) -> None:
    outputs = example("A training loop of your own")
    assert "n=360" in outputs[1]
    predictions = reslab.load(tmp_path / "digits.safetensors").predict(tmp_path / "digit.png")
    assert outputs[1].splitlines()[-5:] == [f"  {prediction}" for prediction in predictions]
