"""Chromium without a window, told what to do over its DevTools protocol.

The protocol comes through two pipes (``--remote-debugging-pipe``), one JSON message after another with a zero byte
between them, so that no client of WebSockets is needed. See https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
    "--window-size=1280,800",
)


def chromium() -> str | None:
    """The browser, where one is installed."""
    return next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page, while the ``with`` block lasts.

    Attributes:
        errors: what the page's console had to complain of.
        requests: the addresses that were asked for.
    """

    def __init__(self, program: str) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._folder = tempfile.mkdtemp(prefix="kaizen-chromium-")
        hears, self._tell = os.pipe()
        self._hear, tells = os.pipe()
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        command = [program, *_FLAGS, *sandbox, f"--user-data-dir={self._folder}", "about:blank"]
        # bash puts the pipes where Chromium looks for them: 3 to hear, 4 to tell
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{hears} 4>&{tells}', "bash", *command],
            pass_fds=(hears, tells),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(hears)
        os.close(tells)
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self._context: str | None = None

    def __enter__(self) -> Self:
        try:
            self.attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._tell)  # it ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._hear)
        shutil.rmtree(self._folder, ignore_errors=True)

    def attach(self) -> None:
        """Open a page of its own in the place of the one there is: nothing of that is known to it."""
        self._session = None
        if self._context is not None:
            self.call("Target.disposeBrowserContext", browserContextId=self._context)
        context = self._context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, *, within: float = 20.0, **params: Any) -> Any:
        """One call of the protocol, and its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._tell, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + within
        while True:
            answer = self._next(end)
            if answer is None:
                raise AssertionError(f"{method}: no answer within {within} s")
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """What an expression comes to on the page."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, script: str, *, within: float = 15.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + within
        while not self.value(f"Boolean({script})"):
            text = self.value("document.body?.innerText")
            assert time.monotonic() < end, f"not within {within} s: {script}\n{text}"
            self._next(time.monotonic() + 0.05)

    def text(self, selector: str) -> str:
        """What stands in an element, as it is seen."""
        return self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def press(self, selector: str, text: str = "") -> None:
        """Click the first element of that selector that says this, as a user would."""
        found, said = json.dumps(selector), json.dumps(text)
        script = f"[...document.querySelectorAll({found})].find((e) => e.innerText.includes({said}))"
        self.until(script)
        self.value(f"{script}.click()")

    def picture(self, path: Path, *, dark: bool = False) -> None:
        """Keep how the page looks."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _next(self, end: float) -> dict[str, Any] | None:
        """The next message; None at the end of the time."""
        while b"\0" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._hear], [], [], left)[0]:
                return None
            piece = os.read(self._hear, 1 << 20)
            assert piece, "Chromium ended"
            self._buffer += piece
        data, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(data)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("sessionId") != self._session:
            return
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case _:
                pass
