"""The fields of a recipe as a person types and reads them: changes, differences, refusals."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from reslab.train.sections import Plateau, Warmup
from reslab.words import unknown

Fields = dict[str, Any]  # a recipe as JSON has it
Kinds = Mapping[str, Sequence[str]]  # sections that come in several kinds -> what these are called
# sections that may be absent; changing a key of one brings the others' defaults
OPTIONAL = {"warmup": Warmup(), "plateau": Plateau()}


def key_and_value(change: str) -> tuple[str, Any]:
    """KEY=VALUE taken apart; a value that is no JSON is a word."""
    key, equals, text = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change}: write it as KEY=VALUE")
    try:
        return key.strip(), json.loads(text.strip())
    except json.JSONDecodeError:
        return key.strip(), text.strip()


def put(fields: Fields, key: str, value: Any) -> None:
    """Change one field in place; a dotted key reaches inside a section."""
    *path, last = key.split(".")
    place: Any = fields
    for part in path:
        if part in OPTIONAL and place.get(part) is None:
            place[part] = OPTIONAL[part].model_dump(mode="json")
        if not isinstance(place.get(part), dict):
            raise ValueError(unknown("recipe key", key, flat(fields)))
        place = place[part]
    if last not in place:
        raise ValueError(unknown("recipe key", key, {*flat(fields), *fields}))
    if isinstance(place[last], float) and type(value) is int:
        value = float(value)
    place[last] = value


def flat(fields: Fields, prefix: str = "") -> Fields:
    """Nested fields under dotted keys."""
    found = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def differences(here: Fields, there: Fields) -> list[str]:
    """One line for each field in which two recipes differ, but for their names."""
    here, there = flat(here), flat(there)
    return [
        f"{key}: {here.get(key)} -> {there.get(key)}"
        for key in dict.fromkeys([*here, *there])
        if key != "name" and here.get(key) != there.get(key)
    ]


def refusal(error: ValidationError, keys: Iterable[str], kinds: Kinds) -> str:
    """What is wrong first, in one line; `keys` are those that a recipe of this task has."""
    first = error.errors(include_url=False)[0]
    # a union names the alternative that it tried; a person who sets a key does not
    tried = {kind for several in kinds.values() for kind in several}
    key = ".".join(str(part) for part in first["loc"] if part not in tried)
    if first["type"] == "extra_forbidden":
        return unknown("recipe key", key, keys)
    if first["type"].startswith("union_tag"):
        return unknown(key, str(first["input"].get("kind")), kinds[key])
    if first["type"] == "missing":
        return f"the recipe has no {key!r}"
    if first["type"] == "value_error":  # ours: it names the fields itself
        return str(first["ctx"]["error"])
    if first["type"] == "json_invalid":
        return f"the recipe is not valid JSON: {first['msg']}"
    return f"recipe key {key!r} cannot be {first['input']!r}: {first['msg'].lower()}"
