"""The scripted upstream of the savings report: two models behind OpenAI's wire, and its own count of what they did.

It answers what ``traffic`` says is right where the asked model knows it, and something else where it does not. For a
question about a document it needs the passage: what was taken out of the prompt can't be answered.
"""

import asyncio
import json
import sys
from collections import Counter

import uvicorn
from traffic import KNOWS, STRONG, WEAK, Item, by_question, holds_evidence, question, share, tokens

COUNTS: Counter[str] = Counter()
PAD = "This answer goes on for a while, as answers do, so that what is written has a length that costs something. "


def answer(item: Item, model: str, prompt: str) -> str:
    knows = item.strong if model == STRONG else item.weak
    if item.kind == "document":
        return item.gold if knows and holds_evidence(item, prompt) else "I don't know."
    if item.kind == "sum":
        return f"{PAD} The answer is {int(share(item.key) * 1000)}. {'[right]' if knows else '[wrong]'}"
    return f"{item.gold if knows else '[nothing]'} {PAD}"


class Upstream:
    def __init__(self, seed: int, latency: float) -> None:
        self.items, self.latency = by_question(seed), latency

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"] == "/counts":
            await reply(send, dict(COUNTS))
            COUNTS.clear()
            return
        asked = json.loads(body)
        model, texts = asked["model"], [text_of(message) for message in asked["messages"]]
        item = self.items.get(question(texts[-1]))
        text = "I don't know." if item is None else answer(item, model, texts[-1])
        used = {"prompt_tokens": tokens(texts), "completion_tokens": tokens([text])}
        COUNTS[f"{model} calls"] += 1
        COUNTS[f"{model} in"] += used["prompt_tokens"]
        COUNTS[f"{model} out"] += used["completion_tokens"]
        COUNTS["unknown"] += item is None
        await asyncio.sleep(self.latency)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        await reply(send, {"id": "x", "object": "chat.completion", "model": model, "choices": [choice], "usage": used})


def text_of(message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


async def reply(send, body) -> None:
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


if __name__ == "__main__":
    assert set(KNOWS) == {STRONG, WEAK}
    port, seed, latency = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    uvicorn.run(Upstream(seed, latency), host="127.0.0.1", port=port, log_level="warning", access_log=False)
