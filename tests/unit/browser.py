"""A headless Chromium, driven through ChromeDriver with the W3C's WebDriver protocol."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync",
          "--disable-dev-shm-usage", "--window-size=1200,800")


def missing() -> str:
    """Why there can be no browser here; empty if there can."""
    if shutil.which("chromedriver") and shutil.which("chromium"):
        return ""
    return "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)"


class Browser:
    """One window."""

    def __init__(self, address: str, session: str) -> None:
        self._base = f"{address}/session/{session}"

    def post(self, path: str, **body: Any) -> Any:
        return _request(f"{self._base}/{path}", body)

    def run(self, script: str, *words: Any) -> Any:
        """What a script returns."""
        return self.post("execute/sync", script=script, args=list(words))

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def until(self, script: str) -> Any:
        """What a script returns as soon as it is true."""
        deadline = time.monotonic() + 60
        while not (found := self.run(f"return {script}")):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)
        return found

    def pointer(self, *actions: dict[str, Any]) -> None:
        self.post("actions", actions=[{"type": "pointer", "id": "mouse", "actions": list(actions)}])

    def point(self, x: int, y: int) -> None:
        self.pointer({"type": "pointerMove", "duration": 0, "x": x, "y": y})

    def click(self, x: int, y: int) -> None:
        self.pointer({"type": "pointerMove", "duration": 0, "x": x, "y": y},
                     {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0})

    def drag(self, x: int, y: int, dx: int, dy: int) -> None:
        self.pointer({"type": "pointerMove", "duration": 0, "x": x, "y": y},
                     {"type": "pointerDown", "button": 0},
                     {"type": "pointerMove", "duration": 50, "x": x + dx, "y": y + dy},
                     {"type": "pointerUp", "button": 0})

    def wheel(self, x: int, y: int, delta: int) -> None:
        self.post("actions", actions=[{"type": "wheel", "id": "wheel", "actions": [
            {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": delta, "duration": 0}]}])

    def requests(self) -> list[str]:
        """The addresses that were asked since the last time."""
        events = [json.loads(one["message"])["message"]
                  for one in self.post("se/log", type="performance")]
        return [event["params"]["request"]["url"] for event in events
                if event["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the console has to say."""
        return [one["message"] for one in self.post("se/log", type="browser")]


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, ended with the block; where none starts, what asks for
    one is left out."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            assert driver.stdout
            port = next(found[1] for line in driver.stdout
                        if (found := re.search(r"on port (\d+)\.", line)))
            address = f"http://127.0.0.1:{port}"
            options = {"args": [*_FLAGS, f"--user-data-dir={profile}"],
                       "binary": shutil.which("chromium")}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options,
                      "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
            try:
                session = _request(f"{address}/session",
                                   {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            except (AssertionError, OSError) as error:
                pytest.skip(f"chromium does not start here: {str(error)[-200:]!r}")
            yield Browser(address, session)
            _request(f"{address}/session/{session}", None, "DELETE")
        finally:
            driver.terminate()
            driver.wait()
            assert driver.stdout
            driver.stdout.close()


def _request(address: str, body: Any, method: str = "POST") -> Any:
    asked = urllib.request.Request(address, json.dumps(body).encode() if body is not None else None,
                                   {"Content-Type": "application/json"}, method=method)
    # the machine's proxies are not for its own addresses
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=180) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()[:2000]) from error


