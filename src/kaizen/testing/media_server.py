"""A provider of sound, images, rankings and moderation on loopback: real sockets, and a count of what it was asked.

    with MediaServer() as server:
        ...
        assert server.calls[0].fields["model"] == "tts-1"

It answers the paths of OpenAI's API that take or give no chat, and ``/v1/rerank`` as Cohere, Jina and vLLM have it.
Forms are read with the standard library's parser of mail, which shares nothing with the gateway's.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self, cast

from pydantic_core import from_json, to_json

SOUND: Final = bytes(range(256)) * 64
"""What it says: 16 KiB that are no text."""

PIECES: Final = 4
_EVENTS: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that came.

    Args:
        path: such as ``/v1/audio/speech``.
        headers: by lower-case name.
        body: its bytes.
        fields: of its JSON, or the fields of its form that are no files.
        files: of its form, by field: file name and bytes.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    fields: Mapping[str, Any]
    files: Mapping[str, tuple[str, bytes]] = field(default_factory=dict[str, tuple[str, bytes]], repr=False)


class MediaServer:
    """The server, in threads of its own while the ``with`` block lasts.

    Attributes:
        calls: what came, oldest first.
        status: of its answers; any other than 200 is an error.
        busy: so many of the next calls are answered with 503.
        broken: whether sound breaks off in the middle.
        hold: sound stops after its first piece until this is set.
    """

    def __init__(self) -> None:
        self.calls: list[Asked] = []
        self.status = 200
        self.busy = 0
        self.broken = False
        self.hold = threading.Event()
        self.hold.set()
        owner = self

        class Answering(_Answering):
            server_of_media = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._serve, name="media-server", daemon=True)

    @property
    def count(self) -> int:
        """How many calls came."""
        return len(self.calls)

    @property
    def base_url(self) -> str:
        """Its address with ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Answering(BaseHTTPRequestHandler):
    """One connection."""

    server_of_media: MediaServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a call."""
        server = self.server_of_media
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = _asked(self.path, headers, body)
        server.calls.append(asked)
        if server.busy:
            server.busy -= 1
            self._send("application/json", to_json({"error": {"message": "busy", "type": "server_error"}}), 503)
            return
        if server.status != 200:
            error = {"message": "the media server was told to fail", "type": "invalid_request_error"}
            self._send("application/json", to_json({"error": error}), server.status)
            return
        match self.path.removeprefix("/v1"):
            case "/audio/speech":
                self._say()
            case "/audio/transcriptions" | "/audio/translations":
                self._write_down(asked)
            case "/images/generations" | "/images/edits":
                usage = {"input_tokens": 11, "output_tokens": 40, "total_tokens": 51}
                self._send_json({"created": 1, "data": [{"b64_json": "aW1hZ2U="}], "usage": usage})
            case "/moderations":
                result: dict[str, Any] = {
                    "flagged": False,
                    "categories": {},
                    "category_scores": {},
                    "category_applied_input_types": {},
                }
                self._send_json({"id": "modr-1", "model": asked.fields["model"], "results": [result]})
            case "/rerank":
                results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
                self._send_json({"id": "rank-1", "results": results, "usage": {"total_tokens": 17}})
            case _:
                self._send("application/json", to_json({"error": {"message": "no such path"}}), 404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _write_down(self, asked: Asked) -> None:
        usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}
        if asked.fields.get("stream") == "true":
            done = {"type": "transcript.text.done", "text": "Hello", "usage": usage}
            events = [{"type": "transcript.text.delta", "delta": "Hello"}, done]
            self._stream(_EVENTS, [b"data: " + to_json(event) + b"\n\n" for event in events])
        elif asked.fields.get("response_format") == "text":
            self._send("text/plain; charset=utf-8", b"Hello\n")
        else:
            self._send_json({"text": "Hello", "usage": usage})

    def _say(self) -> None:
        size = len(SOUND) // PIECES
        self._stream("audio/mpeg", [SOUND[at : at + size] for at in range(0, len(SOUND), size)])

    def _stream(self, kind: str, pieces: list[bytes]) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for place, piece in enumerate(pieces):
            if place and self.server_of_media.broken:
                self.close_connection = True
                return
            if place:
                self.server_of_media.hold.wait(10)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _send_json(self, answer: Mapping[str, Any]) -> None:
        self._send("application/json", to_json(answer))

    def _send(self, kind: str, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _asked(path: str, headers: dict[str, str], body: bytes) -> Asked:
    kind = headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return Asked(path, headers, body, cast("Mapping[str, Any]", from_json(body)))
    form = message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body, policy=HTTP)
    fields: dict[str, Any] = {}
    files: dict[str, tuple[str, bytes]] = {}
    for part in form.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)  # noqa: S101 - for the type checker
        filename = part.get_filename()
        if filename is None:
            fields[name] = data.decode()
        else:
            files[name] = (filename, data)
    return Asked(path, headers, body, fields, files)
