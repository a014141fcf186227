"""`reslab recipes`"""

import json
from typing import Annotated

import typer

from reslab.cli.console import on_screen, say, say_json


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe whole.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """List the recipes, or show one: every field here can be changed with `train --set`."""
    from reslab.recipes import catalogue, recipe

    if name is not None:
        fields = recipe(name).model_dump(mode="json")
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


def as_text(fields: dict[str, object], prefix: str = "") -> str:
    """One `key = value` a line, keys as `--set` takes them."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines.append(as_text(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix}{key} = {json.dumps(value)}")
    return "\n".join(lines)
