"""Reading the settings: the only file that looks at the environment and ``kaizen.toml``.

Rising order: defaults, ``kaizen.toml`` in the project's root, ``KAIZEN_*`` variables, ``kaizen.configure(...)``. A key
or value that is wrong in any of them stops the start with a ConfigError. ``docs/reference/settings.md`` lists all keys.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeGuard, cast, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from kaizen.core.errors import ConfigError
from kaizen.core.protocols import Provider
from kaizen.core.spec import shorten
from kaizen.settings.tree import BUILT_IN, BY_KIND, RemoteSettings, Settings
from kaizen.settings.values import NAME

FILE: Final = "kaizen.toml"
PREFIX: Final = "KAIZEN_"
# Variables of that prefix which are no settings: KAIZEN_DATA names the data sets of tests and benchmarks.
NO_SETTINGS: Final = frozenset({"KAIZEN_DATA"})

# -- reading --------------------------------------------------------------------------------------


def load_settings(
    cwd: Path, environ: Mapping[str, str], overrides: Mapping[str, Any], *, config: Path | None = None
) -> Settings:
    """The settings of a project, with ``overrides`` before all else.

    Args:
        cwd: where to look for the project's root, upward.
        environ: the environment's variables.
        overrides: as for ``kaizen.configure``: the same tree, where a provider may also be a Provider object.
        config: the file to read instead; the project's root is its folder.

    Raises:
        ConfigError: naming for each mistake its source, its key, and the nearest right key or what is allowed; or the
            file is somebody else's.
    """
    cwd = cwd.absolute()
    file = config and (cwd / config)
    if file is None:
        file = next((found for folder in (cwd, *cwd.parents) if (found := folder / FILE).is_file()), None)
    elif not file.is_file():
        raise ConfigError(f"there is no file {file}", detail={"file": str(file)})
    draft = _Draft(root=file.parent if file else cwd)
    if file:
        _check_owner(file, cwd)
        draft.lay(_parse_file(file), str(file))
    for name, tree in _variables(environ):
        draft.lay(tree, f"variable {name}")
    draft.configure(overrides)
    return draft.settings()


def merge(base: Settings, overrides: Mapping[str, Any]) -> Settings:
    """``base`` with the keys that ``overrides`` names replaced; tables are merged key by key.

    Raises:
        ConfigError: as ``load_settings``. ``base`` is never changed.
    """
    draft = _Draft(root=base.root)
    draft.lay(base.model_dump(exclude_unset=True), "the settings before")
    draft.configure({"providers": base.custom})
    draft.configure(overrides)
    return draft.settings()


def resolve_key(provider: RemoteSettings, environ: Mapping[str, str] | None = None) -> SecretStr | None:
    """The provider's key, or None where it takes none. Called when the adapter is made, not at the start.

    Args:
        provider: its settings.
        environ: the environment's variables; the process's own for None.

    Raises:
        ConfigError: if the variable that ``api_key_env`` names is not set.
    """
    if provider.api_key is not None or provider.api_key_env is None:
        return provider.api_key
    key = (os.environ if environ is None else environ).get(provider.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"the variable {provider.api_key_env} is not set: it holds the key for {provider.base_url}",
            detail={"variable": provider.api_key_env},
        )
    return SecretStr(key)


def editor_words(environ: Mapping[str, str] | None = None) -> list[str]:
    """The command of the user's editor, as ``VISUAL`` or ``EDITOR`` has it.

    Raises:
        ConfigError: neither is set, or its quotes don't close.
    """
    given = os.environ if environ is None else environ
    name = next((name for name in ("VISUAL", "EDITOR") if given.get(name, "").strip()), None)
    if name is None:
        raise ConfigError("the variable EDITOR is not set: it names the editor to open, such as 'nano'")
    try:
        return shlex.split(given[name])
    except ValueError as error:
        raise ConfigError(f"the variable {name} is no command: {error}") from None


def resolve_secret(variable: str, setting: str, environ: Mapping[str, str] | None = None) -> SecretStr:
    """What a variable holds that a setting names.

    Raises:
        ConfigError: if it is not set.
    """
    secret = (os.environ if environ is None else environ).get(variable, "").strip()
    if not secret:
        raise ConfigError(f"the variable {variable} is not set: {setting} names it", detail={"variable": variable})
    return SecretStr(secret)


def resolve_proxy(provider: RemoteSettings, environ: Mapping[str, str] | None = None) -> SecretStr | None:
    """The proxy to reach a provider by: its own, or the one that the usual variables name, or None.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``ALL_PROXY`` count, in lower case too, unless ``NO_PROXY`` names the host or a
    domain above it. A host without a domain and a loopback address are reached directly.
    """
    if provider.proxy is not None:
        return provider.proxy
    parts = urlsplit(provider.base_url)
    host = parts.hostname or ""
    if "." not in host or host.startswith("127."):
        return None
    variables = {name.lower(): value for name, value in (os.environ if environ is None else environ).items() if value}
    direct = [name.strip().removeprefix("*.").removeprefix(".") for name in variables.get("no_proxy", "").split(",")]
    if any(name == "*" or (name and f".{host}".endswith(f".{name}")) for name in direct):
        return None
    proxy = variables.get(f"{parts.scheme}_proxy") or variables.get("all_proxy")
    return SecretStr(proxy) if proxy else None


def data_home(environ: Mapping[str, str] | None = None) -> Path:
    """The user's data folder, where pulled models lie: ``kaizen`` below ``XDG_DATA_HOME``."""
    variables = os.environ if environ is None else environ
    home = Path(variables.get("HOME") or Path.home())
    return Path(variables.get("XDG_DATA_HOME") or home / ".local" / "share") / "kaizen"


def read(overrides: Mapping[str, Any] | None = None, *, config: Path | None = None) -> Settings:
    """The settings of this process: its working directory and its environment, or the file ``config``."""
    return load_settings(Path.cwd(), os.environ, overrides or {}, config=config)


def _check_owner(file: Path, cwd: Path) -> None:
    """A file that a stranger left in a folder above, /tmp for one, would have our keys sent to an address of theirs."""
    owner = file.stat().st_uid
    if owner not in (0, os.geteuid(), cwd.stat().st_uid):
        raise ConfigError(
            f"{file} belongs to another user (id {owner}), and settings say where keys are sent: make it yours, or put "
            f"a {FILE} of your own into {cwd}",
            detail={"file": str(file)},
        )


def _parse_file(file: Path) -> dict[str, Any]:
    # The errors are raised outside the except clauses: the parser's own may hold the text, keys and all.
    text = ""
    try:
        text = file.read_text("utf-8")
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem, _, place = str(error).partition(" (at ")
        line = re.search(r"line (\d+)", place)
        where = f"{file}:{line[1] if line else text.count(chr(10)) + 1}"
    except (OSError, UnicodeDecodeError) as error:
        where, problem = str(file), (error.strerror if isinstance(error, OSError) else "is not UTF-8")
    except RecursionError:
        where, problem = str(file), "is nested too deep"
    raise ConfigError(f"{where}: {problem}", detail={"file": str(file)})


def _variables(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and tree of each variable of ours, tables before what is in them; empty ones count as not set."""
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NO_SETTINGS or not environ[name]:
            continue
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        annotation: Any = Settings
        for depth, key in enumerate(path, 1):
            keys = _keys(annotation)
            annotation = keys.get(key) or keys.get("*")
            if annotation is None or not key:
                advice = _advice(path[:depth], keys, _variable)
                raise ConfigError(f"variable {name} is no setting; {advice}", detail={"variable": name})
        value: Any = _parse_variable(name, environ[name]) if _is_tree(annotation) else environ[name]
        for key in reversed(path):
            value = {key: value}
        yield name, value


def _parse_variable(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        problem = str(error)
    except RecursionError:
        problem = "it is nested too deep"
    raise ConfigError(f"variable {name} should be JSON: {problem}", detail={"variable": name})


# -- one tree of several sources ------------------------------------------------------------------


@dataclass
class _Draft:
    """Settings in the making: sources laid over each other, each key with the source it came from."""

    root: Path
    tree: dict[str, Any] = field(default_factory=dict[str, Any])
    custom: dict[str, Provider] = field(default_factory=dict[str, Provider])
    origin: dict[tuple[str, ...], str] = field(default_factory=dict[tuple[str, ...], str])

    def __post_init__(self) -> None:
        self.lay({"providers": BUILT_IN}, "defaults")

    def configure(self, overrides: Mapping[str, Any]) -> None:
        """Lay what ``kaizen.configure`` was given, Provider objects apart."""
        tree = dict(overrides)
        given = tree.get("providers")
        if isinstance(given, Mapping):
            providers = cast("Mapping[str, Any]", given)
            tree["providers"] = {name: value for name, value in providers.items() if not _is_provider(value)}
            for name, value in providers.items():
                self.custom.pop(name, None)
                if _is_provider(value):
                    if not re.match(NAME, name):
                        raise ConfigError(f"configure(): {_dotted(('providers', name))}: should match pattern {NAME!r}")
                    self.tree["providers"].pop(name, None)
                    self.custom[name] = value
        self.lay(tree, "configure()")

    def lay(self, tree: Mapping[str, Any], source: str) -> None:
        """Replace the keys that ``tree`` names; tables are merged key by key."""
        self._lay(self.tree, tree, (), source)

    def _lay(self, below: dict[str, Any], above: Mapping[str, Any], at: tuple[str, ...], source: str) -> None:
        for key, value in above.items():
            path = (*at, str(key))
            self.origin[path] = source
            if isinstance(value, Mapping):
                if not isinstance(below.get(key), dict):
                    below[key] = {}
                self._lay(below[key], cast("Mapping[str, Any]", value), path, source)
            else:
                below[key] = value
        if at[:1] == ("providers",):
            # two ways to say one thing: the later source's way goes
            for way, other in (("api_key", "api_key_env"), ("api_key_env", "api_key")):
                if above.get(way) is not None and other not in above:
                    below.pop(other, None)

    def settings(self) -> Settings:
        """The validated tree."""
        try:
            return Settings.model_validate(self.tree, context={"root": self.root, "custom": self.custom})
        except ValidationError as error:
            found = [self._problem(item) for item in error.errors(include_url=False, include_context=False)]
        # outside the except clause, so that the error that holds the values, keys among them, is not chained
        problems = [f"{self._source(path)}: {problem}" for path, problem in found]
        lines = "\n  - ".join(problems if len(problems) == 1 else [f"{len(problems)} settings are wrong:", *problems])
        keys = [_dotted(path) for path, _ in found]
        raise ConfigError(lines, detail={"problems": problems, "keys": keys})

    def _problem(self, item: Any) -> tuple[tuple[str, ...], str]:
        """The path and the wording of one of pydantic's findings."""
        path, kind = _path(item["loc"])
        match item["type"]:
            case "extra_forbidden":
                advice = _advice(path, _keys(BY_KIND[kind] if kind else _at(path[:-1])), _dotted)
                return path, f"{_dotted(path)} is no setting; {advice}"
            case "union_tag_not_found" | "union_tag_invalid":
                path = (*path, "kind")
                return path, f"{_dotted(path)} should be one of {', '.join(BY_KIND)}"
            case "model_attributes_type" if path[0] == "providers":
                return path, f"{_dotted(path)} should be a table, or an object with complete and stream"
            case "dict_type" | "mapping_type" | "model_type" | "model_attributes_type":
                return path, f"{_dotted(path)} should be a table"
            case _:
                shown = "" if "[key]" in item["loc"] else _shown(path, item["input"])
                message = re.sub(r"^Value error, |^(Input|String) (?=should)", "", item["msg"])
                return path, f"{_dotted(path)}{shown}: {message}"

    def _source(self, path: tuple[str, ...]) -> str:
        while path and path not in self.origin:
            path = path[:-1]
        return self.origin.get(path, "settings")


def _is_provider(value: object) -> TypeGuard[Provider]:
    return not isinstance(value, Mapping | type) and all(
        callable(getattr(value, name, None)) for name in ("complete", "stream")
    )


# -- keys -----------------------------------------------------------------------------------------


def _keys(annotation: Any) -> dict[str, Any]:
    """The type of each key of a table; "*" stands for any key, and what is no table has none."""
    if get_origin(annotation) is Mapping:
        return {"*": get_args(annotation)[1]}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: info.annotation for name, info in annotation.model_fields.items()}
    found: dict[str, Any] = {}
    for part in get_args(annotation):
        found |= _keys(part)
    return found


def _is_tree(annotation: Any) -> bool:
    """Whether a variable holds it as JSON."""
    return bool(_keys(annotation)) or get_origin(annotation) is tuple


def _at(path: tuple[str, ...]) -> Any:
    annotation: Any = Settings
    for key in path:
        keys = _keys(annotation)
        annotation = keys.get(key) or keys.get("*")
    return annotation


def _paths(annotation: Any) -> Iterator[tuple[str, ...]]:
    """All keys below, tables included."""
    for key, below in _keys(annotation).items():
        yield (key,)
        for path in _paths(below):
            yield (key, *path)


def _path(loc: tuple[str | int, ...]) -> tuple[tuple[str, ...], str | None]:
    """The keys of one of pydantic's places, and the provider's kind where it went through one."""
    path = tuple(str(part) for part in loc if part != "[key]")
    if path[0] == "providers" and len(path) > 2 and path[2] in BY_KIND:
        return (*path[:2], *path[3:]), path[2]
    return path, None


def _advice(path: tuple[str, ...], keys: Mapping[str, Any], spell: Callable[[tuple[str, ...]], str]) -> str:
    """What to write instead of the last key of a path."""
    every = {spell(other): other for other in _paths(Settings) if "*" not in other}
    near = difflib.get_close_matches(spell(path), every, n=1, cutoff=0.9)
    near = near or [spell((*path[:-1], key)) for key in difflib.get_close_matches(path[-1], keys, n=1)]
    near = near or [name for name, other in every.items() if other[-1] == path[-1]]
    if near:
        return f"did you mean {near[0]}?"
    return f"allowed here: {', '.join(keys)}" if keys else f"{spell(path[:-1])} is no table"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(key if re.fullmatch(r"[\w-]+", key) else json.dumps(key) for key in path)


def _variable(path: tuple[str, ...]) -> str:
    return PREFIX + "__".join(path).upper()


def _shown(path: tuple[str, ...], value: object) -> str:
    """A wrong value, where it can't be a secret or hold one."""
    if isinstance(value, bool | int | float | str) and path[0] != "providers":
        return f" = {shorten(value)}"
    return ""
