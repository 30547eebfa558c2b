"""TOML to frozen dataclasses and back; an unknown key is an error that names the nearest one."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, where, and what to write."""


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A hint: the nearest known word, and the whole list."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a table, got {value!r}")
        return from_dict(kind, value, where)
    if origin is tuple:
        arguments = typing.get_args(kind)
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
        if len(arguments) != len(value):
            raise ConfigError(f"{where}: expected {len(arguments)} items, got {len(value)}")
        pairs = enumerate(zip(arguments, value, strict=True))
        return tuple(_convert(a, item, f"{where}[{i}]") for i, (a, item) in pairs)
    if origin is dict:
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise ConfigError(f"{where}: expected {kind.__name__}, got {value!r}")
    if kind is int and isinstance(value, bool):
        raise ConfigError(f"{where}: expected int, got {value!r}")
    return value


def from_dict(cls: type[T], data: dict[str, Any], where: str = "") -> T:
    """Build a dataclass from a plain dictionary.

    Raises:
        ConfigError: an unknown, missing or ill-typed key.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown key {prefix}{key!r}: {nearest(key, known)}")
    values = {key: _convert(hints[key], value, f"{prefix}{key}") for key, value in data.items()}
    for name, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"missing key {prefix}{name!r}")
    return cls(**values)


def to_dict(value: Any) -> Any:
    """Plain lists and dictionaries, None left out, ready for TOML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {key: item for key, item in pairs.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_dict(item) for key, item in value.items()}
    return value


def load_toml(cls: type[T], path: Path) -> T:
    """Read one dataclass from a TOML file.

    Raises:
        ConfigError: the file is missing, not TOML, or does not fit `cls`.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"no such file: {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        return from_dict(cls, data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def save_toml(value: Any, path: Path) -> None:
    """Write one dataclass as TOML."""
    path.write_text(tomli_w.dumps(to_dict(value)))
