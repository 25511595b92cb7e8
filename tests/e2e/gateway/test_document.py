"""The OpenAPI document, and whatever schemathesis makes of it, against a gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import post

Make = Callable[..., Running]
SCOPES = frozenset({"infer", "metrics", "admin"})


def test_the_document_has_every_route(gateway: Make) -> None:
    here = gateway()
    document = post(here, "/openapi.json", method="GET").json
    assert {
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/models",
        "/api/v1/infer",
        "/api/v1/admin/keys",
        "/api/v1/prompts/{name}",
        "/api/v1/programs",
        "/api/v1/registry/{kind}/{name}",
        "/api/v1/evaluations",
        "/api/v1/optimizations",
        "/api/v1/jobs/{job_id}",
        "/api/v1/experiments/{program}",
        "/api/v1/loops/{program}/history",
        "/api/v1/queue",
        "/health/ready",
        "/metrics",
    } <= set(document["paths"])
    native = document["components"]["schemas"]["NativeBody"]
    assert {"routing_mode", "quality_threshold", "document_id", "deadline"} <= set(native["properties"])
    assert native["additionalProperties"] is False
    shown = post(here, "/docs", method="GET").body
    assert b"POST /v1/chat/completions" in shown
    assert b"<script" not in shown


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ours", "least"), [(False, 13), (True, 33)])
def test_no_call_that_the_document_allows_fails_in_the_gateway(gateway: Make, ours: bool, least: int) -> None:
    here = gateway()
    key = here.key(scopes=SCOPES)
    schema: Any = schemathesis.openapi.from_url(f"{here.address}/openapi.json")
    tried: list[str] = []

    for operation in schema.get_all_operations():
        if operation.ok().path.startswith("/api/v1/") is not ours:
            continue
        case_strategy = operation.ok().as_strategy()

        @settings(
            max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=case_strategy)
        def try_it(case: Any) -> None:
            tried.append(case.operation.label)
            case.call_and_validate(
                headers={"authorization": f"Bearer {key}"},
                checks=[
                    not_a_server_error,
                    status_code_conformance,
                    content_type_conformance,
                    response_schema_conformance,
                ],
            )

        try_it()
    assert len(set(tried)) >= least


def test_keys_are_administered_for_ones_own_tenant_only(gateway: Make) -> None:
    here = gateway()
    admin, other, plain = here.key(scopes=SCOPES), here.key("other", scopes=SCOPES), here.key()
    assert post(here, "/api/v1/admin/keys", method="GET").status == 401
    assert post(here, "/api/v1/admin/keys", method="GET", key=plain).status == 403
    made = post(here, "/api/v1/admin/keys", {"name": "new", "requests_per_minute": 5, "usd_per_day": 1.5}, key=admin)
    assert made.status == 201
    assert (made.json["requests_per_minute"], made.json["usd_per_day"]) == (5, 1.5)
    body = {"model": "mine/large", "messages": [{"role": "user", "content": "hello"}]}
    assert post(here, "/v1/chat/completions", body, key=made.json["secret"]).status == 200
    assert [one["name"] for one in post(here, "/api/v1/admin/keys", method="GET", key=other).json] == [""]
    path = f"/api/v1/admin/keys/{made.json['id']}"
    assert post(here, path, method="DELETE", key=other).status == 404
    turned = post(here, f"{path}/rotate", {}, key=admin)
    assert turned.json["secret"] != made.json["secret"]
    assert post(here, path, method="DELETE", key=admin).json["revoked_at"] is not None
