"""What a Kubernetes API server would refuse of an object, by the OpenAPI schema of its custom resource.

Only what such schemas use: types, required, enum, pattern, lengths and bounds. Unknown fields are problems, as they are
to `kubectl create`. Rules in CEL (x-kubernetes-validations) are not evaluated.
"""

import re
from collections.abc import Iterator
from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def problems(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """A line for each problem, with the path of its field."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)):
            yield f"{path}: expected a number or a string, found {value!r}"
        return
    kind = schema.get("type", "object")
    if not isinstance(value, _TYPES[kind]) or (kind != "boolean" and isinstance(value, bool)):
        yield f"{path}: expected {kind}, found {value!r}"
    elif isinstance(value, dict):
        yield from _fields(value, schema, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], f"{path}[{index}]")
    elif value not in schema.get("enum", [value]):
        yield f"{path}: expected one of {schema['enum']}, found {value!r}"
    elif isinstance(value, str) and not _fits(value, schema):
        yield f"{path}: {value!r} does not fit {schema.get('pattern', 'its length')}"
    elif isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value} is out of bounds"


def _fields(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}: missing"
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    free = schema.get("x-kubernetes-preserve-unknown-fields") or not (known or others)
    for name, item in value.items():
        if name in known or isinstance(others, dict):
            yield from problems(item, known.get(name, others), f"{path}.{name}")
        elif not free and others is not True:
            yield f"{path}.{name}: unknown"


def _fits(text: str, schema: dict[str, Any]) -> bool:
    lengths = schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", len(text))
    return lengths and re.search(schema.get("pattern", ""), text) is not None
