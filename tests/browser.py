"""Drive headless Chromium over its debugging pipe.

This is enough to open a local page, ask it questions and take its picture.

`python tests/browser.py PAGE PICTURE [WIDTH HEIGHT]` takes the picture of a page's first screen.
"""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP = (1280, 900)
PHONE = (390, 844)
# Far beyond what a page takes; it ends a test whose browser hangs.
_PATIENCE_S = 120
# Windows' codes of the keys that have a name.
_KEY_CODES = {"Backspace": 8, "Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}


def executable() -> str | None:
    """Return the path of the first Chromium that is installed, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """Drive one tab.

    `complaints` holds what its console, its exceptions and its content policy said; `requests` what
    it loaded.
    """

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive, self._buffer = send, receive, b""
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> dict:
        """Send a command to the tab and return the result."""
        return self._ask(method, self._session, **parameters)

    def open(self, path: Path, size: tuple[int, int] = DESKTOP, dark: bool = False) -> float:
        """Open a local file at a width and height in pixels; return the seconds until it loaded.

        The time ends when all of it has been loaded.
        """
        width, height = size
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = "dark" if dark else "light"
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded = False
        started = time.perf_counter()
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._hear(self._read())
        return time.perf_counter() - started

    def run(self, script: str) -> object:
        """Return the value of a script's last expression.

        Raises:
            AssertionError: If it throws.
        """
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def choose(self, identifier: str, value: str) -> None:
        """Choose an option as a reader would."""
        self.run(
            f"(() => {{ const s = document.getElementById({identifier!r}); s.value = {value!r};"
            " s.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def press(self, key: str) -> None:
        """Press and release a key: a letter, a digit, or one of those that have a name."""
        for kind in ("rawKeyDown", "char", "keyUp") if key == "Enter" else ("rawKeyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" else {}
            code = _KEY_CODES.get(key) or ord(key.upper())
            name = key if key in _KEY_CODES else f"{'Digit' if key.isdigit() else 'Key'}{key.upper()}"
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=name, windowsVirtualKeyCode=code, **text)

    def tap(self, selector: str) -> None:
        """Touch the middle of an element, where it is on the screen."""
        x, y = self.run(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        self.ask("Emulation.setTouchEmulationEnabled", enabled=True)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.ask("Emulation.setTouchEmulationEnabled", enabled=False)

    def write(self, text: str) -> None:
        """Write into the field that has the focus."""
        self.ask("Input.insertText", text=text)

    def save_downloads(self, folder: Path) -> None:
        """Let what the page offers for download be saved in a folder without a question."""
        self._ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def picture(self, path: Path, whole: bool = False) -> None:
        """Save the first screen, or the whole page, as a PNG file."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method: str, session: str | None = None, **parameters: object) -> dict:
        number = self._write(method, session, parameters)
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._hear(answer)

    def _write(self, method: str, session: str | None, parameters: dict) -> int:
        """Send a command and return its number, without waiting for the answer."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        return number

    def _read(self) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._receive], [], [], _PATIENCE_S)
            assert ready, f"the browser said nothing for {_PATIENCE_S} s"
            piece = os.read(self._receive, 1 << 20)
            assert piece, "the browser has ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _hear(self, event: dict) -> None:
        method, details = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(details))
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {details['type']} {details['message']}")
            # It waits for an answer, and so would whoever opens another page.
            self._write("Page.handleJavaScriptDialog", self._session, {"accept": True})


@contextlib.contextmanager
def page() -> Iterator[Page]:
    """Start Chromium without network and with a profile of its own, yield a tab, and end it."""
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options = f"--headless --remote-debugging-pipe --disable-gpu --hide-scrollbars --user-data-dir={profile}"
        # The sandbox of Chromium refuses to work for root, whom containers run as.
        sandbox = "--no-sandbox" if os.geteuid() == 0 else ""
        nowhere = "--proxy-server=127.0.0.1:9 --disable-background-networking --no-first-run"
        # Chromium reads commands from descriptor 3 and answers on 4; the shell puts the pipes
        # there.
        command = f'exec "$0" {options} {sandbox} {nowhere} about:blank 3<&{to_browser} 4>&{from_browser}'
        process = subprocess.Popen(
            ["/bin/bash", "-c", command, str(executable())],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(from_us, to_us)
        finally:
            os.close(from_us)
            os.close(to_us)
            process.terminate()
            process.wait()


def main() -> None:
    """Take the picture that the command line asks for."""
    source, target, *size = sys.argv[1:]
    if executable() is None:
        sys.exit("error: no Chromium is installed; run `make browser`")
    with page() as tab:
        tab.open(Path(source), (int(size[0]), int(size[1])) if size else DESKTOP)
        tab.picture(Path(target))


if __name__ == "__main__":
    main()
