"""The command line: parse, call, print. A verb imports torch when it runs; `--help` does not."""

import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

import reslab
from reslab.api.lines import warn
from reslab.cli.benchmark import benchmark
from reslab.cli.check import check
from reslab.cli.console import open_closed_streams, print_line
from reslab.cli.convert import import_
from reslab.cli.evaluate import evaluate
from reslab.cli.export import export
from reslab.cli.pack import pack, scenes
from reslab.cli.plan import plan
from reslab.cli.predict import detect, predict
from reslab.cli.recipes import models, recipes
from reslab.cli.study import report, study
from reslab.cli.train import resume, train
from reslab.cli.weights import weights
from reslab.errors import os_reason, unknown_name
from reslab.runtime.cpu import limit_kernels
from reslab.runtime.text import without_secrets

VERBS = {
    models: "reslab models",
    weights: "reslab weights",
    recipes: "reslab recipes cifar10-resnet110",
    train: "reslab train digits-resnet20 --out runs/first",
    plan: "reslab plan own-resnet18 --data photos",
    resume: "reslab resume runs/first",
    evaluate: "reslab evaluate runs/first",
    check: "reslab check photos",
    predict: "reslab predict runs/first photo.jpg more/",
    detect: "reslab detect runs/first street.jpg --out detected",
    scenes: "reslab scenes scenes --train 100 --test 20",
    pack: "reslab pack images packed --shorter-side 480",
    import_: "reslab import resnet50.pth --out resnet50.safetensors",
    export: "reslab export runs/first --to onnx",
    benchmark: "reslab benchmark runs/first",
    study: "reslab study degradation --on cifar10 --iterations 4000 --seeds 3",
    report: "reslab report runs/first runs/second --out report",
}

LONGEST = 4000  # characters of a message

# typer hides its copy of click; UsageError is the base class of the exception it exports
UsageError = typer.BadParameter.__mro__[1]


def print_version(version: bool) -> None:
    """Print the versions; torch's is read from its metadata, since importing it takes seconds."""
    if version:
        from importlib import metadata

        print_line(f"reslab {reslab.__version__}, torch {metadata.version('torch')}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """Build the command-line application with all its verbs."""
    app = typer.Typer(
        name="reslab",
        help="Deep residual learning (arXiv 1512.03385): train, resume, evaluate, study.",
        epilog="Try: reslab study degradation",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(about)
    for verb, example in VERBS.items():
        app.command(verb_name(verb), epilog=f"Example: {example}")(ending_on_interrupt(verb))
    return app


def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the versions.", is_eager=True, callback=print_version
        ),
    ] = False,
) -> None:
    """Parse the options of reslab itself."""


def ending_on_interrupt(verb: Callable[..., int | None]) -> Callable[..., int | None]:
    """Return a verb that ends with a message on Ctrl-C, or if a process or server hangs up.

    typer would end it silently in both cases.
    """

    @wraps(verb)
    def run(*arguments: object, **options: object) -> int | None:
        try:
            return verb(*arguments, **options)
        except KeyboardInterrupt:
            warn("stopped")
            return 130
        except BrokenPipeError as error:
            raise RuntimeError(f"a connection was closed ({os_reason(error)})") from error

    return run


def verb_name(verb: Callable[..., object]) -> str:
    """Return a verb's name on the command line; the function `import_` avoids a keyword."""
    return verb.__name__.removesuffix("_")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status; print a failure as one line on standard error.

    The status is 0 for success, 2 for the caller's mistake, 1 for a failure of the work, and 130 or
    143 if stopped by a signal. RESLAB_TRACEBACK=1 shows the traceback of an error; for RESLAB_CPU
    see docs/machines.md.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    open_closed_streams()
    if not arguments:
        warn(f"which verb? {', '.join(map(verb_name, VERBS))}; see reslab --help")
        return 2
    if isinstance(sys.stdout, TextIOWrapper):  # names may not be encodable
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *rest, **more: warn(f"warning: {message}")
    try:
        limit_kernels()
        return build_app()(args=arguments, prog_name="reslab", standalone_mode=False) or 0
    except Exception as error:
        if os.environ.get("RESLAB_TRACEBACK"):
            raise
        return explain(error, arguments)


def as_options(text: str, name: str) -> str:
    """Return a message with the `parameters` of the verb `name` written as command-line options."""
    verb = next((verb for verb in VERBS if verb_name(verb) == name), None)
    options = inspect.signature(verb).parameters if verb else {}

    def written(match: re.Match[str]) -> str:
        parameter = match[1]
        return f"--{parameter.replace('_', '-')}" if parameter in options else match[0]

    return re.sub(r"`(\w+)`", written, text)


def explain(error: Exception, arguments: Sequence[str]) -> int:
    """Print one line about an exception and return the exit status."""
    text = explanation(error, arguments)
    for word in arguments:  # a password in a URL may have spaces, where a message seems to go on
        for shown in (word, str(Path(word))):  # a path has one slash where the URL has two
            text = text.replace(shown, without_secrets(shown))
    text = " ".join(text.split())
    if len(text) > LONGEST:  # it quotes a file, such as a name of thousands of letters
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    warn(as_options(text, arguments[0]))
    return 2 if isinstance(error, UsageError | ValueError) else 1


def explanation(error: Exception, arguments: Sequence[str]) -> str:
    """Return the reason that an exception gives."""
    if isinstance(error, UsageError):
        names = [verb_name(verb) for verb in VERBS]
        if not arguments[0].startswith("-") and arguments[0] not in names:
            return unknown_name("verb", arguments[0], names)
        return error.format_message()  # type: ignore[attr-defined]
    if isinstance(error, OSError) and error.strerror:
        return os_reason(error) + (f": {error.filename}" if error.filename else "")
    return str(error).strip() or type(error).__name__
