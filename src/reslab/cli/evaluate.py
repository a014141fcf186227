"""`reslab evaluate`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.console import say, say_json

if TYPE_CHECKING:
    from reslab.data.images import ImageSet


def evaluate(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Run folders or model files.")
    ],
    on: Annotated[
        str | None, typer.Option(help="digits or cifar10; else the model's own set.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder that holds the data set.")] = None,
    protocol: Annotated[str, typer.Option(help="one-crop")] = "one-crop",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list of reports.")] = False,
) -> None:
    """Test trained models on a test set, each picture exactly once."""
    from reslab.evaluate.classify import classify
    from reslab.evaluate.views import OneCrop
    from reslab.models.weights import load
    from reslab.words import unknown
    from reslab.world import open_world

    if protocol != str(OneCrop()):
        raise ValueError(unknown("protocol", protocol, [str(OneCrop())]))
    world = open_world("fp32")
    reports = []
    for path in models:
        model = load(path).to(world.device)
        test = test_set(on or model.recipe["data"], data, path)
        if len(test.classes) != len(model.classes):
            raise ValueError(
                f"{path} knows {len(model.classes)} classes, the set has {len(test.classes)}"
            )
        if test.images.shape[1:] != model.preprocessing.mean.shape:
            raise ValueError(
                f"{path} was trained on pictures of {list(model.preprocessing.mean.shape)}, "
                f"the set has {list(test.images.shape[1:])}"
            )
        reports.append((path, classify(model, test.to(world.device))))
    if as_json:
        say_json([{"model": str(path), **report.as_dict()} for path, report in reports])
        return
    for path, report in reports:
        say(f"{path}  {report}")


def test_set(name: str, data: Path | None, path: Path) -> "ImageSet":
    """The test pictures of a set, found where the model's run found them if not told."""
    from reslab.data.sets import open_sets, set_named
    from reslab.train.folder import RunFolder

    chosen = set_named(name)
    if data is None and chosen != "digits" and path.is_dir():
        run = RunFolder.open(path)
        known = run.environment()["data"] if run.recipe().data == chosen else None
        data = Path(known) if known and Path(known).is_dir() else None
    return open_sets(chosen, data).test
