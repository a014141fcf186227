"""`reslab recipes`"""

import json
from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.console import print_json, print_line, print_table


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe whole.")] = None,
    data: Annotated[str | None, typer.Option(help="Your images, for own-*.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A model file or run to start from.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List the recipes, or show one: every field here can be changed with `train --set`."""
    from reslab.recipes import catalogue, network_of, open_recipe, recipe_names
    from reslab.training.setup import inputs_at

    if name is not None:
        fields = open_recipe(name, inputs_at(data, weights)).model_dump(mode="json")
        print_json(fields) if as_json else print_line(as_text(fields))
        return
    found = [*catalogue().values(), *catalogue("detection").values()]
    if as_json:
        print_json([it.model_dump(mode="json") for it in found])
        return
    rows = [
        [
            it.name,
            f"{it.iterations:,}",
            str(it.batch_size),
            "yes" if it.warmup else "no",
            f"option {shortcut}" if (shortcut := network_of(it).shortcut) else "plain",
        ]
        for it in found
    ]
    print_table("recipe", "iterations", "batch size", "warm-up", "shortcut", rows=rows)
    own = recipe_names(own=True)
    print_line(
        f"and, from the images in a folder of your own (`reslab recipes {own[0]} --data "
        f"FOLDER`): {', '.join(own)}"
    )


def as_text(fields: dict[str, object], prefix: str = "") -> str:
    """One `key = value` a line, keys as `--set` takes them."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines.append(as_text(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix}{key} = {json.dumps(value)}")
    return "\n".join(lines)


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """List every network of the paper with its depth, parameters and multiply-adds."""
    from dataclasses import asdict

    from reslab.models.complexity import complexities
    from reslab.models.config import all_models

    found = complexities(all_models())
    if as_json:
        print_json([asdict(complexity) for complexity in found])
        return
    rows = [
        [c.name, str(c.depth), f"{c.parameters:,}", f"{c.multiply_adds / 1e6:,.1f} M"]
        for c in found
    ]
    print_table("network", "depth", "parameters", "multiply-adds", rows=rows)
