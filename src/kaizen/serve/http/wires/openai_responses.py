"""``POST /v1/responses``, as OpenAI's clients speak it. Nothing is kept for later calls to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

from kaizen.core.message import Media, Message, Part, Role, Text, ToolCall, ToolResult
from kaizen.core.request import Reply, Request, Usage
from kaizen.serve.http.problem import Problem, Refused, unsupported
from kaizen.serve.http.wires.openai_chat import error_body, image
from kaizen.serve.http.wires.responses_body import (
    BODY,
    InputFile,
    InputImage,
    InputText,
    Item,
    OutputText,
    Refusal,
    ResponsesBody,
    choice_of,
    format_of,
    tools_of,
)
from kaizen.serve.http.wires.wire import (
    Asked,
    Caller,
    Parsed,
    checked_request,
    data_url,
    decoded,
    decoding,
    given,
    logprob_items,
    named_tool,
    summary,
    to_text,
)

_LOGPROBS: Final = "message.output_text.logprobs"


class Responses:
    """The wire. ``Asked.echo`` is the body, which an answer repeats in part."""

    name = "responses"

    def __init__(self) -> None:
        self._tools = Parsed(tools_of)
        self._choices = Parsed(choice_of)
        self._formats = Parsed(format_of)

    def decode(self, body: bytes, caller: Caller) -> Asked:
        """See ``Wire.decode``."""
        said = decoded(BODY, body)
        tools = self._tools(said.tools) if given(said.tools) else ()
        choice, tool = self._choices(said.tool_choice) if given(said.tool_choice) else ("auto", None)
        if tool is not None:
            named_tool(tools, tool, "tool_choice.name")
        output, json_object = self._formats(said.text) if given(said.text) else (None, False)
        wants = said.top_logprobs is not None or _LOGPROBS in (said.include or ())
        request = Request(
            scope=caller.scope,
            model=caller.resolve(said.model, "openai"),
            messages=_messages(said),
            output=output,
            tools=tools,
            tool_choice=choice,
            tool=tool,
            parallel_tools=said.parallel_tool_calls if tools else None,
            json_object=json_object,
            decoding=decoding(
                said.temperature,
                said.top_p,
                said.max_output_tokens,
                effort=said.reasoning.effort if said.reasoning else None,
            ),
            top_logprobs=(said.top_logprobs or 0) if wants else None,
            options=caller.options,
            user=said.user if said.safety_identifier is None else said.safety_identifier,
        )
        return Asked(checked_request(request, "input"), bool(said.stream), echo=said)

    def encode(self, asked: Asked, replies: Sequence[Reply]) -> bytes:
        """See ``Wire.encode``."""
        return to_text(_response(asked, replies[0]))

    def writing(self, asked: Asked) -> ResponsesWriting:
        """See ``Wire.writing``."""
        return ResponsesWriting(asked)

    def error(self, problem: Problem, call_id: str) -> bytes:
        """See ``Wire.error``."""
        return error_body(problem)


class ResponsesWriting:
    """A streamed response: its events are numbered, and each part is announced, written and closed."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._number = 0
        self._item = f"msg_{asked.id}"
        self._at = {"item_id": self._item, "output_index": 0, "content_index": 0}
        self._piece = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":%b,' % (
            to_text(self._item)
        )
        self._text = False

    def begin(self) -> bytes:
        """That it has begun."""
        response = _response(self._asked, None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def text(self, text: str) -> bytes:
        """A piece of the text."""
        head = b"" if self._text else self._open_text()
        number = self._number
        self._number += 1
        return b'%b%b"output_index":0,"content_index":0,"logprobs":[],"sequence_number":%d,"delta":%b}\n\n' % (
            head,
            self._piece,
            number,
            to_text(text),
        )

    def end(self, reply: Reply) -> bytes:
        """The closing of the text, the calls, and the whole response."""
        response = _response(self._asked, reply)
        out: list[bytes] = []
        for at, item in enumerate(response["output"]):
            if item["type"] == "message":
                out += [b"" if self._text else self._open_text(), self._close_text(reply, item)]
            else:
                where = {"item_id": item["id"], "output_index": at}
                started = {**item, "status": "in_progress", "arguments": ""}
                out += (
                    self._event("response.output_item.added", output_index=at, item=started),
                    self._event("response.function_call_arguments.delta", **where, delta=item["arguments"]),
                    self._event(
                        "response.function_call_arguments.done",
                        **where,
                        name=item["name"],
                        arguments=item["arguments"],
                    ),
                )
            out.append(self._event("response.output_item.done", output_index=at, item=item))
        name = "response.incomplete" if response["status"] == "incomplete" else "response.completed"
        # before the event that ends it: a client may stop reading there
        out.append(b": kaizen %b\n\n" % to_text(summary(reply)))
        out.append(self._event(name, response=response))
        return b"".join(out)

    def fail(self, problem: Problem) -> bytes:
        """The error, and no event that ends a response well."""
        return self._event("error", code=problem.code, message=problem.message, param=problem.param)

    def _open_text(self) -> bytes:
        self._text = True
        item: dict[str, Any] = {
            "id": self._item,
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return self._event("response.output_item.added", output_index=0, item=item) + self._event(
            "response.content_part.added", **self._at, part=part
        )

    def _close_text(self, reply: Reply, item: dict[str, Any]) -> bytes:
        part = item["content"][0]
        return self._event(
            "response.output_text.done", **self._at, text=reply.text, logprobs=part["logprobs"]
        ) + self._event("response.content_part.done", **self._at, part=part)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        data = to_text({"type": name, **fields, "sequence_number": self._number})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _response(asked: Asked, reply: Reply | None) -> dict[str, Any]:
    """The response as far as it is known."""
    said: ResponsesBody = asked.echo
    cut = reply is not None and reply.finish == "length"
    status = "in_progress" if reply is None else "incomplete" if cut else "completed"
    return {
        "id": f"resp_{asked.id}",
        "object": "response",
        "created_at": asked.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": said.instructions,
        "max_output_tokens": said.max_output_tokens,
        "metadata": said.metadata or {},
        "model": asked.request.model if reply is None else reply.model,
        "output": [] if reply is None else _output(asked, reply),
        "parallel_tool_calls": said.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": said.reasoning.effort if said.reasoning else None, "summary": None},
        "store": False,
        "temperature": said.temperature,
        "text": said.text if given(said.text) else {"format": {"type": "text"}},
        "tool_choice": said.tool_choice if given(said.tool_choice) else "auto",
        "tools": said.tools if given(said.tools) else [],
        "top_logprobs": said.top_logprobs or 0,
        "top_p": said.top_p,
        "truncation": "disabled",
        "usage": None if reply is None else _usage(reply.usage),
        "user": said.user,
    }


def _output(asked: Asked, reply: Reply) -> list[dict[str, Any]]:
    """The message, if one was written, and the calls."""
    status = "incomplete" if reply.finish == "length" else "completed"
    items: list[dict[str, Any]] = []
    if reply.text or not reply.tool_calls:
        logprobs = logprob_items(reply.logprobs)
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": logprobs}
        message = {"id": f"msg_{asked.id}", "type": "message", "status": status, "role": "assistant"}
        items.append({**message, "content": [part]})
    for at, call in enumerate(reply.tool_calls):
        items.append(
            {
                "id": f"fc_{asked.id}_{at}",
                "type": "function_call",
                "status": "completed",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
            }
        )
    return items


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.tokens_in,
        "input_tokens_details": {"cached_tokens": usage.tokens_cached, "cache_write_tokens": usage.tokens_cache_write},
        "output_tokens": usage.tokens_out,
        "output_tokens_details": {"reasoning_tokens": usage.tokens_reasoning},
        "total_tokens": usage.tokens_in + usage.tokens_out,
    }


def _messages(said: ResponsesBody) -> tuple[Message, ...]:
    first = [Message.of("system", said.instructions)] if said.instructions else []
    if isinstance(said.input, str):
        return (*first, Message.of("user", said.input))
    messages = list(first)
    for at, item in enumerate(said.input):
        message = _item(item, f"input[{at}]")
        last = messages[-1] if messages else None
        if item.type == "function_call" and last is not None and last.role == "assistant":
            # one turn: what was said and the calls that came with it
            messages[-1] = Message("assistant", (*last.parts, *message.parts))
        else:
            messages.append(message)
    return tuple(messages)


def _item(item: Item, param: str) -> Message:
    match item.type:
        case "function_call":
            call = ToolCall(*(_needed(item, name, param) for name in ("call_id", "name", "arguments")))
            return Message("assistant", (call,))
        case "function_call_output":
            output = item.output
            if output is None:
                raise Refused(400, "invalid_request", f"{param}.output is missing", param=f"{param}.output")
            text = output if isinstance(output, str) else "".join(part.text for part in output)
            return Message("tool", (ToolResult(_needed(item, "call_id", param), text),))
        case "message":
            if item.role is None or item.content is None:
                lacks = "role" if item.role is None else "content"
                raise Refused(400, "invalid_request", f"{param}.{lacks} is missing", param=f"{param}.{lacks}")
            role: Role = "system" if item.role == "developer" else item.role
            if isinstance(item.content, str):
                return Message.of(role, item.content)
            parts = [_part(part, f"{param}.content[{at}]") for at, part in enumerate(item.content)]
            if role == "system" and any(isinstance(part, Media) for part in parts):
                raise unsupported(f"{param}.content", "of a system message takes text only")
            return Message(role, tuple(parts))


def _needed(item: Item, name: str, param: str) -> str:
    value: str | None = getattr(item, name)
    if value is None:
        raise Refused(400, "invalid_request", f"{param}.{name} is missing", param=f"{param}.{name}")
    return value


def _part(part: InputText | OutputText | Refusal | InputImage | InputFile, param: str) -> Part:
    match part:
        case InputText(text) | OutputText(text):
            return Text(text)
        case Refusal(text):
            return Text(text)
        case InputImage(url, detail):
            return image(url, detail, f"{param}.image_url")
        case InputFile():
            if part.file_url is not None and part.file_data is None:
                return Media("file", "application/octet-stream", url=part.file_url, name=part.filename)
            found = data_url(part.file_data or "")
            if found is None:
                raise unsupported(f"{param}.file_data", "has to be a data: URL")
            return Media("file", found[0], data=found[1], name=part.filename)
        case _:
            assert_never(part)
