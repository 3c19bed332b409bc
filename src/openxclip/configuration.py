"""Converts frozen dataclasses to and from plain values, and applies `a.b=v` overrides."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from openxclip.errors import ConfigError

T = TypeVar("T")


def require(condition: bool, message: str) -> None:
    """Check a setting.

    Raises:
        ConfigError: the condition does not hold; `message` says what is allowed.
    """
    if not condition:
        raise ConfigError(message)


def check_types(config: Any, where: str) -> None:
    """Check that the plain fields of a dataclass have their declared types; nested dataclasses check their own.

    Raises:
        ConfigError: a value has the wrong type.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not dataclasses.is_dataclass(value):
            _convert(hint, value, f"{where}.{name}")


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Inverse of `dataclasses.asdict`, also after a round trip through JSON.

    Args:
        kind: a dataclass; fields may be dataclasses, optional dataclasses, tuples and plain values.
        values: its fields by name; missing ones keep their default.
        where: dotted path for error messages.

    Raises:
        ConfigError: a key is unknown, a required one is missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or kind.__name__} must be an object with named fields, got {values!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"unknown setting {_path(where, unknown[0])}; known are {', '.join(fields)}")
    missing = [n for n, f in fields.items() if n not in values and _is_required(f)]
    if missing:
        raise ConfigError(f"setting {_path(where, missing[0])} is missing")
    return kind(**{name: _convert(hints[name], value, _path(where, name)) for name, value in values.items()})


def with_overrides(config: T, overrides: Sequence[str]) -> T:
    """A copy of a config with settings replaced, each written `a.b=value` (JSON, or a bare word as a string).

    Raises:
        ConfigError: an override has no `=`, names no setting, or its value has the wrong type.
    """
    values = dataclasses.asdict(typing.cast(Any, config))
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"cannot read {override!r}; write it as setting=value, e.g. optim.epochs=10")
        _set(values, path.strip(), _parse(text.strip()))
    return from_dict(type(config), values)


def flatten(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested values under dotted names, as in overrides."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = _path(where, name)
        flat |= flatten(value, path) if isinstance(value, Mapping) else {path: value}
    return flat


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for depth, name in enumerate(parents):
        if name not in values:
            raise ConfigError(
                f"unknown setting {'.'.join(parents[: depth + 1])}; known are {', '.join(values)}"
            )
        if values[name] is None:  # an optional part that was switched off comes back with its defaults
            values[name] = {}
        values = values[name]
        if not isinstance(values, dict):
            raise ConfigError(
                f"{'.'.join(parents[: depth + 1])} is a plain value and has no setting {leaf!r}"
            )
    values[leaf] = value


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        item_types = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(item_types) != len(value):
            raise ConfigError(f"{where} takes {len(item_types)} values, got {len(value)}: {value!r}")
        return tuple(_convert(kind, item, where) for kind, item in zip(item_types, value, strict=True))
    if origin is typing.Literal and value in arguments:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    allowed = (
        " or ".join(map(repr, arguments)) if origin is typing.Literal else getattr(hint, "__name__", hint)
    )
    raise ConfigError(f"{where} must be {allowed}, got {value!r}")


def _convert_union(alternatives: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in alternatives:
        return None
    (alternative,) = [a for a in alternatives if a is not type(None)]
    return _convert(alternative, value, where)
