"""`reslab weights`"""

from typing import Annotated

import typer

from reslab.cli.console import AsJson, print_json, print_line, print_table


def weights(
    name: Annotated[str | None, typer.Argument(help="Only the sources of this network.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the trained networks that have names, which any MODEL and --weights can be.

    A name alone is the first source of that name. What is not on this machine is downloaded when it
    is used, and verified by the SHA-256 that its authors publish.
    """
    from reslab.api.weights import weights as named_weights

    entries = named_weights(name)
    if as_json:
        print_json([entry.as_dict() for entry in entries])
        return
    rows = [
        [
            entry.full_name,
            f"{entry.top1_error:.2f} %",
            entry.test_set,
            f"{entry.megabytes:.1f} MB",
            entry.licence,
            "here" if entry.path else "by hand" if entry.address is None else "",
        ]
        for entry in entries
    ]
    print_table("name", "top-1 error", "measured on", "size", "licence", "", rows=rows)
    print_line("published errors; here: on this machine; by hand: using it prints what to do")
