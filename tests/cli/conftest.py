"""What the tests of a verb in this process share."""

import pytest

from reslab.cli import main


@pytest.fixture
def line(capsys):
    """The one line with which `evaluate` refuses."""

    def run(*arguments: object) -> str:
        assert main(["evaluate", *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        return printed.err

    return run
