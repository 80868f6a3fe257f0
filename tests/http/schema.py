"""As much of JSON Schema as the description of the API uses."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_KNOWN = {
    "$ref", "additionalProperties", "allOf", "const", "description", "enum", "items", "maxItems", "maxLength",
    "maximum", "minLength", "minimum", "oneOf", "pattern", "properties", "required", "type",
}  # fmt: skip


def faults(value: Any, schema: dict[str, Any], document: dict[str, Any], at: str = "$") -> list[str]:
    """What in ``value`` is not as ``schema`` says. Raises AssertionError for a keyword that is not known here."""
    assert not schema.keys() - _KNOWN, f"{at}: unknown keywords {schema.keys() - _KNOWN}"
    found: list[str] = []

    def demand(holds: bool, what: str) -> None:
        if not holds:
            found.append(f"{at}: {what}, not {value!r:.80}")

    if "$ref" in schema:
        found += faults(value, resolve(schema["$ref"], document), document, at)
    for part in schema.get("allOf", ()):
        found += faults(value, part, document, at)
    if "oneOf" in schema:
        demand(sum(not faults(value, part, document, at) for part in schema["oneOf"]) == 1, "exactly one of oneOf")
    if "const" in schema:
        demand(value == schema["const"], f"must be {schema['const']!r}")
    if "enum" in schema:
        demand(value in schema["enum"], f"must be one of {schema['enum']}")
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        demand(any(_is(value, name) for name in names), f"must be {' or '.join(names)}")
    match value:
        case str():
            demand(
                schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)), "has a wrong length"
            )
            demand(re.search(schema.get("pattern", ""), value) is not None, f"must match {schema.get('pattern')}")
        case int() | float():
            demand(schema.get("minimum", value) <= value <= schema.get("maximum", value), "is out of bounds")
        case list():
            demand(len(value) <= schema.get("maxItems", len(value)), "has too many items")
            for index, item in enumerate(value):
                found += faults(item, schema.get("items", {}), document, f"{at}[{index}]")
        case dict():
            properties = schema.get("properties", {})
            for name in schema.get("required", ()):
                demand(name in value, f"{name} is missing")
            if schema.get("additionalProperties", True) is False:
                demand(not value.keys() - properties.keys(), f"unknown: {value.keys() - properties.keys()}")
            for name in value.keys() & properties.keys():
                found += faults(value[name], properties[name], document, f"{at}.{name}")
    return found


def resolve(ref: str, document: dict[str, Any]) -> dict[str, Any]:
    """What a ``$ref`` names. Raises KeyError."""
    place: Any = document
    for name in ref.removeprefix("#/").split("/"):
        place = place[name]
    schema: dict[str, Any] = place
    return schema


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
