"""A GGUF model in this process: llama.cpp behind a queue, a few driver threads, and answers read by event loops.

llama.cpp answers a call on the thread that makes it, piece by piece, and stops when the callback that is
given a piece returns True; there is no other way to stop it. So a few driver threads (one a slot) take
calls from one queue, in order, and hand the pieces to the loop that asked. Whoever waits, waits in the
queue and holds no thread. A model is loaded by the first driver that has a call for it.

What xllamacpp is asked for by default would hurt here, and is set otherwise:

- ``cache_ram_mib`` and ``cache_idle_slots`` are off. They keep prompts of finished calls beside the slots, cost
  300 MiB and more, and brought answers to another conversation's prompt under load (llama.cpp issue 27148),
  which would be one tenant's text in another's reply. A slot's own prefix cache stays on.
- Each slot has its own share of the context (``kv_unified`` off), so that whether a call fits never depends
  on the calls beside it.
- The HTTP server that xllamacpp opens on a loopback port gets a random key, so that other users of the
  machine can't ask the model.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import secrets
import threading
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from kaizen.core.errors import ConfigError, ProviderError

# A prompt is read this many tokens at a time, and only between two reads can a call be stopped.
_PROMPT_BATCH: Final = 128
_QUIET: Final = -1
_TEXT: Final = b'"content":"'
_PLAIN_TEXT: Final = b'"text":"'


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How a model is loaded; equal options share one loaded model.

    Args:
        path: the GGUF file.
        threads: threads that compute; with as many as there are cores on a busy machine llama.cpp's
            spin-waiting falls from hundreds of tokens a second to less than one.
        slots: calls worked on at once.
        context: tokens of prompt and answer together that a call may have.
    """

    path: Path
    threads: int
    slots: int
    context: int


class Generation:
    """One answer on its way: written by a driver thread, read by the loop that made it.

    Args:
        body: the JSON body of a streaming completion.
        plain: whether it goes on with a text, instead of answering in a conversation.
        each: wake the reader for each piece with text; otherwise once, when all are there.
    """

    __slots__ = (
        *("_each", "_ended", "_loop", "_pieces", "_ready", "_stopped", "_told"),
        *("body", "expired", "failure", "plain"),
    )

    def __init__(self, body: bytes, *, each: bool, plain: bool = False) -> None:
        self.body, self.plain = body, plain
        self.failure: Exception | None = None
        self.expired = False
        self._each = each
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._pieces: deque[bytes] = deque()
        self._told = self._ended = self._stopped = False

    # -- on the loop ------------------------------------------------------------------------------

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """What llama.cpp sends, one JSON object each, until it ends, fails (``failure``) or expires (``expired``)."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            # Both before taking the pieces: one that comes later wakes us again, and is before the end.
            self._told = False
            ended = self._ended
            while self._pieces:
                yield self._pieces.popleft()
            if ended or self.expired:
                return

    def stop(self) -> None:
        """Have llama.cpp stop at the next token or part of the prompt; a call still queued never begins."""
        self._stopped = True

    def expire(self) -> None:
        """Stop, and wake the reader with ``expired`` set."""
        if not self._ended:
            self.expired = True
            self.stop()
            self._ready.set()

    # -- on a driver thread -----------------------------------------------------------------------

    def take(self, piece: bytes) -> bool:
        """Keep a piece; True stops llama.cpp."""
        if self._stopped:
            return True
        self._pieces.append(piece)
        # Pieces without text can wait for the next that has some: a wake costs llama.cpp a core for a moment.
        if self._each and not self._told and (_TEXT in piece or _PLAIN_TEXT in piece):
            self._told = True
            self._wake()
        return self._stopped

    def end(self, failure: Exception | None = None) -> None:
        """Nothing more comes."""
        self.failure = failure
        self._ended = True
        self._wake()

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._stopped

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:
            # the loop is closed: nobody is left to read
            self._stopped = True


class LlamaModel:
    """A model of this process, loaded when the first call reaches a driver."""

    def __init__(self, options: LlamaOptions) -> None:
        self._options = options
        self._queue: SimpleQueue[Generation | None] = SimpleQueue()
        self._running: set[Generation] = set()
        self._server: Any = None
        self._load_lock = threading.Lock()
        self._begun = self._closed = False
        # Daemons, so that the interpreter gets as far as ``close`` while a call is in the air.
        self._drivers = [
            threading.Thread(target=self._drive, name=f"kaizen-llama-{number}", daemon=True)
            for number in range(options.slots)
        ]
        for driver in self._drivers:
            driver.start()

    def submit(self, generation: Generation) -> None:
        """Queue a call; it begins when those before it have a slot."""
        self._queue.put(generation)

    @property
    def busy(self) -> int:
        """How many calls are being worked on."""
        return len(self._running)

    @property
    def address(self) -> str:
        """Where the HTTP server that comes with it listens; empty before it is loaded."""
        return self._server.listening_address if self._server is not None else ""

    def close(self) -> None:
        """Stop all calls, end the drivers, free the model. Takes as long as the step that llama.cpp is at."""
        self._closed = True
        for generation in self._running.copy():
            generation.stop()
        for _ in self._drivers:
            self._queue.put(None)
        for driver in self._drivers:
            driver.join()
        self._server = None

    def abandon(self) -> bool:
        """Let go without freeing, in a forked child; whether llama.cpp had begun in this process's parent."""
        if self._server is not None:
            # Freeing waits for threads that exist only in the parent.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._server))
        return self._begun

    def _drive(self) -> None:
        while (generation := self._queue.get()) is not None:
            if not generation.stopped:
                self._run(generation)

    def _run(self, generation: Generation) -> None:
        failure: Exception | None = None
        self._running.add(generation)
        try:
            if self._closed:
                raise RuntimeError("the process is ending")
            server = self._loaded()
            handle = server.handle_completions if generation.plain else server.handle_chat_completions
            handle(generation.body, generation.take)
        except Exception as error:  # noqa: BLE001 - carried to the loop that asked, which names it
            failure = error
        finally:
            self._running.discard(generation)
        generation.end(failure)

    def _loaded(self) -> Any:
        with self._load_lock:
            if self._server is None:
                self._begun = True
                self._server = _load(self._options)
            return self._server


_models: dict[LlamaOptions, LlamaModel] = {}
_lock = threading.Lock()
_forked = False


def llama_model(options: LlamaOptions) -> LlamaModel:
    """This process's model with these options; made, not yet loaded, at the first call.

    Raises:
        ProviderError: in a child that was forked after its parent had loaded a model.
    """
    if _forked:
        raise ProviderError(
            "this process was forked after an embedded model was loaded, and llama.cpp does not outlive a fork: "
            "fork before the first call, or start processes by spawn"
        )
    with _lock:
        model = _models.get(options)
        if model is None:
            model = _models[options] = LlamaModel(options)
        return model


def default_threads() -> int:
    """One less than the cores this process may run on, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


def _load(options: LlamaOptions) -> Any:
    if not options.path.is_file():
        raise ConfigError(f"there is no file {options.path} to load an embedded model from")
    try:
        llama: Any = import_module("xllamacpp")
    except ImportError:
        raise ConfigError(
            'the embedded model needs xllamacpp, which is not installed: pip install "kaizen-engine[embedded]"'
        ) from None
    params: Any = llama.CommonParams()
    params.model.path = str(options.path)
    params.n_parallel = options.slots
    params.n_ctx = options.context * options.slots
    params.n_batch = params.n_ubatch = _PROMPT_BATCH
    for part in (params.cpuparams, params.cpuparams_batch):
        part.n_threads = options.threads
    # On CPUs flash attention made short tails on a long cached prefix a fifth slower, and cold prompts hardly faster.
    params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.kv_unified = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.n_threads_http = 1
    params.api_keys = [secrets.token_hex()]
    params.ui = False
    params.verbosity = _QUIET
    try:
        return llama.Server(params)
    except RuntimeError:
        raise ConfigError(f"{options.path} is no model that llama.cpp can load (a GGUF file is wanted)") from None


def _close_all() -> None:
    # A driver that came back from llama.cpp into an interpreter that is gone would abort the process.
    with _lock:
        models = list(_models.values())
        _models.clear()
    for model in models:
        model.close()


def _start_anew() -> None:
    # Of a forked process only the forking thread exists: no driver, none of llama.cpp's threads, and whoever held
    # a lock, ours or one of its own, is gone. A child can load a model if its parent had not begun to.
    global _lock, _forked
    _lock = threading.Lock()
    for model in _models.values():
        _forked |= model.abandon()
    _models.clear()
    libc = ctypes.CDLL(None)
    if _forked and hasattr(libc, "on_exit"):
        # llama.cpp's static destructors wait for threads too, and would hang a child that ends by exit() (those of
        # multiprocessing end by _exit()). So it leaves before they run; Python has finished by then.
        libc.on_exit(ctypes.cast(libc["_exit"], ctypes.c_void_p), None)


atexit.register(_close_all)
os.register_at_fork(after_in_child=_start_anew)
