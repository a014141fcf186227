"""What the tests of the command share: verbs in this process."""

from collections.abc import Callable

import pytest

from reslab.cli import main

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that must fail with one line, and give that line."""

    def run(*arguments: object, status: int = 2, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == status
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1), printed
        assert printed.err.startswith("reslab: ")
        return printed.err.removesuffix("\n")

    return run


@pytest.fixture
def line(refused: Refused) -> Refused:
    """The one line with which `evaluate` refuses."""
    return lambda *arguments: refused("evaluate", *arguments)
