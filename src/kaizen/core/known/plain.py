"""Values as JSON, as records and caches keep them: what ``to_json`` makes of the dataclasses, in half its time.

It is handed dicts of the same fields in the same order, which it need not look into first.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from kaizen.core.message import Message, Text
from kaizen.core.request import Reply


def plain_reply(reply: Reply) -> dict[str, Any]:
    """A reply's fields by name."""
    usage = reply.usage
    return {
        "model": reply.model,
        "text": reply.text,
        "tool_calls": reply.tool_calls,
        "finish": reply.finish,
        "usage": {
            "tokens_in": usage.tokens_in,
            "tokens_out": usage.tokens_out,
            "tokens_cached": usage.tokens_cached,
            "tokens_cache_write": usage.tokens_cache_write,
            "tokens_reasoning": usage.tokens_reasoning,
            "estimated": usage.estimated,
        },
        "logprobs": reply.logprobs,
        "cost_usd": reply.cost_usd,
        "tier": reply.tier,
        "attempts": reply.attempts,
        "first_token_ms": reply.first_token_ms,
        "stages": [
            {"layer": stage.layer, "ms": stage.ms, "saved_usd": stage.saved_usd, "note": stage.note}
            for stage in reply.stages
        ],
        "record_id": reply.record_id,
    }


def reply_json(reply: Reply) -> bytes:
    """A reply's JSON."""
    return to_json(plain_reply(reply))


def plain_messages(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Messages' fields by name; parts other than texts as they are."""
    return [
        {
            "role": message.role,
            "parts": [{"text": part.text, "mark": part.mark} if type(part) is Text else part for part in message.parts],
        }
        for message in messages
    ]
