"""Reading configuration: YAML files, ``section.key=value`` overrides, and errors that name every problem at once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from pretrain.errors import ConfigError, Problem, did_you_mean
from pretrain.schema import brought_name, drop_of_other_kind, hint, walk

Model = TypeVar("Model", bound=BaseModel)

# The configurations that come with the project; in a checkout and in a wheel they lie beside this package.
SHIPPED = Path(__file__).resolve().parent.parent / "configs"


def find_config(kind: str, given: Path, *, missing_ok: bool = False) -> Path:
    """``given``, or the shipped configuration of that name: find_config("study", Path("quick")).

    Raises ConfigError, listing the shipped names, where it is neither.
    """
    shipped = SHIPPED / kind / f"{given}.yaml"
    if given.exists() or (missing_ok and not shipped.is_file()):
        return given
    if shipped.is_file():
        return shipped
    folder = SHIPPED / kind
    names = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    other = [path.parent.name for path in SHIPPED.glob(f"*/{given}.yaml")]
    near = f" (there is a {other[0]} configuration of that name)" if other else did_you_mean(given.stem, names)
    raise ConfigError(str(given), [Problem("", f"no such file{near}; shipped with the project: {', '.join(names)}")])


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads numbers and booleans as YAML 1.2 does and refuses a key given twice.

    PyYAML takes 3e-1 for a string, and off, which is a setting here, for False.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {line}: got a list or mapping as a key, expected a plain word")
            key = self.construct_object(key_node, deep=True)
            if key in seen:
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
        value = yaml.load(text, Loader=_Loader)
        _refuse_circles(value, ())
        return value
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not, a circle
        raise ConfigError(source, [Problem("", f"not valid YAML: {error}")]) from error


def _refuse_circles(value: Any, above: tuple[int, ...]) -> None:
    """Raises ValueError where an anchor stands inside of what it names."""
    if isinstance(value, dict | list):
        if id(value) in above:
            raise ValueError("an anchor contains itself")
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_circles(part, (*above, id(value)))


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


def override_text(value: Any) -> str:
    """``value`` as the right side of ``key=value``, which reads it back as YAML."""
    if isinstance(value, str) and parse_yaml(value, "") == value:
        return value
    return json.dumps(value)


def deep_copy(data: Mapping[str, Any]) -> dict[str, Any]:
    """Copy of nested mappings; lists are copied, plain values shared."""
    return {
        key: deep_copy(value) if isinstance(value, Mapping) else list(value) if isinstance(value, list) else value
        for key, value in data.items()
    }


def validate(model: type[Model], data: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> Model:
    """``data`` as an instance of ``model``. Raises ConfigError with all problems at once.

    overrides: those that are in ``data`` already, so that a problem can say which of them it comes from.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_problem(model, data, detail) for detail in error.errors()]
        raise ConfigError(source, [_with_origin(problem, overrides) for problem in problems]) from None


def load(
    model: type[Model], path: Path, overrides: Sequence[str] = (), *, tell: Callable[[str], None] | None = None
) -> Model:
    """The YAML file ``path`` with ``overrides`` as an instance of ``model``. Raises ConfigError.

    An override that names another kind of a section, such as objective.name=byol, leaves out the file's settings that
    only the kind before it has; ``tell`` gets a line that says so.
    """
    before = read_yaml(path)
    data = apply_overrides(before, overrides)
    keys = [override.partition("=")[0] for override in overrides]
    dropped = drop_of_other_kind(model, before, data, keys)
    if dropped and tell is not None:
        tell(f"{path}: left out {', '.join(dropped)}, which the kind named on the command line does not have")
    return validate(model, data, str(path), overrides)


def _with_origin(problem: Problem, overrides: Sequence[str]) -> Problem:
    """``problem`` with the override that gave the value, where one did."""
    for override in reversed(overrides):
        key = override.partition("=")[0]
        if f"{problem.where}.".startswith(f"{key}.") or f"{key}.".startswith(f"{problem.where}."):
            return Problem(problem.where, f"{problem.message} [command line: {override}]")
    return problem


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
    fields, path = walk(model, data, location)
    where = ".".join(path)
    given = detail.get("input")
    if detail["type"] == "extra_forbidden":
        known = "" if brought_name(model, path) else f"; valid here: {', '.join(sorted(fields))}"
        return Problem(where, f"unknown key{hint(model, path, fields)}{known}")
    if detail["type"] == "missing":
        return Problem(where, "is required")
    message = _lower(detail["msg"]).removeprefix("value error, ")
    if detail["type"] == "value_error":
        return Problem(where, message)
    near = ""
    expected = detail.get("ctx", {}).get("expected")
    if expected is not None and isinstance(given, str):
        near = did_you_mean(given, re.findall(r"'([^']*)'", str(expected)))
    key = str(detail.get("ctx", {}).get("discriminator", "")).strip("'")
    if detail["type"] == "union_tag_not_found":
        return Problem(f"{where}.{key}", "is required: it names the kind of this section")
    if detail["type"] == "union_tag_invalid":
        tags = str(detail["ctx"]["expected_tags"])
        tag = str(detail["ctx"]["tag"])
        names = re.findall(r"'([^']*)'", tags)
        return Problem(f"{where}.{key}", f"got '{tag}', expected one of {', '.join(names)}{did_you_mean(tag, names)}")
    return Problem(where, f"got {given!r}; {message}{near}")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


PositiveInt = Annotated[int, Field(gt=0)]


PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]


NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


Probability = Annotated[float, Field(ge=0, le=1)]


Interval = Annotated[tuple[float, float], Field(strict=False)]


def _expanded(given: Any) -> Any:
    """A path with ``~`` and ``$VARIABLE`` as a shell reads them. Raises ValueError for a variable that is not set."""
    if not isinstance(given, str):
        return given
    unset = [name for name in re.findall(r"\$\{?(\w+)", given) if name not in os.environ]
    if unset:
        raise ValueError(f"got '{given}', but there is no variable ${unset[0]}")
    return os.path.expanduser(os.path.expandvars(given))


# YAML has neither tuples nor paths, so these two convert in spite of the strict schema.
FilePath = Annotated[Path, Field(strict=False), BeforeValidator(_expanded)]


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values are not converted, instances do not change.

    known_as: what other projects call a setting, to the name that it has here.
    """

    known_as: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
