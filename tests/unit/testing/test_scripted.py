from __future__ import annotations

import pytest

from kaizen.core.errors import Unavailable
from kaizen.core.message import Message
from kaizen.core.request import Reply, Request, Usage
from kaizen.core.scope import LOCAL
from kaizen.testing.provider_suite import read
from kaizen.testing.scripted import ScriptedProvider

REQUEST = Request(scope=LOCAL, model="script/any", messages=(Message.of("user", "one two three"),))


async def test_replies_come_in_order() -> None:
    whole = Reply(model="other/model", text="whole")
    provider = ScriptedProvider(["four words of text", whole, Unavailable("down")])
    usage = Usage(tokens_in=3, tokens_out=4, estimated=True)
    assert await provider.complete(REQUEST) == Reply(model="script/any", text="four words of text", usage=usage)
    assert await provider.complete(REQUEST) is whole
    with pytest.raises(Unavailable, match="down"):
        await provider.complete(REQUEST)
    assert provider.count == 3
    assert provider.requests == [REQUEST] * 3
    with pytest.raises(AssertionError, match="call 4 is one more"):
        await provider.complete(REQUEST)


async def test_a_function_answers() -> None:
    provider = ScriptedProvider(lambda request: request.messages[0].text.upper())
    assert (await provider.complete(REQUEST)).text == "ONE TWO THREE"


async def test_streams_come_in_pieces() -> None:
    provider = ScriptedProvider(["abcdefg", "", Unavailable("down")], piece=3)
    texts, reply = await read(provider, REQUEST)
    assert (texts, reply.text, reply.first_token_ms) == (["abc", "def", "g"], "abcdefg", 0.0)
    texts, reply = await read(provider, REQUEST)
    assert (texts, reply.text, reply.first_token_ms) == ([], "", None)
    with pytest.raises(Unavailable, match="down"):
        await read(provider, REQUEST)
