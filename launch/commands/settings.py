"""`bigbatch settings`: every setting with its type, default and meaning, read from the schema and its sources.

A setting's meaning is the comment beside its field, or what its class's docstring says of it ("name: meaning." or
"``name``: meaning."), so that it is written once, where the setting is. The reference page and the shell's completion
come from here too.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from eval.config import EVALUATIONS, evaluation_class
from launch.plan.config import StudyConfig
from pretrain.config import PretrainConfig
from pretrain.configio import SHIPPED
from pretrain.errors import ConfigError, Problem, did_you_mean
from pretrain.schema import Setting, choice_of, kind_names, members_of, settings_of

LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "min_length": "values, at least"}
INDENT = 4

BASH = """_bigbatch() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$word") $(compgen -f -- "$word") )
}}
complete -o nospace -F _bigbatch bigbatch"""
# zsh reads bash's completions once it is asked to.
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def root_of(section: str, task: str | None = None) -> type[BaseModel] | None:
    """The schema that a first argument names: pretrain, study, or eval with a task; None for a part of one."""
    if section == "eval":
        return evaluation_class(task or "linear")
    schemas: dict[str, type[BaseModel]] = {"pretrain": PretrainConfig, "study": StudyConfig}
    return schemas.get(section)


def paths_of(section: str) -> list[str]:
    """Dotted path of every setting of a schema, each once, without sections."""
    root = root_of(section)
    assert root is not None, f"{section} is a schema"
    return list(dict.fromkeys(s.path for s in settings_of(root) if not members_of(s.field, None)))


def show_settings(section: str | None, task: str | None, form: str) -> None:
    """Print the settings of a schema, or of one part of the pretraining or study schema. Raises ConfigError."""
    root = root_of(section, task) if section else PretrainConfig
    prefix = "" if root is not None else section or ""
    if root is None:
        root = next((r for r in (PretrainConfig, StudyConfig) if any(_under(s, prefix) for s in settings_of(r))), None)
    if root is None:
        near = did_you_mean(prefix, [s.path for s in settings_of(PretrainConfig)])
        message = f"got '{prefix}'{near}, expected pretrain, study, eval TASK, or a part of these, e.g. objective"
        raise ConfigError("settings", [Problem("section", message)])
    found = [setting for setting in settings_of(root) if _under(setting, prefix)]
    lines = {"text": _text, "markdown": _markdown, "yaml": _yaml, "keys": _keys}[form](found)
    print("\n".join(lines))


def reference() -> str:
    """docs/reference/settings.md: every setting of every schema."""
    parts = ["# Settings", "", "Printed by `bigbatch settings`; each is `section.key=value` on a command line.", ""]
    schemas: list[tuple[str, type[BaseModel]]] = [("Pretraining", PretrainConfig), ("Studies", StudyConfig)]
    schemas += [(f"Evaluation: {task}", evaluation_class(task)) for task in EVALUATIONS]
    for title, root in schemas:
        parts += [f"## {title}", "", *_markdown(list(settings_of(root))), ""]
    return "\n".join(parts)


def _under(setting: Setting, prefix: str) -> bool:
    return not prefix or f"{setting.path}.".startswith(f"{prefix}.")


def type_of(setting: Setting) -> str:
    """Its type as a person writes it, with its bounds: ``number above 0``, ``lars | sgd | adamw``."""
    names = [str(name) for member in members_of(setting.field, None) for name in kind_names(member)]
    if names:
        own = " | package.module:Name" if choice_of(setting.field) is not None else ""
        return "section: " + " | ".join(names) + own
    if members_of(setting.field, None):
        return "section"
    bounds = [(key, getattr(entry, key)) for entry in setting.field.metadata for key in LIMITS if hasattr(entry, key)]
    limits = " and ".join(f"{LIMITS[key]} {value:g}" for key, value in bounds if value is not None)
    return f"{_type_text(setting.field.annotation)} {limits}".strip()


def _type_text(annotation: Any) -> str:
    plain = {int: "integer", float: "number", str: "text", bool: "true | false", Path: "path", type(None): "null"}
    if annotation in plain:
        return plain[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin is typing.Annotated:
        bounds = [
            (key, getattr(e, key))
            for entry in arguments[1:]
            for e in _entries(entry)
            for key in LIMITS
            if hasattr(e, key)
        ]
        limits = " and ".join(f"{LIMITS[key]} {value:g}" for key, value in bounds if value is not None)
        return f"{_type_text(arguments[0])} {limits}".strip()
    if origin is tuple:
        return (
            "[low, high]"
            if len(arguments) == 2 and arguments[1] is not Ellipsis
            else f"list of {_type_text(arguments[0])}"
        )
    if origin is list:
        return f"list of {_type_text(arguments[0])}"
    if origin is dict:
        return "mapping"
    if arguments:
        return " | ".join(dict.fromkeys(_type_text(argument) for argument in arguments))
    return "section" if isinstance(annotation, type) and issubclass(annotation, BaseModel) else "any"


def _entries(entry: Any) -> list[Any]:
    return [entry, *getattr(entry, "metadata", [])]


def default_of(setting: Setting) -> str:
    """Its default as YAML writes it; ``required`` where it has none; of a section, what is not its class's default."""
    value = None if setting.field.is_required() else setting.field.get_default(call_default_factory=True)
    if members_of(setting.field, None):
        fields = type(value).model_fields if isinstance(value, BaseModel) else {}
        usual = {name: field.default for name, field in fields.items()}
        other = {name: getattr(value, name) for name, of_class in usual.items() if getattr(value, name) != of_class}
        return "{" + ", ".join(f"{name}: {said}" for name, said in other.items()) + "}" if other else ""
    if setting.field.is_required():
        return "required"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(list(value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def meaning_of(setting: Setting) -> str:
    """What it means: from its field's comment, or its class's docstring; of a section, the docstring's first line."""
    members = members_of(setting.field, None)
    said = _meanings(setting.owner).get(setting.name, "")
    if not said and len(members) == 1:
        said = (inspect.getdoc(members[0]) or "").split("\n\n")[0].split("\n")[0]
    return said


@cache
def _meanings(owner: type[BaseModel]) -> dict[str, str]:
    """Meaning by field of the class and of those it is derived from."""
    found: dict[str, str] = {}
    for base in [b for b in reversed(owner.__mro__) if issubclass(b, BaseModel) and b is not BaseModel]:
        found.update(_in_docstring(inspect.getdoc(base) or "", list(base.model_fields)))
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):
            continue
        found.update(_in_comments(source, set(base.model_fields)))
    return found


def _in_comments(source: str, fields: set[str]) -> dict[str, str]:
    """Comments on the line of a field, or on whole lines just above it."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("#"):
            above.append(text.lstrip("# "))
            continue
        field = re.match(r"(\w+)\s*:", text)
        if field and field.group(1) in fields:
            beside = re.search(r"\s{2}# (.*)$", line)
            said = beside.group(1) if beside and "noqa" not in beside.group(1) else " ".join(above)
            if said and "type: ignore" not in said:
                found[field.group(1)] = said
        above = []
    return found


def _in_docstring(text: str, fields: list[str]) -> dict[str, str]:
    """Sentences of the form ``name: meaning.`` after the first paragraph or line."""
    body = " ".join(text.split())
    names = "|".join(sorted(map(re.escape, fields), key=len, reverse=True))
    if not names:
        return {}
    starts = list(re.finditer(rf"(?:(?<=[.;:] )|(?<=^))`{{0,2}}({names})`{{0,2}}: ", body))
    found = {}
    for start, following in zip(starts, [*starts[1:], None]):
        said = body[start.end() : following.start() if following else len(body)].strip()
        found[start.group(1)] = said.rstrip(".;") if following else said.split(". ")[0].rstrip(".")
    return found


def _rows(found: list[Setting]) -> Iterator[tuple[Setting, str]]:
    """Every setting once, with the kinds that have it where not all have."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    first: dict[tuple[str, str, str], Setting] = {}
    for setting in found:
        key = (setting.path, type_of(setting), default_of(setting))
        first.setdefault(key, setting)
        kinds.setdefault(key, []).extend([setting.kind] if setting.kind else [])
    for key, setting in first.items():
        if setting.name not in ("name", "architecture") or not setting.kind:
            yield setting, ", ".join(dict.fromkeys(kinds[key]))


def _text(found: list[Setting]) -> list[str]:
    lines = []
    for setting, kinds in _rows(found):
        default = default_of(setting)
        value, of_kinds = f" = {default}" if default else "", f"  [{kinds}]" if kinds else ""
        lines.append(f"{setting.path}{value}   ({type_of(setting)}){of_kinds}")
        lines += textwrap.wrap(meaning_of(setting), 110, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT)
    return lines


def _markdown(found: list[Setting]) -> list[str]:
    lines = ["| setting | default | type | meaning |", "|---|---|---|---|"]
    for setting, kinds in _rows(found):
        cells = (f"`{setting.path}`", default_of(setting), type_of(setting), meaning_of(setting))
        of_kinds = f" (of {kinds})" if kinds else ""
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + of_kinds + " |")
    return lines


def _keys(found: list[Setting]) -> list[str]:
    return list(dict.fromkeys(s.path for s in found if not members_of(s.field, None)))


def _yaml(found: list[Setting]) -> list[str]:
    """A commented YAML file with every default; of unions the first kind."""
    lines: list[str] = []
    seen: set[str] = set()
    kinds: dict[str, str] = {}  # the first kind of each section
    for setting in found:
        section = setting.path.partition(".")[0]
        if setting.kind and kinds.setdefault(section, setting.kind) != setting.kind:
            continue
        if setting.path in seen:
            continue
        seen.add(setting.path)
        indent = "  " * setting.path.count(".")
        said = meaning_of(setting)
        lines += [f"{indent}# {line}" for line in textwrap.wrap(said, 100)]
        value = "" if members_of(setting.field, None) else default_of(setting)
        lines.append(f"{indent}{setting.name}:{f' {value}' if value else ''}  # {type_of(setting)}")
    return lines


def completion_script(shell: str, options: Mapping[str, Sequence[str]]) -> str:
    """The completion script of ``shell``, bash or zsh; options: words that may follow each command."""
    kinds = {"study": "study", "plan": "study", "pretrain": "pretrain"}
    keys = {"pretrain": [f"{path}=" for path in paths_of("pretrain")]}
    keys["study"] = keys["plan"] = [f"{path}=" for path in paths_of("study")]
    cases = []
    for name, words in options.items():
        folder = SHIPPED / kinds[name] if name in kinds else None
        names = sorted(path.stem for path in folder.glob("*.yaml")) if folder is not None else []
        cases.append(f'            {name}) words="{" ".join([*words, *names, *keys.get(name, [])])}";;')
    text = BASH.format(commands=" ".join(options), cases="\n".join(cases))
    return (ZSH if shell == "zsh" else "") + text
