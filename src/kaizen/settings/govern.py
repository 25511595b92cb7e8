"""Settings of who may call, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from kaizen.settings.values import Name, Positive, RootedPath, Seconds, Table, shared

BudgetUsd: TypeAlias = Annotated[float, Field(ge=0, le=9_000_000, allow_inf_nan=False)]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]


class LimitTable(Table):
    """What one account may use. None is no limit."""

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    concurrent: Positive | None = None
    usd_per_day: BudgetUsd | None = None
    usd_per_month: BudgetUsd | None = None


class LimitSettings(Table):
    """What callers may use. A call counts against its key, its user and its tenant at once."""

    key: LimitTable = LimitTable()
    user: LimitTable = LimitTable()
    tenant: LimitTable = LimitTable()
    tenants: Mapping[Name, LimitTable] = Field(default_factory=dict)
    lease: Seconds = 30.0


class JwtSettings(Table):
    """JSON web tokens of somebody else, taken in the place of a key. On when a key to check them with is named."""

    jwks_file: RootedPath | None = None
    secret_env: Text | None = None
    algorithms: tuple[Algorithm, ...] = ()
    issuer: Text | None = None
    audience: Text | None = None
    tenant_claim: Text = "tenant"
    environment_claim: Text | None = None
    scopes: tuple[Literal["infer", "metrics", "admin"], ...] = ("infer",)
    models: tuple[Text, ...] | None = None
    leeway: Annotated[float, Field(ge=0, le=300)] = 0.0

    @property
    def enabled(self) -> bool:
        """Whether tokens are taken at all."""
        return self.jwks_file is not None or self.secret_env is not None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.jwks_file is not None and self.secret_env is not None:
            raise ValueError("give jwks_file or secret_env, not both")
        if self.enabled and (self.issuer is None or self.audience is None):
            raise ValueError("tokens need an issuer and an audience to be checked against")
        # a public key taken for a shared secret would let anybody sign
        shared = [name for name in self.algorithms if name.startswith("HS")]
        if self.enabled and (shared if self.jwks_file is not None else len(shared) < len(self.algorithms)):
            raise ValueError(
                "algorithms should be HS256, HS384 or HS512 with secret_env, and none of them with jwks_file"
            )
        return self


class AuthSettings(Table):
    """How credentials are checked."""

    recheck: Annotated[float, Field(gt=0, le=60)] = 1.0
    jwt: JwtSettings = shared(JwtSettings())
