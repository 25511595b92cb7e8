"""Tokens: which are taken, and whose they are."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from kaizen.core.errors import ConfigError, Unauthenticated
from kaizen.core.identity import Identity
from kaizen.core.scope import Scope
from kaizen.govern.keys import Keys
from kaizen.govern.tokens import EitherKind, TokenRules, Tokens
from tests.unit.govern.keys import OURS, KeysInMemory

SECRET = b"a shared secret of 32 bytes or more"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def claims(**changes: Any) -> dict[str, Any]:
    """Claims that are taken; None leaves one out."""
    whole = {
        "sub": "zoe",
        "tenant": "acme",
        "iss": "https://login.example",
        "aud": "kaizen",
        "exp": int(time.time()) + 60,
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers)


def shared(**rules: Any) -> Tokens:
    how: dict[str, Any] = {"algorithms": ("HS256",), "secret": SECRET}
    return Tokens(TokenRules(**{"issuer": "https://login.example", "audience": "kaizen"} | how | rules))


def public(private: Any, kid: str | None, **more: Any) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else ECAlgorithm
    entry = kind.to_jwk(private.public_key(), as_dict=True)
    return entry | ({} if kid is None else {"kid": kid}) | more


def key_set(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": entries}))
    stamp = time.time_ns() + len(entries)
    os.utime(path, ns=(stamp, stamp))
    return path


def filed(path: Path, recheck: float = 1.0, **rules: Any) -> Tokens:
    how: dict[str, Any] = {"algorithms": ("RS256", "ES256"), "jwks_file": path}
    common = {"issuer": "https://login.example", "audience": "kaizen"}
    return Tokens(TokenRules(**common | how | rules), recheck=recheck)


async def refused(tokens: Tokens, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await tokens.authenticate(token)
    assert caught.value.__cause__ is None
    return str(caught.value)


async def test_a_token_tells_whose_it_is() -> None:
    assert await shared().authenticate(signed()) == Identity(
        Scope("acme", "dev"), "user:zoe", frozenset({"infer"}), None
    )
    tokens = shared(environment_claim="env", models=("mine/*",), tenant_claim="org")
    identity = await tokens.authenticate(signed(env="prod", org="other", scope="infer metrics openid"))
    assert identity == Identity(Scope("other", "prod"), "user:zoe", frozenset({"infer", "metrics"}), ("mine/*",))
    assert (await shared().authenticate(signed(scope=""))).scopes == frozenset()
    assert (await shared().authenticate(signed(scope=["infer"]))).scopes == frozenset()


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "z" * 257},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "others"},
        {"aud": None},
        {"nbf": 4e9},
        {"tenant": None},
        {"tenant": ""},
        {"tenant": "a/b"},
        {"tenant": 7},
        {"tenant": ["acme"]},
        {"key": b"another shared secret of 32 bytes.."},
        {"algorithm": "HS384", "key": SECRET * 2},
    ],
)
async def test_a_token_that_says_too_little_or_wrong_is_refused(changes: dict[str, Any]) -> None:
    assert "zoe" not in await refused(shared(), signed(**changes))


async def test_an_unsigned_token_is_none() -> None:
    await refused(shared(), jwt.encode(claims(), None, "none"))
    await refused(shared(algorithms=("HS256", "none")), jwt.encode(claims(), None, "none"))
    whole = signed()
    for flaw in (
        "",
        "a.b.c",
        "..",
        whole.rpartition(".")[0] + ".",
        whole[:-3] + "AAA",
        whole + "é",
        "a.b." + "c" * 20_000,
    ):
        await refused(shared(), flaw)


async def test_a_public_key_is_no_shared_secret(tmp_path: Path) -> None:
    """The classic confusion of algorithms: who has the public key must not be able to sign with it."""
    tokens = filed(key_set(tmp_path / "keys.json", public(RSA, "one")))
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body = (
        jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"one"}'),
        jwt.utils.base64url_encode(json.dumps(claims()).encode()),
    )
    mac = jwt.utils.base64url_encode(
        jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(head + b"." + body, pem)
    )
    await refused(tokens, b".".join([head, body, mac]).decode())


async def test_a_key_set_says_which_keys_sign(tmp_path: Path) -> None:
    tokens = filed(key_set(tmp_path / "keys.json", public(RSA, "one"), public(EC, "two"), {"kty": "odd"}))
    assert (await tokens.authenticate(signed(RSA, "RS256", {"kid": "one"}))).principal == "user:zoe"
    assert (await tokens.authenticate(signed(EC, "ES256", {"kid": "two"}))).principal == "user:zoe"
    for headers in ({"kid": "two"}, {"kid": "none"}, None):
        await refused(tokens, signed(RSA, "RS256", headers))
    alone = filed(key_set(tmp_path / "alone.json", public(RSA, None)))
    await alone.authenticate(signed(RSA, "RS256"))


async def test_keys_that_are_not_for_signing_are_left_out(tmp_path: Path) -> None:
    secret = {"kty": "oct", "kid": "s", "k": jwt.utils.base64url_encode(SECRET).decode(), "alg": "HS256"}
    file = key_set(tmp_path / "keys.json", public(EC, "two"), public(RSA, "enc", use="enc"), secret)
    tokens = filed(file, algorithms=("RS256", "ES256", "HS256"))
    await refused(tokens, signed(RSA, "RS256", {"kid": "enc"}))
    await refused(tokens, signed(SECRET, "HS256", {"kid": "s"}))


async def test_a_key_set_that_changes_is_read_anew(tmp_path: Path) -> None:
    file = key_set(tmp_path / "keys.json", public(RSA, "one"))
    tokens = filed(file, recheck=0.02)
    old, new = signed(RSA, "RS256", {"kid": "one"}), signed(EC, "ES256", {"kid": "two"})
    await tokens.authenticate(old)
    key_set(file, public(EC, "two"))
    await asyncio.sleep(0.03)
    await tokens.authenticate(new)
    await refused(tokens, old)
    file.write_text("{")  # somebody is writing it
    await asyncio.sleep(0.03)
    await tokens.authenticate(new)
    key_set(file)  # all keys withdrawn
    await asyncio.sleep(0.03)
    await refused(tokens, new)


@pytest.mark.parametrize("text", ["", "[]", '{"keys": []}', '{"keys": 3}', '{"keys": [3]}'])
def test_a_key_set_that_can_not_be_used_stops_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        filed(tmp_path / "keys.json")
    with pytest.raises(ConfigError, match="can't be read"):
        filed(tmp_path / "nowhere.json")


def test_a_secret_that_is_too_short_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        shared(secret=b"short")
    with pytest.raises(ConfigError, match="64 bytes"):
        shared(algorithms=("HS256", "HS512"))
    with pytest.raises(ConfigError, match="either"):
        shared(secret=None)
    assert "shared secret" not in repr(TokenRules(issuer="i", audience="a", algorithms=(), secret=SECRET))


async def test_a_token_is_remembered_but_not_past_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, decoded = shared(), list[str]()
    real = jwt.decode

    def counting(token: str, *args: Any, **how: Any) -> Any:
        decoded.append(token)
        return real(token, *args, **how)

    monkeypatch.setattr(jwt, "decode", counting)
    token, soon = signed(), signed(exp=int(time.time()) + 1, sub="ann")
    for _ in range(5):
        await tokens.authenticate(token)
    assert decoded == [token]
    await tokens.authenticate(soon)
    await asyncio.sleep(1.1)
    assert await refused(tokens, soon) == "the token has expired"
    lenient = shared(leeway=30)
    await lenient.authenticate(soon)
    monkeypatch.setattr("kaizen.govern.tokens._REMEMBERED", 2)
    for n in range(5):
        await lenient.authenticate(signed(sub=f"u{n}"))
    assert len(lenient._seen) <= 2


async def test_keys_and_tokens_are_told_apart() -> None:
    keys = Keys(KeysInMemory())
    both = EitherKind(keys, shared())
    issued = await keys.create(OURS)
    assert (await both.authenticate(issued.secret)).principal == f"key:{issued.key.id}"
    assert (await both.authenticate(signed())).principal == "user:zoe"
    for credential in ("", "kz_a_b", "a.b.c", "sk-123"):
        with pytest.raises(Unauthenticated):
            await both.authenticate(credential)
    await keys.close()
