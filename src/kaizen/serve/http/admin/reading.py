"""The OpenAPI document as a page to read: no script, and nothing from elsewhere.

It stands on the same origin as the page whose tab may hold a key, so it runs no code of anybody's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "summary{cursor:pointer}code{font-weight:600}pre{overflow:auto;max-height:24rem;background:#8881;padding:.6rem}"
    "details{border-top:1px solid #8884;padding:.4rem 0}"
)


def reading(document: Mapping[str, Any]) -> str:
    """The page for a document."""
    return "".join(_page(document))


def _page(document: Mapping[str, Any]) -> Iterator[str]:
    title = escape(document["info"]["title"])
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f'<h1>{title}</h1><p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            about = escape(str(told.get("summary") or told.get("description") or ""))
            yield f"<details><summary><code>{escape(method.upper())} {escape(path)}</code> {about}</summary>"
            for name in ("parameters", "requestBody", "responses"):
                if name in told:
                    yield f"<h4>{name}</h4><pre>{_json(told[name])}</pre>"
            yield "</details>"
    yield "<h2>Schemas</h2>"
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        yield f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        yield f"<pre>{_json(schema)}</pre></details>"
    yield "</html>"


def _json(value: object) -> str:
    return escape(json.dumps(value, indent=1, ensure_ascii=False))
