"""A fault server with the vendors' batch APIs as well: OpenAI's Files and Batches, Anthropic's Message Batches.

It also embeds texts, by their lengths, so that tests see how many texts came in a call.

with BatchServer() as server:
    server.done = False                      # batches stay in progress until this is True
    server.queue_for("/batches", status(503))  # the next call of such a path fails
    ...
    assert (server.submissions, server.direct) == (1, 0)
"""

from __future__ import annotations

import base64
import re
import struct
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import from_json, to_json

from kaizen.testing import answers
from kaizen.testing.answers import WireName
from kaizen.testing.fault_server import Call, Fault, FaultServer, status

_NOT_FOUND: Final = status(404)
_REASON: Final = "the batch server was told to refuse this call"


@dataclass(slots=True)
class _Held:
    """A batch: its calls by id, each a path and a body."""

    number: int
    calls: dict[str, tuple[str, Any]]
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    made: float = field(default_factory=time.time)
    ended: bool = False
    cancelled: bool = False


class BatchServer(FaultServer):
    """A ``FaultServer`` that also takes batches.

    Attributes:
        done: whether batches end at once; False leaves them in progress until it is set again.
        mute: so many batches are taken without an answer, as if the connection broke then.
        silent: whether batches are taken without an answer, on a connection that stays open.
        refused: a call in a batch whose text holds this is answered with status 400.
        submissions, cancels, polls: batches taken, cancelled, and questions about one.
        sizes: how many calls each batch had.
        direct: calls that came by themselves.
        embedded: how many texts each call for embeddings had.
        embed_delay: seconds that such a call takes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.done = True
        self.mute = 0
        self.silent = False
        self.refused = ""
        self.submissions = self.cancels = self.polls = self.direct = 0
        self.sizes: list[int] = []
        self.embedded: list[int] = []
        self.embed_delay = 0.0
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, _Held] = {}
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def queue_for(self, path: str, *faults: Fault) -> None:
        """Answer the next calls whose path ends so, before its query, with these."""
        self._faults[path].extend(faults)

    def received(self, call: Call) -> Fault:
        """A call came: how it is answered."""
        if answers.wire_of(call.path) is not None:
            self.direct += 1
            return super().received(call)
        self.calls.append(call)
        self.count += 1
        path = call.path.partition("?")[0].removeprefix("/v1")
        for ending, faults in self._faults.items():
            if faults and path.endswith(ending):
                return faults.popleft()
        return self._answered(path, call)

    # -- inside -----------------------------------------------------------------------------------

    def _answered(self, path: str, call: Call) -> Fault:
        match path.strip("/").split("/"):
            case ["embeddings"]:
                return self._embeddings(call.json)
            case ["files"]:
                name = f"file-{len(self._files)}"
                self._files[name] = _uploaded(call)
                return _body({"id": name, "object": "file"})
            case ["files", name, "content"]:
                return self._results(name.removeprefix("out-"), "chat") if name.startswith("out-") else _NOT_FOUND
            case ["batches"] if call.body:
                wanted = call.json
                lines = [from_json(line) for line in self._files[wanted["input_file_id"]].splitlines()]
                calls = {line["custom_id"]: (line["url"], line["body"]) for line in lines}
                return self._taken("batch", calls, wanted.get("metadata") or {})
            case ["messages", "batches"] if call.body:
                calls = {item["custom_id"]: ("/v1/messages", item["params"]) for item in call.json["requests"]}
                return self._taken("msgbatch", calls, {})
            case ["batches"] | ["messages", "batches"]:
                newest = [self._shown(name) for name in reversed(self._batches)]
                return _body({"data": newest, "has_more": False})
            case [*_, name, "cancel"] if name in self._batches:
                self.cancels += 1
                self._batches[name].cancelled = True
                return _body(self._shown(name))
            case ["messages", "batches", name, "results"] if name in self._batches:
                return self._results(name, "messages")
            case [*_, name] if name in self._batches:
                self.polls += 1
                return _body(self._shown(name))
            case _:
                return _NOT_FOUND

    def _embeddings(self, asked: Any) -> Fault:
        """A point of three numbers for each text: its length, the code of its last letter, and 1."""
        texts: list[str] = asked["input"]
        self.embedded.append(len(texts))
        points = [struct.pack("<3f", len(text), ord(text[-1]), 1.0) for text in texts]
        data = [{"index": at, "embedding": base64.b64encode(point).decode()} for at, point in enumerate(points)]
        tokens = sum(map(len, texts))
        body = {"object": "list", "data": data[::-1], "model": asked["model"], "usage": {"prompt_tokens": tokens}}
        return Fault("body", message=to_json(body).decode(), delay=self.embed_delay)

    def _taken(self, kind: str, calls: dict[str, tuple[str, Any]], metadata: dict[str, str]) -> Fault:
        name = f"{kind}_{len(self._batches)}"
        self._batches[name] = _Held(len(self._batches), calls, metadata)
        self.submissions += 1
        self.sizes.append(len(calls))
        if self.mute:
            self.mute -= 1
            return Fault("hangup")
        if self.silent:
            return Fault("never")
        return _body(self._shown(name))

    def _shown(self, name: str) -> dict[str, Any]:
        held = self._batches[name]
        held.ended = held.ended or self.done or held.cancelled
        if name.startswith("msgbatch"):
            return {
                "id": name,
                "type": "message_batch",
                "processing_status": "ended" if held.ended else "in_progress",
                "created_at": datetime.fromtimestamp(held.made, UTC).isoformat().replace("+00:00", "Z"),
                "results_url": f"{self.base_url}/messages/batches/{name}/results" if held.ended else None,
            }
        ended = "cancelled" if held.cancelled else "completed"
        return {
            "id": name,
            "object": "batch",
            "status": ended if held.ended else "in_progress",
            "created_at": int(held.made),
            "output_file_id": f"out-{name}" if held.ended else None,
            "error_file_id": None,
            "metadata": held.metadata,
        }

    def _results(self, name: str, wire: WireName) -> Fault:
        held = self._batches.get(name)
        if held is None:
            return _NOT_FOUND
        make = self._message if wire == "messages" else self._line
        # the answers may come in any order
        lines = [make(held, call, *held.calls[call]) for call in reversed(held.calls)]
        return Fault("body", message="\n".join(to_json(line).decode() for line in lines) + "\n")

    def _line(self, held: _Held, call: str, path: str, body: Any) -> dict[str, Any]:
        if held.cancelled:
            return {"custom_id": call, "response": None, "error": {"code": "batch_cancelled"}}
        wire = answers.wire_of(path)
        refused = self._refuses(body)
        if refused or wire is None:
            text = from_json(answers.error("chat", 400, "invalid_request_error", _REASON))
            return {"custom_id": call, "response": {"status_code": 400, "body": text}, "error": None}
        return {
            "custom_id": call,
            "response": {"status_code": 200, "body": self._reply(wire, path, body)},
            "error": None,
        }

    def _message(self, held: _Held, call: str, path: str, body: Any) -> dict[str, Any]:
        if held.cancelled:
            return {"custom_id": call, "result": {"type": "canceled"}}
        if self._refuses(body):
            text = from_json(answers.error("messages", 400, "invalid_request_error", _REASON))
            return {"custom_id": call, "result": {"type": "errored", "error": text}}
        return {"custom_id": call, "result": {"type": "succeeded", "message": self._reply("messages", path, body)}}

    def _refuses(self, body: Any) -> bool:
        return bool(self.refused) and self.refused in to_json(body).decode()

    def _reply(self, wire: WireName, path: str, body: Any) -> Any:
        return from_json(answers.whole(wire, self.answer(Call(path, {}, to_json(body)))))


def _uploaded(call: Call) -> bytes:
    """The file in a multipart form."""
    found = re.search(rb"boundary=(\S+)", call.headers["content-type"].encode())
    boundary = found[1] if found else b""
    part = next(part for part in call.body.split(b"--" + boundary) if b'name="file"' in part)
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def _body(value: Any) -> Fault:
    return Fault("body", message=to_json(value).decode())
