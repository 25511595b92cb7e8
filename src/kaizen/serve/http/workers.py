"""The processes that answer: one, or a parent that holds the socket and as many children as are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, Final

import uvicorn

from kaizen.core.errors import ConfigError
from kaizen.serve.http.gateway import Gateway
from kaizen.serve.http.protocol import Connection

_logger = logging.getLogger(__name__)

_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75  # longer than the pools of the usual clients and proxies keep a connection
_GRACE_S: Final = 30
# A worker that died is started again; one after another that die at once are a fault that starting won't mend.
_DEATHS: Final = 5
_OVERDUE_S: Final = 5.0
_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_WITHIN_S: Final = 10.0

Make = Callable[[int], Gateway]


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: in one line, if it can't.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(
            f"can't listen on {host}:{port}: {reason[:1].lower()}{reason[1:]}; give another --port"
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Such as ``http://127.0.0.1:8000``."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server, ended by SIGTERM or Ctrl-C after the answers in the air, and by a second one at once.

    Args:
        config: uvicorn's.
        lifeline: end, too, when this pipe's other end is closed: the parent is gone.
        in_group: whether Ctrl-C in the terminal is the parent's to pass on.
    """

    def __init__(self, config: uvicorn.Config, *, lifeline: int | None = None, in_group: bool = False) -> None:
        super().__init__(config)
        self._lifeline, self._in_group = lifeline, in_group

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """As uvicorn's, but the process then ends by itself, with exit code 0, and not by the signal."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        if self._in_group:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._lifeline is not None:
            loop.add_reader(self._lifeline, self._orphaned)
        try:
            yield
        finally:
            if self._lifeline is not None:
                loop.remove_reader(self._lifeline)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    def _orphaned(self) -> None:
        if self._lifeline is not None:
            asyncio.get_running_loop().remove_reader(self._lifeline)
            self._lifeline = None
        self.should_exit = True


def make_server(application: Gateway, *, grace: float = _GRACE_S, **ends: Any) -> Server:
    """A server; ``run(sockets=[...])`` answers until told to end.

    Args:
        application: what it serves.
        grace: seconds that answers in the air have when it is to end.
        ends: see ``Server``.
    """
    config = uvicorn.Config(
        application,
        http=Connection,
        loop="uvloop" if _has_uvloop() else "asyncio",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace)),
    )
    return Server(config, **ends)


def serve_here(
    make: Make,
    listener: socket.socket,
    *,
    number: int = 0,
    grace: float = _GRACE_S,
    begun: Callable[[], None] | None = None,
    **ends: Any,
) -> None:
    """Answer in this process until told to end.

    Args:
        make: makes the application.
        listener: the socket.
        number: which worker this is.
        grace: see ``make_server``.
        begun: called when the application is made and calls are taken.
        ends: see ``Server``.
    """
    server = make_server(make(number), grace=grace, **ends)
    # What is there now stays: it need not be looked through again and again. A call makes some thousand objects, hardly
    # any in a cycle, so the youngest generation may grow to more than one call's.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    if begun is not None:
        begun()
    server.run(sockets=[listener])


def _has_uvloop() -> bool:
    try:
        import uvloop
    except ImportError:
        return False
    return uvloop.__name__ == "uvloop"


class Workers:
    """The parent of several processes that answer on one socket.

    A child that dies is started again. SIGTERM or Ctrl-C has them all finish what is in the air; a second one ends
    them at once.

    Args:
        make: makes a worker's application, in its process.
        listener: the socket.
        count: how many.
        grace: seconds that answers in the air have at the end.
    """

    def __init__(self, make: Make, listener: socket.socket, count: int, *, grace: float = _GRACE_S) -> None:
        self._make, self._listener, self._count, self._grace = make, listener, count, grace
        self._children: dict[int, int] = {}
        self._ending = False
        self._deaths: list[float] = []
        # held open by this process alone: when it is gone, however it went, the children see the pipe's end
        self._lifeline, self._held = os.pipe()

    def run(self, *, begun: Callable[[], None] | None = None) -> int:
        """Until told to end, or workers die faster than they can be started; the exit code.

        Args:
            begun: called when all are started.
        """
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number in range(self._count):
                self._start(number)
            if begun is not None:
                begun()
            while self._children:
                pid, status = os.waitpid(-1, 0)
                number = self._children.pop(pid, None)
                if number is not None and not self._ending:
                    self._died(number, os.waitstatus_to_exitcode(status))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._lifeline)
            os.close(self._held)
        return 1 if len(self._deaths) >= _DEATHS else 0

    def _start(self, number: int) -> None:
        # held back meanwhile: the parent must know the child before it is to end it, and the child must not run the
        # parent's handlers, which would end its siblings
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        pid = os.fork()
        if pid:
            self._children[pid] = number
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
            if self._ending:
                _end(pid)
            return
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
            os.close(self._held)
            serve_here(
                self._make, self._listener, number=number, grace=self._grace, lifeline=self._lifeline, in_group=True
            )
            code = 0
        except BaseException:
            _logger.exception("worker %d failed", number)
            raise
        finally:
            # not through the parent's stack, which this process has a copy of
            os._exit(code)

    def _died(self, number: int, code: int) -> None:
        _logger.error("worker %d ended with %d; it is started again", number, code)
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < _WITHIN_S] + [now]
        if len(self._deaths) >= _DEATHS:
            _logger.error("%d workers died within %g s: the gateway ends", _DEATHS, _WITHIN_S)
            self._end()
        else:
            self._start(number)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self._ending:
            # whoever is not through by then never will be
            signal.signal(signal.SIGALRM, self._overdue)
            signal.setitimer(signal.ITIMER_REAL, self._grace + _OVERDUE_S)
        self._ending = True
        for pid in self._children:
            _end(pid)

    def _overdue(self, number: int, frame: FrameType | None) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
