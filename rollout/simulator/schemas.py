"""The smallest value that fits a JSON schema: enough for an application's parser, no more."""

import math
from collections.abc import Mapping
from typing import Any, Final

_MAX_DEPTH: Final = 40
_MAX_VALUES: Final = 2_000
_MAX_TEXT: Final = 10_000
_FORMATS: Final[Mapping[str, str]] = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "simulated@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class SchemaError(ValueError):
    """A schema for which no small value can be found."""


def smallest(schema: object) -> Any:
    """Build a value with the required properties only.

    Raises:
        SchemaError: the schema is no object, refers to nothing, or requires too much.
    """
    return _Fitting(schema).fit(schema, 0)


class _Fitting:
    """Builds one value; counts its parts, so that no schema can ask for an endless one."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._left = _MAX_VALUES

    def fit(self, schema: object, depth: int) -> Any:
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise SchemaError("the smallest value that fits is too large, or requires itself without end")
        if isinstance(schema, bool):
            return {}
        if not isinstance(schema, Mapping):
            raise SchemaError(f"a schema must be an object, got {schema!r:.80}")
        if "$ref" in schema:
            return self.fit(self._resolve(schema["$ref"]), depth + 1)
        for name in ("const", "default"):
            if name in schema:
                return schema[name]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        for name in ("anyOf", "oneOf"):
            if isinstance(schema.get(name), list) and schema[name]:
                return self.fit(schema[name][0], depth + 1)
        if isinstance(schema.get("allOf"), list) and schema["allOf"]:
            return self._all_of(schema["allOf"], depth)
        return self._of_type(schema, depth)

    def _resolve(self, reference: object) -> object:
        found = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(f"only references inside the schema are followed, got {reference!r:.80}")
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise SchemaError(f"{reference!r:.80} refers to nothing")
            found = found[name]
        return found

    def _all_of(self, parts: list[Any], depth: int) -> Any:
        fitted = [self.fit(part, depth + 1) for part in parts]
        if all(isinstance(each, dict) for each in fitted):
            return {name: value for each in fitted for name, value in each.items()}
        return fitted[0]

    def _of_type(self, schema: Mapping[str, Any], depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        match kind:
            case "object":
                properties, required = schema.get("properties"), schema.get("required")
                properties = properties if isinstance(properties, Mapping) else {}
                names = required if isinstance(required, list) else []
                return {str(name): self.fit(properties.get(str(name), {}), depth + 1) for name in names}
            case "array":
                items = schema.get("items", {})
                return [self.fit(items, depth + 1) for _ in range(_whole(schema, "minItems"))]
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return False
            case "null":
                return None
            case _:
                return _text(schema)


def _whole(schema: Mapping[str, Any], name: str) -> int:
    value = schema.get(name, 0)
    return value if isinstance(value, int) and value > 0 else 0


def _text(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(str(schema.get("format")), "simulated")
    text = text.ljust(min(_whole(schema, "minLength"), _MAX_TEXT), ".")
    return text[: _whole(schema, "maxLength")] if "maxLength" in schema else text


def _bound(schema: Mapping[str, Any], name: str) -> float | None:
    value = schema.get(name)
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if fine else None


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    """Return 0 where it fits, else a number as near to the lower or the upper bound as is simple."""
    low, above = _bound(schema, "minimum"), _bound(schema, "exclusiveMinimum")
    high, below = _bound(schema, "maximum"), _bound(schema, "exclusiveMaximum")
    tops = [each for each in (high, below) if each is not None]
    value: float = 0
    if low is not None and low > 0:
        value = low
    elif above is not None and above >= 0:
        value = above + 1 if whole or not tops else (above + min(tops)) / 2
    elif high is not None and high < 0:
        value = high
    elif below is not None and below <= 0:
        value = below - 1
    return math.ceil(value) if whole and value >= 0 else math.floor(value) if whole else value
