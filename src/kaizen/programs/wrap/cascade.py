"""A cascade of one program: the cheap model answers first, and a dearer one where that answer can't be relied on.

What a layer can't see, a program can: whether the answer fits its contract, which of the tokens are the answer and
which its JSON, whether several samples agree, and what a verifier says. The layer for calls without a contract is
``kaizen.inference.cascade``; the idea of both is FrugalGPT's (Chen, Zaharia and Zou 2023,
https://arxiv.org/abs/2305.05176), that of agreement is self-consistency (Wang et al. 2022,
https://arxiv.org/abs/2203.11171).
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypeVar, cast, overload

from kaizen.core.answer import Answer
from kaizen.core.context import EVERY, Context, Program, Runtime
from kaizen.core.errors import DefinitionError, OutputInvalid, ProviderError
from kaizen.core.params import Params
from kaizen.core.request import Chunk, Reply, Request, Spare, TokenLogprob
from kaizen.core.spec import dump
from kaizen.inference.cascade import Measure, confidence
from kaizen.programs.runnable import Runnable
from kaizen.programs.together import together
from kaizen.programs.wrap.best import Metric

A = TypeVar("A", bound=Answer)

By: TypeAlias = Literal["misfit", "probability", "agreement"]
"""What makes an answer count: that it fits; how probable its own tokens were; how many samples agree with it."""


class Cascade(Runnable[..., A]):
    """See ``cascade``."""

    def __init__(
        self, program: Program, models: Sequence[str], by: By | Metric | Program, least: float, measure: Measure
    ) -> None:
        mistakes = [] if len(models) >= 2 else ["models: at least two are needed, the cheapest first"]
        if not 0 <= least <= 1:
            mistakes.append(f"least = {least}: a confidence from 0 to 1 is needed")
        if mistakes:
            raise DefinitionError(program.spec.name, mistakes)
        self.spec = program.spec.variant("cascade")
        self._program, self._models, self._by = program, tuple(models), by
        self._least = least
        self._measure: Measure = measure
        self.samples, self.temperature = 5, 0.7

    async def run(self, ctx: Context, inputs: dict[str, Any]) -> Answer:
        """The first answer that counts; the last model's does in any case.

        Raises:
            OutputInvalid: the last model's answer misfits.
            ProviderError: the last model can't be asked.
        """
        for model in self._models[:-1]:
            try:
                answer, sure = await self._tried(ctx, model, inputs)
            except (OutputInvalid, ProviderError):
                continue
            if sure is not None and sure >= self._least:
                return answer
        last = ctx.fork(overrides={EVERY: Params(model=self._models[-1])})
        return await last.call(self._program, **inputs)

    async def _tried(self, ctx: Context, model: str, inputs: dict[str, Any]) -> tuple[Answer, float | None]:
        """A model's answer and how far it can be relied on; None where nothing tells."""
        # a repair by the same model would cost a call that the next one spends better
        params = Params(model=model, repairs=0)
        if self._by == "agreement":
            return await self._agreed(ctx, params, inputs)
        branch = ctx.fork(overrides={EVERY: params})
        if self._by == "probability":
            heard: list[Reply] = []
            branch.run = replace(branch.run, runtime=cast("Runtime", _Listening(branch.run.runtime, heard)))
            answer = await branch.call(self._program, **inputs)
            return answer, _sureness(heard, answer, self._measure)
        answer = await branch.call(self._program, **inputs)
        return answer, 1.0 if self._by == "misfit" else await self._verified(ctx, inputs, answer)

    async def _agreed(self, ctx: Context, params: Params, inputs: dict[str, Any]) -> tuple[Answer, float]:
        """The commonest of several answers, and its share; one that misfits agrees with none."""
        settings = (replace(params, temperature=self.temperature, seed=Spare(seed)) for seed in range(self.samples))
        branches = [ctx.fork(overrides={EVERY: one}) for one in settings]
        found = [one for one in await together(_fitting(branch, self._program, inputs) for branch in branches) if one]
        if not found:
            raise OutputInvalid(f"{self.spec.name}: no sample fits", reply="", problem="none fits the contract")
        votes = Counter(dump(answer.outputs) for answer in found)
        best, count = votes.most_common(1)[0]
        return next(one for one in found if dump(one.outputs) == best), count / self.samples

    async def _verified(self, ctx: Context, inputs: dict[str, Any], answer: Answer) -> float:
        """The word of a program, or of a function, on an answer."""
        verifier = self._by
        if hasattr(verifier, "spec"):
            program = cast("Program", verifier)
            known = inputs | dict(answer.outputs)
            said = await ctx.call(program, **{name: known[name] for name in program.spec.inputs if name in known})
            return float(next(iter(said.outputs.values())))
        verdict = cast("Metric", verifier)(inputs, answer)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        return float(verdict[0] if isinstance(verdict, tuple) else verdict)


class _Listening:
    """A runtime that asks for log-probabilities and hears the replies of the calls that pass it."""

    def __init__(self, runtime: Runtime, heard: list[Reply]) -> None:
        self._runtime, self._heard = runtime, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def complete(self, ctx: Context, request: Request, *through: Any) -> Coroutine[Any, Any, Reply]:
        return self._listened(self._runtime.complete(ctx, _telling(request), *through))

    async def _listened(self, reply: Coroutine[Any, Any, Reply]) -> Reply:
        self._heard.append(await reply)
        return self._heard[-1]

    async def stream(self, ctx: Context, request: Request) -> AsyncIterator[Chunk]:
        async for chunk in self._runtime.stream(ctx, _telling(request)):
            if chunk.reply is not None:
                self._heard.append(chunk.reply)
            yield chunk


def _telling(request: Request) -> Request:
    return request if request.top_logprobs is not None else replace(request, top_logprobs=Spare(0))


def _sureness(heard: Sequence[Reply], answer: Answer, measure: Measure) -> float | None:
    """The confidence of the least sure reply: a chain of calls is as sure as its weakest."""
    found = [confidence(value_tokens(reply, answer.outputs), measure) for reply in heard]
    known = [one for one in found if one is not None]
    return min(known) if found and len(known) == len(found) else None


def value_tokens(reply: Reply, outputs: Mapping[str, Any]) -> Sequence[TokenLogprob]:
    """The tokens of a reply that write the values of its outputs, where it is JSON that names them; else all.

    Names and brackets are the same in every answer, and how a grammar-bound model feels about them says nothing.
    """
    tokens = reply.logprobs
    text = "".join(token.token for token in tokens)
    spans: list[tuple[int, int]] = []
    for name in outputs:
        at = text.find(json.dumps(name, ensure_ascii=False))
        colon = text.find(":", at)
        if at < 0 or colon < 0:
            continue
        start = colon + 1 + len(text[colon + 1 :]) - len(text[colon + 1 :].lstrip())
        try:
            _, end = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            continue
        # of a text, what is between its quotes
        spans.append((start + 1, end - 1) if text[start] == '"' else (start, end))
    if not spans:
        return tokens
    chosen: list[TokenLogprob] = []
    begin = 0
    for token in tokens:
        end = begin + len(token.token)
        if any(begin < stop and end > start for start, stop in spans):
            chosen.append(token)
        begin = end
    return chosen


async def _fitting(ctx: Context, program: Program, inputs: dict[str, Any]) -> Answer | None:
    try:
        return await ctx.call(program, **inputs)
    except OutputInvalid:
        return None


@overload
def cascade(
    program: type[A],
    /,
    models: Sequence[str],
    *,
    by: By | Metric | Program = "misfit",
    least: float = 0.8,
    measure: Measure = "product",
    samples: int = 5,
    temperature: float = 0.7,
) -> Cascade[A]: ...
@overload
def cascade(
    program: Program,
    /,
    models: Sequence[str],
    *,
    by: By | Metric | Program = "misfit",
    least: float = 0.8,
    measure: Measure = "product",
    samples: int = 5,
    temperature: float = 0.7,
) -> Cascade[Answer]: ...
def cascade(
    program: Any,
    /,
    models: Sequence[str],
    *,
    by: By | Metric | Program = "misfit",
    least: float = 0.8,
    measure: Measure = "product",
    samples: int = 5,
    temperature: float = 0.7,
) -> Cascade[Any]:
    """Ask the cheap model first, and the next one where its answer does not count.

    An answer that misfits its contract, or a model that can't be asked, always goes on to the next. Every attempt is a
    step of its own, with its record.

    Args:
        program: a signature or any other program.
        models: refs, the cheapest first.
        by: what else makes an answer count: nothing ("misfit"); the probability of the tokens of its values
            ("probability"; a model that reports none is not relied on); the share of ``samples`` that give it
            ("agreement"); or a verifier, ``verifier(inputs, answer)`` or a program that takes inputs and outputs by
            name, whose number is the confidence.
        least: the confidence from which on an answer counts, 0 to 1; ``kaizen.inference.cascade.calibrate`` finds
            one from labelled answers.
        measure: how probabilities of tokens become one; "product" for short answers.
        samples: how many, for "agreement".
        temperature: of those.
    """
    made = Cascade[Any](cast("Program", program), models, by, least, measure)
    if samples < 2:
        raise DefinitionError(made.spec.name, [f"samples = {samples}: agreement needs at least two"])
    made.samples, made.temperature = samples, temperature
    return made
