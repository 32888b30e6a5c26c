"""Reading configuration: YAML files, ``section.key=value`` overrides, and errors that name every problem at once."""

from __future__ import annotations

import contextlib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pretrain.choices import OneOf
from pretrain.errors import ConfigError, Problem, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads numbers and booleans as YAML 1.2 does and refuses a key given twice.

    PyYAML takes 3e-1 for a string, and off, which is a setting here, for False.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key '{key}' is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
# Integers are tried first, so that '3' stays an integer; on, off, yes and no are words.
for _resolvers in _Loader.yaml_implicit_resolvers.values():
    _resolvers[:] = [pair for pair in _resolvers if not pair[0].endswith(":bool")]
    _resolvers.sort(key=lambda pair: pair[0].endswith(":float"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def parse_yaml(text: str, source: str) -> Any:
    """Python value of a YAML text. Raises ConfigError naming ``source`` where the text is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(source, [Problem("", f"not valid YAML: {error}")]) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Mapping in the YAML file ``path``. Raises ConfigError where it is missing, unreadable or not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise ConfigError(str(path), [Problem("", f"cannot be read: {reason}")]) from error
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(str(path), [Problem("", f"expected a mapping of keys to values, got {type(value).__name__}")])
    return value


def set_by_path(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``data["a"]["b"] = value`` for ``dotted`` = "a.b", making sections that are missing; in place.

    Raises ValueError where a part of the path is a plain value and not a section.
    """
    keys = dotted.split(".")
    node = data
    for depth, key in enumerate(keys[:-1]):
        child = node.setdefault(key, {})
        if child is None:
            child = node[key] = {}
        if not isinstance(child, dict):
            raise ValueError(f"'{'.'.join(keys[: depth + 1])}' is a value, not a section")
        node = child
    node[keys[-1]] = value


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Copy of ``data`` with each ``section.key=value`` set (the value is read as YAML). Raises ConfigError."""
    result = deep_copy(data)
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key or any(not part for part in key.split(".")):
            problems.append(Problem(override, "expected section.key=value, e.g. objective.temperature=0.2"))
            continue
        try:
            set_by_path(result, key, parse_yaml(text, override))
        except (ValueError, ConfigError) as error:
            problems.append(Problem(override, str(error)))
    if problems:
        raise ConfigError("command line", problems)
    return result


def deep_copy(data: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of nested mappings; lists are copied, plain values shared."""
    return {
        key: deep_copy(value) if isinstance(value, Mapping) else list(value) if isinstance(value, list) else value
        for key, value in data.items()
    }


def validate(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """``data`` as an instance of ``model``. Raises ConfigError with all problems at once."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, [_problem(model, data, detail) for detail in error.errors()]) from None


def load(model: type[Model], path: Path, overrides: Sequence[str] = ()) -> Model:
    """The YAML file ``path`` with ``overrides`` as an instance of ``model``. Raises ConfigError."""
    return validate(model, apply_overrides(read_yaml(path), overrides), str(path))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys; an empty section stays a value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found.update(flatten(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def dump_yaml(model: BaseModel) -> str:
    """YAML text of a configuration, every value written out."""
    return yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False)


def _problem(model: type[BaseModel], data: Any, detail: ErrorDetails) -> Problem:
    location = [str(part) for part in detail["loc"]]
    fields, path = _walk(model, data, location)
    where = ".".join(path)
    given = detail.get("input")
    if detail["type"] == "extra_forbidden":
        hint = did_you_mean(path[-1], fields)
        return Problem(where, f"unknown key{hint}; valid here: {', '.join(sorted(fields))}")
    if detail["type"] == "missing":
        return Problem(where, f"is missing; {_lower(detail['msg'])}")
    message = _lower(detail["msg"]).removeprefix("value error, ")
    if detail["type"] == "value_error":
        return Problem(where, message)
    hint = ""
    expected = detail.get("ctx", {}).get("expected")
    if expected is not None and isinstance(given, str):
        hint = did_you_mean(given, re.findall(r"'([^']*)'", str(expected)))
    key = str(detail.get("ctx", {}).get("discriminator", "")).strip("'")
    if detail["type"] == "union_tag_not_found":
        return Problem(f"{where}.{key}", "is missing; expected the kind of this section")
    if detail["type"] == "union_tag_invalid":
        tags = str(detail["ctx"]["expected_tags"])
        tag = str(detail["ctx"]["tag"])
        names = re.findall(r"'([^']*)'", tags)
        return Problem(f"{where}.{key}", f"got '{tag}', expected one of {', '.join(names)}{did_you_mean(tag, names)}")
    return Problem(where, f"got {given!r}; {message}{hint}")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _walk(model: type[BaseModel], data: Any, location: Sequence[str]) -> tuple[list[str], list[str]]:
    """(keys valid beside the last part of ``location``, ``location`` without the tags that name a union's member).

    data: what was given; it names own code, whose keys are those of its settings.
    """
    fields = dict(model.model_fields)
    path: list[str] = []
    pending: list[type[BaseModel]] = []
    for part in location:
        tagged = [member for member in pending if part in _names(member)]
        if tagged and len(pending) > 1:
            pending, fields = tagged, dict(tagged[0].model_fields)
            continue
        path.append(part)
        data = data.get(part) if isinstance(data, Mapping) else None
        if part in fields:
            pending = _members(fields[part], data)
            if len(pending) == 1:
                fields = dict(pending[0].model_fields) if part != location[-1] else fields
    return list(fields), path


def _members(field: FieldInfo, data: Any) -> list[type[BaseModel]]:
    """The sections that the field may hold; of own code the one that ``data`` names."""
    choice = next((found for found in field.metadata if isinstance(found, OneOf)), None)
    if choice is None:
        return _models(field.annotation)
    own = None
    with contextlib.suppress(ValueError):
        own = choice.own(data)
    return [own] if own is not None else list(choice.members)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [found for argument in typing.get_args(annotation) for found in _models(argument)]
    return []


def _names(model: type[BaseModel]) -> tuple[Any, ...]:
    """Values that the field by which a union's members are told apart may have."""
    for key in ("name", "architecture"):
        field = model.model_fields.get(key)
        if field is not None and typing.get_origin(field.annotation) is typing.Literal:
            return typing.get_args(field.annotation)
    return ()


PositiveInt = Annotated[int, Field(gt=0)]


PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Probability = Annotated[float, Field(ge=0, le=1)]


Interval = Annotated[tuple[float, float], Field(strict=False)]


# YAML has neither tuples nor paths, so these two convert in spite of the strict schema.
FilePath = Annotated[Path, Field(strict=False)]


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values are not converted, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
