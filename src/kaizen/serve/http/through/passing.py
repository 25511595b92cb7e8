"""Calls whose answers are no text: passed on to the provider of their model as they came, and its answer back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from kaizen.core.context import Context
from kaizen.core.errors import Denied
from kaizen.core.identity import INFER, Identity, permits
from kaizen.core.request import Reply
from kaizen.programs.forward import Forwarding, Posted
from kaizen.serve.http.backend import Contexts
from kaizen.serve.http.call import Call
from kaizen.serve.http.door import Door
from kaizen.serve.http.problem import Refused, malformed, unsupported
from kaizen.serve.http.through import form
from kaizen.serve.http.wires.wire import to_text

ROUTES: Final[Mapping[str, str]] = {
    "/v1/rerank": "rerank",
    "/v1/audio/transcriptions": "transcriptions",
    "/v1/audio/translations": "translations",
    "/v1/audio/speech": "speech",
    "/v1/images/generations": "images",
    "/v1/images/edits": "image_edits",
    "/v1/moderations": "moderations",
}
"""By path, the name in the metrics."""

_SPEECH: Final = "/v1/audio/speech"
_REPEATABLE: Final = frozenset({"/v1/rerank", "/v1/moderations", "/v1/audio/transcriptions", "/v1/audio/translations"})
_GUARD: Final = (b"x-content-type-options", b"nosniff")  # the gateway has a page at the same address
_PRINTABLE: Final = bytes(byte if 32 <= byte < 127 else ord("?") for byte in range(256))
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_name: Final = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassThrough:
    """The routes of ``ROUTES``.

    Args:
        door: lets callers in.
        contexts: surroundings for calls.
        resolve: the ref that a model's name stands for; the second argument is the vendor whose client asks.
        takes: whether a ref's provider can be asked so.
        forwarding: decides, posts and records.
        max_body: bytes of a request at most.
    """

    door: Door
    contexts: Contexts
    resolve: Callable[[str, str], str]
    takes: Callable[[str], bool]
    forwarding: Forwarding
    max_body: int

    async def take(self, call: Call) -> None:
        """Pass one call on."""
        identity = await self.door.enter(call, INFER)
        body = await call.body(self.max_body)
        kind = call.headers.get(b"content-type", b"")
        match kind.partition(b";")[0].strip().lower():
            case form.FORM:
                posted = self._form(call.path, identity, kind, body)
            case b"" | b"application/json":
                posted = self._json(call.path, identity, body)
            case _:
                raise Refused(415, "unsupported_media_type", "send application/json or multipart/form-data")
        await self._answer(call, self.contexts(identity), posted)

    async def _answer(self, call: Call, ctx: Context, posted: Posted) -> None:
        record_id = ctx.run.run_id
        head = [_GUARD, (b"x-kaizen-record", record_id.encode()), (b"x-kaizen-model", _value(posted.ref))]
        data = b""
        async with self.forwarding(ctx, posted) as passing:
            kind = (b"content-type", _value(passing.content_type))
            if passing.streams:
                while (piece := await passing.piece()) is not None:
                    if not call.started:
                        await call.open([kind, *head], events=False)
                    await call.write(piece)
            else:
                data = await passing.read()
        # by now its record is kept
        reply = call.reply = self.forwarding.reply(posted, passing, record_id)
        if call.started:
            await call.end()
        else:
            await call.answer(200, data, [kind, *head, *_costs(reply)])

    def _json(self, path: str, identity: Identity, body: bytes) -> Posted:
        try:
            fields = _fields.decode(body)
            name = _name.decode(fields["model"]) if "model" in fields else None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise malformed(error) from None
        ref = self._ref(identity, name)
        fields["model"] = msgspec.Raw(to_text(ref.partition("/")[2]))
        # written anew: of a field that is there twice, only the one that was looked at goes on
        sent = to_text(fields)
        return Posted(
            ref=ref,
            path=path.removeprefix("/v1"),
            body=sent,
            stream=path == _SPEECH or bytes(fields.get("stream", b"")).strip() == b"true",
            repeatable=path in _REPEATABLE,
            shown={"body": _shown(body)},
            tokens=len(body),
        )

    def _form(self, path: str, identity: Identity, kind: bytes, body: bytes) -> Posted:
        parts = form.read(kind, body)
        ref = self._ref(identity, form.field_of(parts, "model"))
        content_type, sent = form.write(form.changed(parts, "model", ref.partition("/")[2]))
        texts = [part for part in parts if part.filename is None]
        files = [
            {"field": part.name, "name": part.filename, "content_type": part.content_type, "bytes": len(part.data)}
            for part in parts
            if part.filename is not None
        ]
        return Posted(
            ref=ref,
            path=path.removeprefix("/v1"),
            body=sent,
            content_type=content_type,
            stream=form.field_of(parts, "stream") == "true",
            repeatable=path in _REPEATABLE,
            shown={"fields": [[part.name, part.text] for part in texts], "files": files},
            tokens=sum(len(part.data) for part in texts),
        )

    def _ref(self, identity: Identity, name: str | None) -> str:
        """The ref of the model that is asked, if this caller may ask it so."""
        if name is None:
            raise Refused(400, "invalid_request", "model is missing", param="model")
        ref = self.resolve(name, "openai")
        if not permits(identity.models, ref):
            raise Denied(f"this key may not ask {ref}")
        if not self.takes(ref):
            raise unsupported("model", f"{ref[:100]} can't be asked so: its provider is none of kind openai")
        return ref


def _shown(body: bytes) -> Any:
    """What the record keeps of a call in JSON."""
    if len(body) > 1024 * 1024:
        return f"{len(body)} bytes"
    return msgspec.json.decode(body)


def _costs(reply: Reply) -> list[tuple[bytes, bytes]]:
    """What the head of a whole answer says of its cost; nothing where the price is not known."""
    if reply.cost_usd is None:
        return [(b"x-kaizen-cache", b"miss")]
    return [(b"x-kaizen-cache", b"miss"), (b"x-kaizen-cost-usd", b"%.9g" % reply.cost_usd)]


def _value(text: str) -> bytes:
    """A text as a header can hold it."""
    return text.encode("ascii", "backslashreplace").translate(_PRINTABLE)
