"""Walking a schema: which settings there are, which kinds a section may be of, and the names that people bring.

Torch-free. `configio` makes its hints from it, and the reference of all settings is printed from it.
"""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pretrain.choices import OneOf
from pretrain.errors import did_you_mean


@dataclass(frozen=True)
class Setting:
    """One setting, or a section of them.

    path: dotted, e.g. ``objective.temperature``. owner: the class that has the field ``name``.
    kind: the member of a union that it belongs to, e.g. ``simclr``; empty where every member has it, or there is none.
    """

    path: str
    owner: type[BaseModel]
    name: str
    field: FieldInfo
    kind: str = ""


def settings_of(model: type[BaseModel], prefix: str = "", kind: str = "") -> Iterator[Setting]:
    """Every setting of ``model``, each section before what it holds, in the order of the classes."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield Setting(path, model, name, field, kind)
        members = members_of(field, None)
        for member in members:
            label = next(iter(kind_names(member)), kind) if len(members) > 1 else kind
            yield from settings_of(member, f"{path}.", label)


def choice_of(field: FieldInfo) -> OneOf | None:
    """What the field may be one of, own code included; None for any other field."""
    return next((found for found in field.metadata if isinstance(found, OneOf)), None)


def members_of(field: FieldInfo, data: Any) -> list[type[BaseModel]]:
    """The sections that the field may hold; of own code the one that ``data`` names."""
    choice = choice_of(field)
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


def kind_names(model: type[BaseModel]) -> tuple[Any, ...]:
    """Values that the field by which a union's members are told apart may have."""
    for key in ("name", "architecture"):
        field = model.model_fields.get(key)
        if field is not None and typing.get_origin(field.annotation) is typing.Literal:
            return typing.get_args(field.annotation)
    return ()


def walk(model: type[BaseModel], data: Any, location: Sequence[str]) -> tuple[list[str], list[str]]:
    """(keys valid beside the last part of ``location``, ``location`` without the tags that name a union's member).

    data: what was given; it names own code, whose keys are those of its settings.
    """
    fields = dict(model.model_fields)
    path: list[str] = []
    pending: list[type[BaseModel]] = []
    for part in location:
        tagged = [member for member in pending if part in kind_names(member)]
        if tagged and len(pending) > 1:
            pending, fields = tagged, dict(tagged[0].model_fields)
            continue
        path.append(part)
        data = data.get(part) if isinstance(data, Mapping) else None
        if part in fields:
            pending = members_of(fields[part], data)
            if len(pending) == 1:
                fields = dict(pending[0].model_fields) if part != location[-1] else fields
    return list(fields), path


def brought_name(model: type[BaseModel], path: Sequence[str]) -> str | None:
    """What a key that another project has is called here; None where it is not known."""
    brought: Mapping[str, str] = getattr(model, "known_as", {})
    return brought.get(".".join(path), brought.get(path[-1]))


def hint(model: type[BaseModel], path: Sequence[str], beside: Sequence[str]) -> str:
    """`` (did you mean …?)`` for an unknown key: by the names people bring, equal ones elsewhere, near ones."""
    key = path[-1]
    if meant := brought_name(model, path):
        return f" (here it is {meant})"
    there = dict.fromkeys(setting.path for setting in settings_of(model) if setting.path != ".".join(path))
    same = [known for known in there if known.rpartition(".")[2] == key]
    if same:
        return f" (did you mean '{same[0]}'?)"
    return did_you_mean(key, beside) or did_you_mean(".".join(path), there)


def drop_of_other_kind(
    model: type[BaseModel], before: Mapping[str, Any], data: dict[str, Any], changed: Sequence[str]
) -> list[str]:
    """Where a changed key names another kind of its section, take out of ``data`` what was meant for the old kind:
    settings that the new one has not, or has with another default.

    before: the settings ahead of the changes; changed: dotted keys, which stay. Returns the dotted keys taken out.
    """
    dropped = []
    for key in changed:
        section, _, last = key.rpartition(".")
        choice = choice_of(model.model_fields[section]) if section in model.model_fields else None
        old, new = before.get(section), data.get(section)
        if choice is None or last != choice.key or not isinstance(old, Mapping) or not isinstance(new, dict):
            continue
        had, has = _fields_of_kind(choice, old), _fields_of_kind(choice, new)
        for name in [name for name in old if has and name in had and has.get(name, has) != had[name]]:
            path = f"{section}.{name}"
            if name in new and not any(f"{other}.".startswith(f"{path}.") for other in changed):
                del new[name]
                dropped.append(path)
    return dropped


def _fields_of_kind(choice: OneOf, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the kind that ``given`` names, with their defaults; empty where it names none that there is."""
    name = given.get(choice.key, choice.default)
    kinds = [member for member in choice.members if name in kind_names(member)]
    with contextlib.suppress(ValueError):
        kinds += [own] if (own := choice.own(dict(given))) is not None else []
    if not kinds:
        return {}
    return {name: field.default for name, field in kinds[0].model_fields.items() if name != choice.key}
