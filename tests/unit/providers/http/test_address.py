"""Addresses, request targets and heads."""

from __future__ import annotations

import pytest

from kaizen.providers.http.address import Heads, parse, tunnel_request


@pytest.mark.parametrize(
    ("url", "base", "authority", "server"),
    [
        ("https://example.org/v1", "https://example.org/v1", "example.org", "example.org:443"),
        ("HTTP://Example.ORG:80/", "http://example.org", "example.org", "example.org:80"),
        ("http://127.0.0.1:8080/a/b/", "http://127.0.0.1:8080/a/b", "127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:81/v1", "http://[::1]:81/v1", "[::1]:81", "[::1]:81"),
        ("https://[fe80::1%25eth0]", "https://[fe80::1]", "[fe80::1]", "[fe80::1]:443"),
        ("https://bücher.example/v1", "https://xn--bcher-kva.example/v1", "xn--bcher-kva.example", None),
        ("https://faß.example", "https://xn--fa-hia.example", "xn--fa-hia.example", None),
        ("https://a_b.example/x y/ü?q=ü", "https://a_b.example/x%20y/%C3%BC", "a_b.example", None),
    ],
)
def test_addresses(url: str, base: str, authority: str, server: str | None) -> None:
    address = parse(url)
    assert (address.base, address.authority) == (base, authority)
    assert server is None or address.server == server


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ws://example.org",
        "http://",
        "http://:80",
        "http://a b/",
        "http://a\r\nx: y/",
        "http://a/\n",
        "http://a:0",
        "http://a:99999",
        "http://a:b",
        "http://a..b",
        f"http://{'a' * 64}.example",
        "http://[::1",
        "http://[nonsense:]",
        "http://-\u0301.example",
        "http://a/b@c\x00",
        "http://ex%61mple.org",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says: the transport says it anew
        parse(url)


def test_credentials_are_not_shown() -> None:
    address = parse("http://me:pa%3Ass@proxy:8080")
    assert address.credentials == "Basic bWU6cGE6c3M="
    assert "bWU6" not in repr(address)
    assert address.base == "http://proxy:8080"
    assert parse("http://proxy").credentials is None


def test_heads() -> None:
    heads = Heads(parse("http://h:8/v1?a=b"), None, {"x-key": "k"})
    lines = heads("POST", "/chat", "application/json").decode().split("\r\n")
    assert lines[0] == "POST /v1/chat?a=b HTTP/1.1"
    assert {"x-key: k", "host: h:8", "accept: */*", "accept-encoding: identity", "user-agent: kaizen"} <= set(lines)
    assert lines[-2:] == ["content-type: application/json", "content-length: "]
    assert heads("POST", "/chat", "application/json") is heads("POST", "/chat", "application/json")
    assert heads("GET", "/a b\r\nx: y?c", "").startswith(b"GET /v1/a%20b%0D%0Ax:%20y?c&a=b HTTP/1.1\r\n")
    assert Heads(parse("http://h"), None, {})("GET", "", "").startswith(b"GET / HTTP/1.1\r\nhost: h\r\n")


def test_heads_by_a_proxy() -> None:
    proxy = parse("http://me:pw@proxy:8080")
    plain = Heads(parse("http://h/v1"), proxy, {})("GET", "/x", "")
    assert plain.startswith(b"GET http://h/v1/x HTTP/1.1\r\nhost: h\r\n")
    assert b"proxy-authorization: Basic bWU6cHc=\r\n" in plain
    assert b"proxy" not in Heads(parse("https://h/v1"), proxy, {})("GET", "/x", "")
    opening = tunnel_request(parse("https://h/v1"), proxy)
    assert opening == b"CONNECT h:443 HTTP/1.1\r\nhost: h:443\r\nproxy-authorization: Basic bWU6cHc=\r\n\r\n"


def test_heads_do_not_pile_up() -> None:
    heads = Heads(parse("http://h"), None, {})
    for number in range(1000):
        heads("GET", f"/batches/{number}", "")
    assert len(heads._kept) <= 256
