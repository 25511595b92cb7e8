"""The kinds of values that settings have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo

NAME: Final = r"^[A-Za-z0-9_.-]+$"

T = TypeVar("T", bound=BaseModel)


def _rooted(path: Path, info: ValidationInfo) -> Path:
    """A relative path starts at the project's root, whatever the working directory is."""
    context = cast("Mapping[str, Any]", info.context or {})
    return context.get("root", Path()) / path.expanduser()


def _ref(text: str) -> str:
    provider, _, model = text.partition("/")
    if not provider or not model:
        raise ValueError("should read provider/model, such as embedded/smollm2-135m")
    return text


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be an address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("should hold no credential and no query; a key goes to api_key_env")
    return text.rstrip("/")


RootedPath: TypeAlias = Annotated[Path, AfterValidator(_rooted)]
Ref: TypeAlias = Annotated[str, AfterValidator(_ref)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=NAME)]
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Dollars: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Table(BaseModel):
    """A table of settings."""

    # hide_input: an error that escapes us must not show what may be a key
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())


def shared(table: T) -> T:
    """A table as the default of a field. It is frozen, so that one instance does for all: pydantic would copy it."""
    return Field(default_factory=lambda: table)
