"""Change a recipe's fields by KEY=VALUE, compare recipes, and explain what is wrong with one."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from reslab.errors import unknown_name
from reslab.models.parts import FORMS
from reslab.runtime.json_text import parse_json

Fields = dict[str, Any]  # a recipe as parsed from JSON
# sections that come in several kinds -> each kind, by name, with its defaults
Kinds = Mapping[str, Mapping[str, BaseModel]]


def parse_override(change: str) -> tuple[str, Any]:
    """Parse KEY=VALUE; a value that is not valid JSON is a string."""
    key, equals, text = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change}: write it as KEY=VALUE")
    try:
        return key.strip(), parse_json(text.strip())
    except json.JSONDecodeError:
        return key.strip(), text.strip()
    except ValueError as error:
        raise ValueError(f"--set {key.strip()}: {error}") from None


def json_value(key: str, value: object) -> Any:
    """Return a Python value as parsed from JSON; raise ValueError if JSON cannot hold it."""
    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        kind = type(value).__name__
        raise ValueError(f"recipe key {key!r} cannot be a {kind}: {value!r}") from None


def set_field(
    fields: Fields, key: str, value: Any, kinds: Kinds, optional: Mapping[str, BaseModel]
) -> None:
    """Set one field in place; a dotted key addresses a field in a section.

    A section that comes in several kinds can be set to the name of a kind, and a list of such
    sections to a list of names; they get the defaults of the kind. `optional` are sections that
    may be absent: setting one of their keys fills in defaults for the others.
    """
    if key in kinds:
        value = with_defaults(value, kinds[key])
    must_have_field(fields, key, kinds)
    *path, last = key.split(".")
    section: Any = fields
    for name in path:
        if name in optional and section.get(name) is None:
            section[name] = optional[name].model_dump(mode="json")
        if not isinstance(section.get(name), dict):
            raise ValueError(unknown_name("recipe key", key, flatten(fields)))
        section = section[name]
    if last not in section:
        raise ValueError(unknown_name("recipe key", key, {*flatten(fields), *fields}))
    if isinstance(section[last], float) and type(value) is int:
        value = float(value)
    section[last] = value


def flatten(fields: Fields, prefix: str = "") -> Fields:
    """Return nested fields as one flat mapping with dotted keys."""
    flat = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def recipe_differences(first: Fields, second: Fields) -> list[str]:
    """Return a line `key: first -> second` for each field that differs, except the name."""
    first, second = flatten(first), flatten(second)
    return [
        f"{key}: {first.get(key)} -> {second.get(key)}"
        for key in dict.fromkeys([*first, *second])
        if key != "name" and first.get(key) != second.get(key)
    ]


def kind_in(section: object) -> object:
    """Return the kind that a section names, or the value that was given instead of a section."""
    return section.get("kind") if isinstance(section, Mapping) else section


def with_defaults(value: Any, kinds: Mapping[str, BaseModel]) -> Any:
    """Replace the name of a kind, or each name in a list, by that kind with its defaults."""
    if isinstance(value, list):
        return [with_defaults(item, kinds) for item in value]
    if not isinstance(value, str):
        return value
    return kinds[value].model_dump(mode="json") if value in kinds else {"kind": value}


def must_have_field(fields: Fields, key: str, kinds: Kinds) -> None:
    """Raise ValueError if `key` is a field of another kind than the section has in `fields`."""
    name, _, last = key.rpartition(".")
    present = flatten(fields)
    kind = present.get(f"{name}.kind")
    having = [other for other, section in kinds.get(name, {}).items() if last in dict(section)]
    if kind is not None and having and kind not in having:
        choices = " or ".join(f"{name}={other}" for other in having)
        raise ValueError(f"{name} {kind!r} has no {last!r}: first set {choices}")


def validation_message(error: ValidationError, keys: Iterable[str], kinds: Kinds) -> str:
    """Return a one-line message for the first error; `keys` are the valid keys of the recipe."""
    first = error.errors(include_url=False)[0]
    # pydantic puts the union alternative it tried into the path; users' keys do not contain it
    tried = {*FORMS, *(kind for several in kinds.values() for kind in several)}
    key = ".".join(str(part) for part in first["loc"] if part not in tried)
    if first["type"] == "extra_forbidden":
        return unknown_name("recipe key", key, keys)
    if first["type"].startswith("union_tag"):
        section = key.rstrip(".0123456789")  # one entry of a list
        return unknown_name(key, str(kind_in(first["input"])), kinds[section])
    if first["type"] == "missing":
        return f"the recipe has no {key!r}"
    if first["type"] == "value_error":  # ours: the message names the fields itself
        return str(first["ctx"]["error"])
    if first["type"] == "json_invalid":
        return f"the recipe is not valid JSON: {first['msg']}"
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return f"recipe key {key!r} cannot be {first['input']!r}: {reason}"
