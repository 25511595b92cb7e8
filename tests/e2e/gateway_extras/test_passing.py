"""Sound, images, moderation and rankings through the gateway, asked for with the real OpenAI client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic_core import from_json

from kaizen.app.storage import make_store
from kaizen.core.record import Record
from kaizen.testing.media_server import PIECES, SOUND, MediaServer
from tests.e2e.gateway.conftest import ACME, Running
from tests.e2e.gateway.http import ask, post

PRICES = {"media/dall-e-3": {"usd_per_call": 0.04}, "media/tts-1": {"usd_per_call": 0.01}}
TOKENS = {"media/whisper": {"input_usd_per_mtok": 6.0, "output_usd_per_mtok": 10.0}}
SPEECH = {"model": "media/tts-1", "input": "Good day", "voice": "alloy"}
Start = Callable[..., Running]


@pytest.fixture
def start(gateway: Start, media: MediaServer) -> Start:
    """Starts a gateway with the provider ``media``."""

    def begin(**overrides: Any) -> Running:
        settings = {
            "providers": {"media": {"kind": "openai", "base_url": media.base_url, "api_key": "sk-upstream-secret"}},
            "aliases": {"painter": "media/dall-e-3"},
            "models": PRICES | TOKENS,
        }
        return gateway(**settings | overrides)

    return begin


@pytest.fixture
def here(start: Start) -> Running:
    return start()


@pytest.fixture
def client(here: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{here.address}/v1", api_key=here.key(), max_retries=0) as client:
        yield client


def contents(here: Running, digest: str | None) -> Any:
    """What a record points to."""

    async def read() -> bytes | None:
        store = make_store(here.settings)
        data = await store.payload(ACME, digest or "")
        await store.close()
        return data

    data = asyncio.run(read())
    return None if data is None else from_json(data)


def row(here: Running, tenant: str = "acme", count: int = 1) -> Record:
    """The last of so many records. A stream's follows its last byte within a moment where the caller left early."""
    end = time.monotonic() + 5
    while len(found := here.records(tenant)) < count and time.monotonic() < end:
        time.sleep(0.02)
    assert len(found) == count
    return found[-1]


# -- what comes through ---


def test_an_image_comes_back_with_its_price_and_its_record(
    here: Running, client: openai.OpenAI, media: MediaServer
) -> None:
    raw = client.images.with_raw_response.generate(model="painter", prompt="A red house", size="1024x1024")
    image = raw.parse()
    assert image.data is not None
    assert image.data[0].b64_json == "aW1hZ2U="
    [asked] = media.calls
    assert asked.fields == {"model": "dall-e-3", "prompt": "A red house", "size": "1024x1024"}
    assert asked.headers["authorization"] == "Bearer sk-upstream-secret"
    record = row(here)
    assert (record.kind, record.ref, record.status, record.task) == (
        "model",
        "media/dall-e-3",
        "ok",
        "images/generations",
    )
    assert (record.tokens_in, record.tokens_out, record.cost_usd, record.attempts) == (11, 40, 0.04, 1)
    assert raw.headers["x-kaizen-record"] == record.id
    assert raw.headers["x-kaizen-cost-usd"] == "0.04"
    assert raw.headers["x-kaizen-model"] == "media/dall-e-3"
    assert contents(here, record.input_digest)["body"]["prompt"] == "A red house"
    assert contents(here, record.output_digest)["answer"]["created"] == 1


def test_a_recording_is_written_down_and_its_bytes_arrive_as_they_were(
    here: Running, client: openai.OpenAI, media: MediaServer
) -> None:
    tricky = SOUND + b"\r\n--boundary--\r\n" + SOUND
    raw = client.audio.transcriptions.with_raw_response.create(
        model="media/whisper", file=('Grüße "1".mp3', tricky, "audio/mpeg"), timestamp_granularities=["word", "segment"]
    )
    assert raw.parse().text == "Hello"
    [asked] = media.calls
    assert asked.fields["model"] == "whisper"
    assert "timestamp_granularities[]" in asked.fields
    name, data = asked.files["file"]
    assert data == tricky
    assert name.startswith("Grüße")
    record = row(here)
    assert (record.tokens_in, record.tokens_out) == (14, 5)
    assert record.cost_usd == pytest.approx((14 * 6 + 5 * 10) / 1e6)
    kept = contents(here, record.input_digest)
    assert kept["files"][0]["bytes"] == len(tricky)
    assert ["model", "media/whisper"] in kept["fields"]


def test_a_transcript_streams_and_its_usage_is_found_in_its_last_event(
    here: Running, client: openai.OpenAI, media: MediaServer
) -> None:
    stream = client.audio.transcriptions.create(model="media/whisper", file=("a.mp3", SOUND), stream=True)
    assert [event.type for event in stream] == ["transcript.text.delta", "transcript.text.done"]
    record = row(here)
    assert (record.status, record.tokens_in, record.tokens_out) == ("ok", 14, 5)


def test_a_transcript_as_plain_text_keeps_its_type(here: Running, client: openai.OpenAI) -> None:
    said = client.audio.transcriptions.create(model="media/whisper", file=("a.mp3", SOUND), response_format="text")
    assert said == "Hello\n"
    record = row(here)
    assert (record.cost_usd, contents(here, record.output_digest)["answer"]) == (None, "Hello\n")


def test_speech_arrives_while_it_is_made(here: Running, client: openai.OpenAI, media: MediaServer) -> None:
    media.hold.clear()
    with client.audio.speech.with_streaming_response.create(**SPEECH) as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        pieces = answer.iter_bytes()
        first = next(pieces)
        assert first == SOUND[: len(SOUND) // PIECES]
        assert here.records() == []
        media.hold.set()
        assert first + b"".join(pieces) == SOUND
    record = row(here)
    assert (record.status, record.cost_usd, record.task) == ("ok", 0.01, "audio/speech")
    assert contents(here, record.output_digest) == {"content_type": "audio/mpeg", "bytes": len(SOUND)}


def test_moderation_and_ranking_have_no_price_until_they_are_given_one(
    here: Running, client: openai.OpenAI, media: MediaServer
) -> None:
    raw = client.moderations.with_raw_response.create(model="media/omni", input="Hello")
    assert raw.parse().results[0].flagged is False
    assert "x-kaizen-cost-usd" not in raw.headers
    body = {"model": "media/ranker", "query": "q", "documents": ["a", "b"]}
    ranked = post(here, "/v1/rerank", body, key=here.key())
    assert ranked.json["results"][0]["index"] == 1
    record = row(here, count=2)
    assert (record.cost_usd, record.tokens_in) == (None, 17)
    assert [call.path for call in media.calls] == ["/v1/moderations", "/v1/rerank"]


def test_an_image_is_edited(here: Running, client: openai.OpenAI, media: MediaServer) -> None:
    client.images.edit(model="painter", image=[("a.png", b"one"), ("b.png", b"two")], prompt="Bluer")
    [asked] = media.calls
    assert (asked.path, asked.fields["model"]) == ("/v1/images/edits", "dall-e-3")
    assert asked.body.count(b'filename="') == 2
    assert row(here).cost_usd == 0.04


def test_the_counts_have_what_passed(here: Running, client: openai.OpenAI) -> None:
    client.images.generate(model="painter", prompt="x")
    text = post(here, "/metrics", method="GET").body.decode()
    assert 'kaizen_requests_total{route="images",status="200"} 1' in text
    assert 'kaizen_cost_usd_total{model="media/dall-e-3"} 0.04' in text


# -- who may ---


def test_nobody_passes_without_a_key_or_with_one_for_other_models(here: Running, media: MediaServer) -> None:
    assert post(here, "/v1/audio/speech", SPEECH).status == 401
    refused = post(here, "/v1/audio/speech", SPEECH, key=here.key(models=["mine/*"]))
    assert (refused.status, refused.json["error"]["code"]) == (403, "denied")
    assert post(here, "/v1/audio/speech", SPEECH, key=here.key(scopes=frozenset({"metrics"}))).status == 403
    assert (media.count, here.records()) == (0, [])


def test_a_form_can_name_one_model_only(here: Running, media: MediaServer) -> None:
    key = here.key(models=["media/whisper"])
    kind = {"content-type": "multipart/form-data; boundary=b"}
    head = '--b\r\ncontent-disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    twice = head.format("model", "", "media/whisper") + head.format("model", "", "media/dall-e-3") + "--b--\r\n"
    file = head.format("model", '; filename="x"', "media/whisper") + "--b--\r\n"
    for body in (twice, file, twice.replace("--b--", "--b"), "", "--b--"):
        refused = post(here, "/v1/audio/transcriptions", body.encode(), key=key, headers=kind)
        assert refused.status == 400, body
    named = '{"model": "media/dall-e-3", "model": "media/whisper", "input": "x"}'
    assert post(here, "/v1/audio/speech", named.encode(), key=key).status == 200
    [asked] = media.calls
    assert asked.body.count(b'"model"') == 1
    assert asked.fields["model"] == "whisper"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b'{"input": "x"}', 400, "model"),
        (b'{"model": 3}', 400, None),
        (b"[]", 400, None),
        (b"{", 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"model": "nobody/x"}', 404, "model"),
        (b'{"model": "claude/large"}', 400, "model"),
        (b'{"model": "embedded/wordllama"}', 400, "model"),
    ],
)
def test_what_can_t_be_passed_on_is_refused_by_name(
    here: Running, media: MediaServer, body: bytes, status: int, param: str | None
) -> None:
    refused = post(here, "/v1/moderations", body, key=here.key())
    assert (refused.status, refused.json["error"]["param"]) == (status, param)
    assert media.count == 0


def test_of_a_long_call_the_length_is_kept(here: Running) -> None:
    assert post(here, "/v1/audio/speech", {**SPEECH, "input": "x" * 2**20}, key=here.key()).status == 200
    assert contents(here, row(here).input_digest)["body"].endswith(" bytes")


def test_another_kind_of_body_is_refused(here: Running) -> None:
    refused = post(here, "/v1/moderations", b"x", key=here.key(), headers={"content-type": "text/plain"})
    assert refused.status == 415


# -- how much ---


def test_a_budget_refuses_what_has_no_price_and_counts_what_has_one(here: Running, media: MediaServer) -> None:
    key = here.key(limits={"usd_per_day": 100_000_000})  # ten cents
    unpriced = post(here, "/v1/moderations", {"model": "media/omni", "input": "x"}, key=key)
    assert (unpriced.status, unpriced.json["error"]["code"]) == (403, "denied")
    # by the token, and nobody knows how many there will be
    by_token = post(here, "/v1/audio/speech", {**SPEECH, "model": "media/whisper"}, key=key)
    assert by_token.status == 403
    assert media.count == 0
    image = {"model": "painter", "prompt": "x"}
    answers = [post(here, "/v1/images/generations", image, key=key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 402]
    assert media.count == 2
    assert [record.status for record in here.records()] == ["error", "error", "ok", "ok", "error"]
    assert here.records()[-1].attempts == 0


def test_requests_a_minute_hold_here_too(here: Running, media: MediaServer) -> None:
    key = here.key(limits={"requests_per_minute": 2})
    answers = [post(here, "/v1/audio/speech", SPEECH, key=key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert "retry-after" in answers[-1].headers
    assert media.count == 2


def test_another_tenant_has_none_of_it(here: Running) -> None:
    post(here, "/v1/audio/speech", SPEECH, key=here.key("other"))
    assert here.records() == []
    assert row(here, "other").cost_usd == 0.01


# -- when it goes wrong ---


RANK = ("/v1/rerank", {"model": "media/rank", "query": "q", "documents": ["a", "b"]})
PAINT = ("/v1/images/generations", {"model": "media/dall-e-3", "prompt": "A red house"})
PATIENT = {"attempts": 3, "backoff": 0.01}


@pytest.mark.parametrize(
    ("call", "busy", "inference", "status", "asked"),
    [
        (RANK, 2, PATIENT, 200, 3),
        (RANK, 3, PATIENT, 503, 3),
        (RANK, 1, {"attempts": 1}, 503, 1),
        (PAINT, 1, PATIENT, 503, 1),  # it was sent: a second one might be a second image
    ],
    ids=["again", "not for ever", "as the settings say", "never what is made twice"],
)
def test_what_can_be_asked_again_is(
    start: Start, media: MediaServer, call: Any, busy: int, inference: Any, status: int, asked: int
) -> None:
    here = start(inference=inference)
    media.busy = busy
    assert post(here, call[0], call[1], key=here.key()).status == status
    assert media.count == asked
    assert row(here).attempts == asked


@pytest.mark.parametrize(("status", "told"), [(400, 400), (401, 502), (429, 429), (500, 503)])
def test_a_provider_s_refusal_is_told_and_kept_and_costs_nothing(
    here: Running, media: MediaServer, status: int, told: int
) -> None:
    media.status = status
    key = here.key(limits={"usd_per_day": 50_000_000})
    answers = [post(here, "/v1/images/generations", {"model": "painter", "prompt": "x"}, key=key) for _ in range(3)]
    assert [answer.status for answer in answers] == [told] * 3  # three times four cents would have passed the budget
    assert "sk-upstream" not in answers[0].body.decode()
    record = row(here, count=3)
    assert (record.status, record.cost_usd, record.attempts) == ("error", None, 1)
    assert media.count == 3


def test_a_broken_stream_never_ends_well(here: Running, media: MediaServer) -> None:
    media.broken = True
    with pytest.raises(AssertionError, match="the answer is cut"):
        post(here, "/v1/audio/speech", SPEECH, key=here.key())
    assert row(here).status == "error"


def test_a_caller_who_leaves_is_on_record_and_charged(here: Running, media: MediaServer) -> None:
    media.hold.clear()
    key = here.key(limits={"usd_per_day": 15_000_000})
    connection = ask(here, "/v1/audio/speech", SPEECH, key=key)
    assert b"200 OK" in connection.recv(100)
    connection.close()
    record = row(here)
    assert (record.status, record.cost_usd) == ("cancelled", None)
    media.hold.set()
    assert post(here, "/v1/audio/speech", SPEECH, key=key).status == 402


def test_a_body_that_is_too_long_is_not_read(start: Start, media: MediaServer) -> None:
    here = start(server={"max_body_bytes": 1000})
    assert post(here, "/v1/audio/speech", {**SPEECH, "input": "x" * 1000}, key=here.key()).status == 413
    assert media.count == 0
