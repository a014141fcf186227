"""`reslab models`"""

from typing import Annotated

import typer

from reslab.cli.console import on_screen, say_json


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """List every network of the paper with its depth, parameters and multiply-adds."""
    from dataclasses import asdict

    from reslab.models.names import all_models
    from reslab.study.complexity import complexities

    found = complexities(all_models())
    if as_json:
        say_json([asdict(complexity) for complexity in found])
        return
    rows = [
        [c.name, str(c.depth), f"{c.parameters:,}", f"{c.multiply_adds / 1e6:,.1f} M"]
        for c in found
    ]
    on_screen("network", "depth", "parameters", "multiply-adds", rows=rows)
