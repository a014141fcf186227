"""`reslab recipes` and `reslab models`"""

import json
from typing import Annotated

import typer

from reslab.cli.console import AsJson, WeightsOption, print_json, print_line, print_table


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show all fields of this recipe.")] = None,
    data: Annotated[str | None, typer.Option(help="Your images, for own-*.")] = None,
    weights: WeightsOption = None,
    as_json: AsJson = False,
) -> None:
    """List the recipes, or show every field of one.

    Each line of a recipe is a key for `train --set`.
    """
    from reslab.recipes import catalogue, network_of, recipe_from, recipe_names

    if name is not None:
        fields = recipe_from(name, data, weights).model_dump(mode="json")
        print_json(fields) if as_json else print_line(fields_as_text(fields))
        return
    all_recipes = [*catalogue().values(), *catalogue("detection").values()]
    if as_json:
        print_json([recipe.model_dump(mode="json") for recipe in all_recipes])
        return
    rows = [
        [
            recipe.name,
            f"{recipe.iterations:,}",
            str(recipe.batch_size),
            "yes" if recipe.warmup else "no",
            f"option {shortcut}" if (shortcut := network_of(recipe).option) else "plain",
        ]
        for recipe in all_recipes
    ]
    print_table("recipe", "iterations", "batch size", "warm-up", "shortcut", rows=rows)
    own = recipe_names(own=True)
    print_line(
        f"and, for the images in a folder of your own (`reslab recipes {own[0]} --data "
        f"FOLDER`): {', '.join(own)}"
    )


def fields_as_text(fields: dict[str, object], prefix: str = "") -> str:
    """Return one `key = value` per line, with the keys used by `--set`."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines.append(fields_as_text(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix}{key} = {json.dumps(value)}")
    return "\n".join(lines)


def models(as_json: AsJson = False) -> None:
    """List the networks: depth, parameters, multiply-adds."""
    from dataclasses import asdict

    from reslab.models.complexity import complexities
    from reslab.models.config import all_models

    networks = complexities(all_models())
    if as_json:
        print_json([asdict(network) for network in networks])
        return
    rows = [
        [net.name, str(net.depth), f"{net.parameters:,}", f"{net.multiply_adds / 1e6:,.1f} M"]
        for net in networks
    ]
    print_table("network", "depth", "parameters", "multiply-adds", rows=rows)
