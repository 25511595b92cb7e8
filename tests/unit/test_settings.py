"""Every source, their order, and what a mistake in each of them says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from kaizen.core.errors import ConfigError
from kaizen.core.request import Chunk, Reply, Request
from kaizen.settings import (
    AnthropicSettings,
    EmbeddedSettings,
    LiteLLMSettings,
    ModelSettings,
    OpenAISettings,
    Settings,
    data_home,
    editor_words,
    load_settings,
    merge,
    read,
    resolve_key,
    resolve_proxy,
)
from kaizen.settings.layers import CascadeSettings

DOCUMENTED = """
model = "mine/large"
[providers.mine]
kind = "openai"
base_url = "http://127.0.0.1:8099/v1"
api_key_env = "MINE_API_KEY"
[models."mine/large"]
input_usd_per_mtok = 10.0
output_usd_per_mtok = 30.0
"""


class Mine:
    """A provider of the user's own; its repr holds what must not be shown."""

    def __repr__(self) -> str:
        return "sk-in-a-repr"

    async def complete(self, request: Request, /) -> Reply:
        return Reply(model=request.model)

    async def stream(self, request: Request, /) -> AsyncGenerator[Chunk]:
        yield Chunk(reply=await self.complete(request))


def load(folder: Path, toml: str = "", environ: Mapping[str, str] = {}, **overrides: Any) -> Settings:
    (folder / "kaizen.toml").write_text(toml)
    return load_settings(folder, environ, overrides)


def mistake(folder: Path, toml: str = "", environ: Mapping[str, str] = {}, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, toml, environ, **overrides)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.detail)
    assert "sk-" not in shown
    error: BaseException | None = caught.value
    assert error.__context__ is None  # what we caught may hold the values
    return str(caught.value).replace(str(folder / "kaizen.toml"), "FILE")


# -- sources --------------------------------------------------------------------------------------


def test_what_there_is_without_any(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {}, {})
    assert settings.model is None
    assert (settings.root, settings.home) == (tmp_path, tmp_path / ".kaizen")
    assert (settings.tenant, settings.environment) == ("local", "dev")
    assert settings.inference.attempts == 3
    assert settings.ledger.payloads is True
    assert settings.custom == {}
    assert settings.providers == {
        "embedded": EmbeddedSettings(kind="embedded"),
        "openai": OpenAISettings(kind="openai", base_url="https://api.openai.com/v1", api_key_env="OPENAI_API_KEY"),
        "anthropic": AnthropicSettings(
            kind="anthropic", base_url="https://api.anthropic.com/v1", api_key_env="ANTHROPIC_API_KEY"
        ),
        "ollama": OpenAISettings(kind="openai", base_url="http://127.0.0.1:11434/v1"),
        "gemini": OpenAISettings(
            kind="openai",
            base_url="https://generativelanguage.googleapis.com/v1beta/openai",
            api_key_env="GEMINI_API_KEY",
        ),
        "litellm": LiteLLMSettings(kind="litellm"),
    }
    assert Settings().providers == settings.providers


def test_the_documented_file(tmp_path: Path) -> None:
    settings = load(tmp_path, DOCUMENTED)
    assert settings.model == "mine/large"
    mine = settings.providers["mine"]
    assert isinstance(mine, OpenAISettings)
    assert (mine.base_url, mine.api_key_env, mine.api) == ("http://127.0.0.1:8099/v1", "MINE_API_KEY", "chat")
    assert settings.models["mine/large"].output_usd_per_mtok == 30.0
    assert "openai" in settings.providers


def test_each_source_goes_before_the_ones_below(tmp_path: Path) -> None:
    toml = "[inference]\nattempts = 4\nbackoff = 0.1\nbackoff_max = 1.0\n"
    environ = {"KAIZEN_INFERENCE__ATTEMPTS": "5", "KAIZEN_INFERENCE__BACKOFF": "0.2"}
    inference = load(tmp_path, toml, environ, inference={"attempts": 6}).inference
    assert (inference.attempts, inference.backoff, inference.backoff_max) == (6, 0.2, 1.0)
    assert inference.retry_after_max == 60.0


def test_the_root_is_the_nearest_folder_with_a_file(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "kaizen.toml").write_text('home = "state"\n[providers.embedded.models]\nbig = "w/big.gguf"\n')
    settings = load_settings(below, {}, {})
    assert (settings.root, settings.home) == (tmp_path, tmp_path / "state")
    embedded = settings.providers["embedded"]
    assert isinstance(embedded, EmbeddedSettings)
    assert embedded.models == {"big": tmp_path / "w" / "big.gguf"}
    (tmp_path / "a" / "kaizen.toml").write_text("")
    assert load_settings(below, {}, {}).root == tmp_path / "a"


def test_a_file_of_somebody_elses_in_a_folder_above_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, below = tmp_path / "kaizen.toml", tmp_path / "below"
    file.write_text('[providers.openai]\nbase_url = "http://theirs.example/v1"\n')
    if os.geteuid() == 0:
        os.chown(file, 12_345, -1)
        below.mkdir()
    else:  # a folder of root's, and we are another
        below.symlink_to("/")
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to another user") as caught:
        load_settings(below, {}, {})
    assert str(file) in str(caught.value)
    os.chown(tmp_path, file.stat().st_uid, -1)
    load_settings(tmp_path, {}, {})  # who works in somebody's folder trusts them


def test_relative_paths_start_at_the_root_and_a_tilde_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert load(tmp_path, "", {"KAIZEN_HOME": "here"}).home == tmp_path / "here"
    assert load(tmp_path, "", {"KAIZEN_HOME": "/there"}).home == Path("/there")
    assert load(tmp_path, 'home = "~/k"').home == tmp_path / "me" / "k"


def test_variables_are_parsed_by_the_type_of_their_key(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "",
        {
            "KAIZEN_MODEL": "mine/large",
            "KAIZEN_LEDGER__PAYLOADS": "false",
            "KAIZEN_DEFAULTS__TEMPERATURE": "0",
            "KAIZEN_DEFAULTS__STOP": '["END", "."]',
            "KAIZEN_LOG": '{"level": "info"}',
            "KAIZEN_MODELS": '{"mine/large": {"output_mode": "json"}}',
            "KAIZEN_PROVIDERS__MINE": '{"kind": "openai", "api": "responses"}',
            "KAIZEN_PROVIDERS__MINE__BASE_URL": "http://127.0.0.1:1/v1/",
            "KAIZEN_TENANT": "",
            "KAIZEN_DATA": "/data",
            "OTHER": "x",
        },
    )
    assert settings.model == "mine/large"
    assert settings.ledger.payloads is False
    assert (settings.defaults.temperature, settings.defaults.stop) == (0.0, ("END", "."))
    assert settings.log.level == "info"
    assert settings.models["mine/large"].output_mode == "json"
    mine = settings.providers["mine"]
    assert isinstance(mine, OpenAISettings)
    assert (mine.api, mine.base_url) == ("responses", "http://127.0.0.1:1/v1")
    assert settings.tenant == "local"


def test_read_takes_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kaizen.toml").write_text('tenant = "of-the-file"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAIZEN_ENVIRONMENT", "of-the-variable")
    settings = read({"log": {"level": "error"}})
    assert (settings.tenant, settings.environment, settings.log.level) == (
        "of-the-file",
        "of-the-variable",
        "error",
    )
    assert read().log.level == "off"


# -- configure ------------------------------------------------------------------------------------


def test_a_later_call_replaces_what_it_names(tmp_path: Path) -> None:
    first = load(tmp_path, DOCUMENTED, defaults={"temperature": 0.5, "seed": 1})
    second = merge(first, {"defaults": {"temperature": 0.0}, "providers": {"mine": {"api": "responses"}}})
    assert (second.defaults.temperature, second.defaults.seed) == (0.0, 1)
    mine = second.providers["mine"]
    assert isinstance(mine, OpenAISettings)
    assert (mine.api, mine.base_url) == ("responses", "http://127.0.0.1:8099/v1")
    assert (second.root, second.home, second.model) == (tmp_path, tmp_path / ".kaizen", "mine/large")
    assert first.defaults.temperature == 0.5
    assert merge(second, {"model": None}).model is None


def test_a_failed_call_changes_nothing(tmp_path: Path) -> None:
    first = load(tmp_path, DOCUMENTED, providers={"own": Mine()})
    before = first.model_copy(deep=True)
    with pytest.raises(ConfigError, match="configure"):
        merge(first, {"model": "other/x", "providers": {"own": {"kind": "nothing"}}})
    assert first.model_dump() == before.model_dump()
    assert set(first.custom) == {"own"}


def test_merging_keeps_a_tree_made_by_hand() -> None:
    settings = merge(Settings(model="a/b"), {"tenant": "t"})
    assert (settings.model, settings.tenant) == ("a/b", "t")
    assert "ollama" in settings.providers


def test_provider_objects_stand_apart_and_survive(tmp_path: Path) -> None:
    mine, other = Mine(), Mine()
    settings = load(tmp_path, "", providers={"mine": mine, "openai": other, "ollama": {"api_key": "sk-1"}})
    assert settings.custom == {"mine": mine, "openai": other}
    assert set(settings.providers) == {"embedded", "anthropic", "ollama", "gemini", "litellm"}
    assert "sk-in-a-repr" not in repr(settings)
    later = merge(settings, {"tenant": "t", "providers": {"mine": {"kind": "anthropic"}}})
    assert later.custom == {"openai": other}
    assert set(later.providers) == {"embedded", "anthropic", "ollama", "gemini", "litellm", "mine"}
    assert merge(later, {"providers": {"mine": mine}}).custom == {"openai": other, "mine": mine}


def test_a_settings_value_is_taken_as_a_table(tmp_path: Path) -> None:
    value = OpenAISettings(kind="openai", api_key=SecretStr("sk-1"))
    assert load(tmp_path, "", providers={"mine": value}).providers["mine"] == value


def test_the_tree_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().model = "x/y"  # type: ignore[misc]


# -- keys of providers ----------------------------------------------------------------------------


def remote(settings: Settings, name: str) -> OpenAISettings | AnthropicSettings:
    provider = settings.providers[name]
    assert not isinstance(provider, EmbeddedSettings)
    return provider


def test_a_key_is_read_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(tmp_path)
    openai = remote(settings, "openai")
    key = resolve_key(openai, {"OPENAI_API_KEY": " sk-1\n"})
    assert key is not None
    assert key.get_secret_value() == "sk-1"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-2")
    key = resolve_key(openai)
    assert key is not None
    assert key.get_secret_value() == "sk-2"
    assert resolve_key(remote(settings, "ollama"), {}) is None
    own = remote(merge(settings, {"providers": {"openai": {"api_key": "sk-3"}}}), "openai")
    assert resolve_key(own, {}) == SecretStr("sk-3")


@pytest.mark.parametrize("environ", [{}, {"ANTHROPIC_API_KEY": " "}])
def test_a_missing_key_names_its_variable(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set") as caught:
        resolve_key(remote(load(tmp_path), "anthropic"), environ)
    assert caught.value.detail == {"variable": "ANTHROPIC_API_KEY"}


def test_the_later_way_to_give_a_key_replaces_the_other(tmp_path: Path) -> None:
    settings = load(tmp_path, '[providers.openai]\napi_key = "sk-1"')
    assert remote(settings, "openai").api_key_env is None
    settings = merge(settings, {"providers": {"openai": {"api_key_env": "OTHER"}}})
    assert remote(settings, "openai").api_key is None
    settings = load(tmp_path, "", {"KAIZEN_PROVIDERS__OPENAI__API_KEY": "sk-2"})
    assert resolve_key(remote(settings, "openai"), {}) == SecretStr("sk-2")


def test_a_key_is_in_no_repr(tmp_path: Path) -> None:
    settings = load(tmp_path, '[providers.mine]\nkind = "openai"\napi_key = "sk-1"')
    assert "sk-1" not in repr(settings) + str(settings) + repr(settings.providers) + str(settings.model_dump())


@pytest.mark.parametrize(
    ("base_url", "environ", "proxy"),
    [
        ("https://a.example/v1", {}, None),
        ("https://a.example/v1", {"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        ("http://a.example/v1", {"HTTPS_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "http://q:1"),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "NO_PROXY": "b.example"}, "http://p:1"),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "NO_PROXY": "x, a.example"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "no_proxy": ".example"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "no_proxy": "*.example"}, None),
        ("https://a.example/v1", {"ALL_PROXY": "http://p:1", "no_proxy": "*"}, None),
        ("https://notexample/v1", {"ALL_PROXY": "http://p:1"}, None),
        ("http://127.0.0.1:1/v1", {"ALL_PROXY": "http://p:1"}, None),
    ],
)
def test_the_way_through_a_proxy(base_url: str, environ: dict[str, str], proxy: str | None) -> None:
    found = resolve_proxy(OpenAISettings(kind="openai", base_url=base_url), environ)
    assert (found and found.get_secret_value()) == proxy


def test_a_providers_own_proxy_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    own = OpenAISettings(kind="openai", proxy=SecretStr("http://me:sk-1@p:2"))
    assert resolve_proxy(own) is own.proxy
    assert "sk-1" not in repr(own)
    assert resolve_proxy(OpenAISettings(kind="openai")) is not None


def test_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_home({"XDG_DATA_HOME": "/d", "HOME": "/h"}) == Path("/d/kaizen")
    assert data_home({"HOME": "/h"}) == Path("/h/.local/share/kaizen")
    monkeypatch.setenv("XDG_DATA_HOME", "/e")
    assert data_home() == Path("/e/kaizen")
    assert data_home({}) == Path.home() / ".local" / "share" / "kaizen"


def test_a_key_is_in_no_error_of_pydantics_own() -> None:
    with pytest.raises(ValidationError) as caught:
        OpenAISettings(kind="openai", api_key=SecretStr("sk-1"), base_url="sk-2")
    assert "sk-" not in str(caught.value)


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[inference]\natempts = 3", "inference.atempts is no setting; did you mean inference.attempts?"),
        ("attempts = 3", "attempts is no setting; did you mean inference.attempts?"),
        ("[ledger]\nxyzzy = 3", "ledger.xyzzy is no setting; allowed here: payloads"),
        (
            "custom = 3",
            "custom is no setting; allowed here: model, home, tenant, environment, providers, models, "
            "aliases, inference, server, storage, telemetry, auth, limits, defaults, ledger, log",
        ),
        ("[inference]\nattempts = 0", "inference.attempts = 0: should be greater than or equal to 1"),
        ("[inference]\nbackoff = inf", "inference.backoff = inf: should be a finite number"),
        ("[log]\nlevel = 'loud'", "log.level = 'loud': should be 'debug', 'info', 'warning', 'error' or 'off'"),
        ("model = 'gpt'", "model = 'gpt': should read provider/model, such as embedded/smollm2-135m"),
        ("log = 3", "log should be a table"),
        ("models = 3", "models should be a table"),
        ("tenant = 'a/b'", "tenant = 'a/b': should match pattern '^[A-Za-z0-9_.-]+$'"),
        ("[models.x]\noutput_mode = 'json'", "models.x: should read provider/model, such as embedded/smollm2-135m"),
        ("[models.'a/b']\noutput_mode = 'x'", "models.\"a/b\".output_mode = 'x': should be 'schema', 'json' or 'text'"),
        (
            "[models.'a/b']\ncached_input_usd_per_mtok = 1",
            'models."a/b": a price needs both input_usd_per_mtok and output_usd_per_mtok',
        ),
        (
            "[models.'a/b']\ninput_usd_per_mtok = -1\noutput_usd_per_mtok = 1",
            'models."a/b".input_usd_per_mtok = -1: should be greater than or equal to 0',
        ),
        ("[defaults]\nstop = ['a', '']", "defaults.stop.1 = '': should have at least 1 character"),
        (
            "[providers.mine]\nbase_url = 'http://x.example'",
            "providers.mine.kind should be one of openai, anthropic, embedded, litellm",
        ),
        (
            "[providers.mine]\nkind = 'sk-1'",
            "providers.mine.kind should be one of openai, anthropic, embedded, litellm",
        ),
        (
            "[providers.mine]\nkind = 'embedded'\nbase_url = 'http://x'",
            "providers.mine.base_url is no setting; allowed here: kind, models, threads, slots, context",
        ),
        (
            "[providers.openai]\nbaseurl = 'sk-1'",
            "providers.openai.baseurl is no setting; did you mean providers.openai.base_url?",
        ),
        ("[providers]\nmine = 'sk-1'", "providers.mine should be a table, or an object with complete and stream"),
        ("[providers.openai]\napi_key = 17171717", "providers.openai.api_key: should be a valid string"),
        (
            "[providers.openai]\nbase_url = 'sk-1'",
            "providers.openai.base_url: should be an address such as http://127.0.0.1:8000/v1",
        ),
        (
            "[providers.openai]\nbase_url = 'https://me:sk-1@x.example'",
            "providers.openai.base_url: should hold no credential and no query; a key goes to api_key_env",
        ),
        (
            "[providers.openai]\napi_key = 'sk-1'\napi_key_env = 'X'",
            "providers.openai: give api_key or api_key_env, not both",
        ),
        ("[providers.'a/b']\nkind = 'openai'", "providers.\"a/b\": should match pattern '^[A-Za-z0-9_.-]+$'"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, toml: str, says: str) -> None:
    assert mistake(tmp_path, toml) == f"FILE: {says}"


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("model = 'a/b'\n[inference\n", "Expected ']' at the end of a table declaration"),
        ("[inference]\nattempts =", "Invalid value"),
        ("[providers.openai]\napi_key = 'sk-1", 'Expected "\'"'),
    ],
)
def test_a_broken_file_names_the_line(tmp_path: Path, toml: str, says: str) -> None:
    assert mistake(tmp_path, toml) == f"FILE:2: {says}"


def test_all_mistakes_at_once_each_with_its_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "modle = 'a/b'", {"KAIZEN_INFERENCE__ATTEMPTS": "many"}, log={"levl": "info"})
    assert caught.value.detail["keys"] == ["inference.attempts", "log.levl", "modle"]
    assert str(caught.value).splitlines() == [
        "3 settings are wrong:",
        "  - variable KAIZEN_INFERENCE__ATTEMPTS: inference.attempts = 'many': "
        "should be a valid integer, unable to parse string as an integer",
        "  - configure(): log.levl is no setting; did you mean log.level?",
        f"  - {tmp_path / 'kaizen.toml'}: modle is no setting; did you mean model?",
    ]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("KAIZEN_MODLE", "a/b", " is no setting; did you mean KAIZEN_MODEL?"),
        ("KAIZEN_TEMPERATURE", "0", " is no setting; did you mean KAIZEN_DEFAULTS__TEMPERATURE?"),
        ("KAIZEN_INFERENCE_ATTEMPTS", "2", " is no setting; did you mean KAIZEN_INFERENCE__ATTEMPTS?"),
        ("KAIZEN_INFERENCE__ATEMPTS", "2", " is no setting; did you mean KAIZEN_INFERENCE__ATTEMPTS?"),
        ("KAIZEN_MODEL__X", "2", " is no setting; KAIZEN_MODEL is no table"),
        ("KAIZEN_LEDGER__", "2", " is no setting; did you mean KAIZEN_LEDGER?"),
        ("KAIZEN_PROVIDERS__MINE__API_KEI", "sk-1", " is no setting; did you mean KAIZEN_PROVIDERS__MINE__API_KEY?"),
        (
            "KAIZEN_PROVIDERS",
            "{sk-1",
            " should be JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ("KAIZEN_DEFAULTS__STOP", "END", " should be JSON: Expecting value: line 1 column 1 (char 0)"),
        (
            "KAIZEN_LEDGER__PAYLOADS",
            "perhaps",
            ": ledger.payloads = 'perhaps': should be a valid boolean, unable to interpret input",
        ),
        (
            "KAIZEN_PROVIDERS__OPENAI__BASE_URL",
            "sk-1",
            ": providers.openai.base_url: should be an address such as http://127.0.0.1:8000/v1",
        ),
    ],
)
def test_mistakes_in_a_variable(tmp_path: Path, name: str, value: str, says: str) -> None:
    assert mistake(tmp_path, "", {name: value}) == f"variable {name}{says}"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"modle": "a/b"}, "modle is no setting; did you mean model?"),
        ({"providers": 3}, "providers should be a table"),
        ({"providers": {"x": object()}}, "providers.x should be a table, or an object with complete and stream"),
        ({"providers": {"x": Mine}}, "providers.x should be a table, or an object with complete and stream"),
        ({"providers": {"a/b": Mine()}}, "providers.\"a/b\": should match pattern '^[A-Za-z0-9_.-]+$'"),
        ({"model": 3}, "model = 3: should be a valid string"),
        ({"model": ["sk-1"]}, "model: should be a valid string"),
    ],
)
def test_mistakes_in_configure(tmp_path: Path, overrides: dict[str, Any], says: str) -> None:
    assert mistake(tmp_path, "", **overrides) == f"configure(): {says}"


def test_a_file_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kaizen.toml"
    file.write_bytes(b'model = "\xff"')
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_settings(tmp_path, {}, {})

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match=r"kaizen\.toml: Permission denied"):
        load_settings(tmp_path, {}, {})


def test_reading_loads_no_adapter() -> None:
    script = "import sys, kaizen.settings; kaizen.settings.read(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in run.stdout.split() if name.startswith("kaizen.")}
    assert rooms == {"core", "settings"}


# -- the reference --------------------------------------------------------------------------------

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def documented() -> set[tuple[str, str, str]]:
    """Section, key and default of each row in the reference's tables of keys."""
    rows: set[tuple[str, str, str]] = set()
    section, table_of_keys = "", False
    for line in REFERENCE.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`").replace("`, `", " ")
            section = section if "<" not in section else section.partition(".")[0]
        elif line.startswith("Kind"):
            section = " ".join(part for part in line.split("`") if part in {"openai", "anthropic", "embedded"})
        elif line.startswith("The table `[inference.route.cascade]`"):
            section = "inference.route.cascade"
        elif line.startswith(("| key |", "| of the cascade |", "| name |")):
            table_of_keys = not line.startswith("| name |")
        elif table_of_keys and (row := re.match(r"\| `(\w+)` \| .*? \| (none|required|the vendor's|`.*?`) \| ", line)):
            rows |= {(each, row[1], row[2]) for each in section.split(" " if section != "Top level" else "\n")}
    return rows


def declared() -> set[tuple[str, str, str]]:
    """The same of the tree."""
    tables: dict[str, type[BaseModel]] = {"models": ModelSettings, "Top level": Settings}
    top = {name: value for name, value in Settings() if isinstance(value, BaseModel)}
    below = {
        f"{name}.{key}": type(value)
        for name, table in top.items()
        for key, value in table
        if isinstance(value, BaseModel)
    }
    tables |= {name: type(value) for name, value in top.items()} | below
    tables["inference.route.cascade"] = CascadeSettings
    kinds = {"openai": OpenAISettings, "anthropic": AnthropicSettings, "embedded": EmbeddedSettings}
    rows: set[tuple[str, str, str]] = {("providers", "kind", "required")}
    for section, table in (tables | kinds).items():
        for name, field in table.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if (
                name == "kind"
                or (section == "Top level" and name in {*tables, "providers"})
                or f"{section}.{name}" in below
            ):
                continue
            shown = (
                "required"
                if field.is_required()
                else "none"
                if default is None
                else f"`{json.dumps(default, default=str)}`"
            )
            shown = "the vendor's" if name == "base_url" else shown
            rows.add((section, name, "`.kaizen`" if name == "home" else shown))
    return rows


def test_the_reference_has_every_key_with_its_default() -> None:
    assert documented() == declared()


def test_what_is_nested_too_deep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"kaizen\.toml: is nested too deep"):
        load(tmp_path, "a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="KAIZEN_PROVIDERS should be JSON: it is nested too deep"):
        load(tmp_path, "", {"KAIZEN_PROVIDERS": "[" * 100_000})


# -- the editor -------------------------------------------------------------------------------------


def test_the_editor_is_visual_then_editor_in_words() -> None:
    assert editor_words({"VISUAL": "code --wait", "EDITOR": "vi"}) == ["code", "--wait"]
    assert editor_words({"VISUAL": " ", "EDITOR": "'my editor' -x"}) == ["my editor", "-x"]
    with pytest.raises(ConfigError, match="EDITOR is not set"):
        editor_words({})
    with pytest.raises(ConfigError, match="the variable EDITOR is no command"):
        editor_words({"EDITOR": "'"})
