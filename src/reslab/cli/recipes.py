"""`reslab recipes`"""

import json
from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.console import on_screen, say, say_json


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe whole.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your pictures, for own-*.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A model file or run to start from.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List the recipes, or show one: every field here can be changed with `train --set`."""
    from reslab.models.weights import load
    from reslab.recipes import catalogue, own_names, recipe

    if name is not None:
        given = load(weights) if weights else None
        fields = recipe(name, data=data, weights=given).model_dump(mode="json")
        say_json(fields) if as_json else say(as_text(fields))
        return
    found = list(catalogue().values())
    if as_json:
        say_json([recipe.model_dump(mode="json") for recipe in found])
        return
    rows = [
        [
            recipe.name,
            f"{recipe.iterations:,}",
            str(recipe.batch_size),
            "yes" if recipe.warmup else "no",
            "plain" if recipe.model.shortcut is None else f"option {recipe.model.shortcut}",
        ]
        for recipe in found
    ]
    on_screen("recipe", "iterations", "batch size", "warm-up", "shortcut", rows=rows)
    say(
        f"and, from the pictures in a folder of your own (`reslab recipes {own_names()[0]} --data "
        f"FOLDER`): {', '.join(own_names())}"
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
