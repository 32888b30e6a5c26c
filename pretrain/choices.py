"""A section that is one of several kinds: ours by name, or anybody's own by dotted path, ``package.module:Class``.

Own code is imported when the configuration that names it is read, by every command that reads it. Whether that imports
torch, on a login node too, is up to the module that is named.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Union

from pydantic import BaseModel, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from pretrain.errors import did_you_mean


def load_object(path: str) -> Any:
    """What ``package.module:name`` names. Raises ValueError with what is missing."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ValueError(f"got '{path}', expected package.module:Name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks something itself
        raise ValueError(f"got '{path}', but there is no module '{error.name}' on the path of this Python") from error
    if not hasattr(module, name):
        names = [known for known in vars(module) if not known.startswith("_")]
        raise ValueError(f"got '{path}', but {module_name} has no '{name}'{did_you_mean(name, names)}")
    return getattr(module, name)


def settings_class(path: str, base: type[BaseModel]) -> type[BaseModel]:
    """The settings behind a dotted path: the class itself if it is derived from ``base``, else its ``Config``.

    Raises ValueError where there are none.
    """
    found = load_object(path)
    for candidate in (found, getattr(found, "Config", None)):
        if isinstance(candidate, type) and issubclass(candidate, base):
            return candidate
    wanted = f"{base.__module__}.{base.__qualname__}"
    raise ValueError(f"got '{path}', expected a class with a Config, its settings, derived from {wanted}")


class OneOf:
    """Annotation of a field that holds one of ``members``, told apart by ``key``; or own code that ``key`` names.

    base: what the settings of own code are derived from. default: the member where the key is not given.
    """

    def __init__(self, base: type[BaseModel], *members: type[BaseModel], key: str = "name", default: str | None = None):
        self.base, self.members, self.key, self.default = base, members, key, default

    def own(self, given: Any) -> type[BaseModel] | None:
        """The settings of the own code that ``given`` names; None where it names none. Raises ValueError."""
        name = given.get(self.key) if isinstance(given, dict) else None
        return settings_class(name, self.base) if isinstance(name, str) and ":" in name else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kinds: Any = self.members[0]
        if len(self.members) > 1:
            kinds = Annotated[Union[self.members], Field(discriminator=self.key)]  # noqa: UP007
        inner = handler.generate_schema(kinds)
        as_it_is = core_schema.wrap_serializer_function_ser_schema(lambda x, h: h(x), schema=core_schema.any_schema())
        return core_schema.no_info_wrap_validator_function(self._validate, inner, serialization=as_it_is)

    def _validate(self, given: Any, handler: Any) -> Any:
        if isinstance(given, self.base):
            return given
        try:
            own = self.own(given)
        except ValueError as error:
            problem = PydanticCustomError("value_error", "{said}", {"said": str(error)})
            details = InitErrorDetails(type=problem, loc=(self.key,), input=given)
            raise ValidationError.from_exception_data(self.base.__name__, [details]) from error
        if own is not None:
            return own.model_validate(given)
        if isinstance(given, dict) and self.default is not None and self.key not in given:
            given = {self.key: self.default, **given}
        return handler(given)
