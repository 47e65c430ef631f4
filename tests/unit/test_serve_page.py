"""The page of `serve` in a browser: every view, on a phone and on a desk, by keyboard, with hostile
names, asking nobody else, and for people who use a screen reader."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import pytest
from browser import Browser, browser, missing
from served import HOSTILE, Server, record_series, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "there is one")

VIEWS = ("owners", "balance", "leaks", "history", "flame", "map", "frag")
WIDTHS = (390, 1440)
TAB, ENTER, SPACE, RIGHT, END = "\ue004", "\ue007", " ", "\ue014", "\ue010"
IDLE = ("document.querySelector('#views a') && "
        "!document.querySelector('#view').hasAttribute('aria-busy')")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("page") / "recorded"
    record_series(folder)
    with serving(folder) as found:
        found.figures()
        yield found


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


def open_view(window: Browser, server: Server, view: str, width: int = 1440) -> None:
    window.post("goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params={
        "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    window.post("url", url="about:blank")
    window.requests()
    window.complaints()
    window.post("url", url=f"http://{server.host}:{server.port}/#{view}")
    window.until(IDLE)


def press(window: Browser, *keys: str) -> None:
    window.post("actions", actions=[{"type": "key", "id": "keys", "actions": [
        action for key in keys for action in ({"type": "keyDown", "value": key},
                                              {"type": "keyUp", "value": key})]}])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_fits_asks_only_its_server_and_runs_nothing_hostile(
        window: Browser, server: Server, view: str, width: int) -> None:
    window.post("goog/cdp/execute", cmd="Page.addScriptToEvaluateOnNewDocument", params={
        "source": "window.alert = () => { document.title = 'ran'; };"})
    open_view(window, server, view, width)
    if view in ("flame", "map"):
        window.until("document.querySelector('iframe').contentDocument.readyState === 'complete'")
    window.run("for (const one of document.querySelectorAll('details')) one.open = true;")
    wide, there = window.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= there
    assert window.run("return document.title").startswith(
        {"frag": "Fragmentation"}.get(view, view.capitalize()))
    assert window.complaints() == []
    own = f"http://{server.host}:{server.port}/"
    assert [address for address in window.requests()
            if not address.startswith((own, "data:", "about:"))] == []
    assert not window.run("return !!document.querySelector('#view img, #view script')")
    text = window.text("#view")
    assert {"owners": "anon_pipe_write", "balance": "this machine", "leaks": "6 bursts",
            "history": "owners changed", "frag": "Pageblocks"}.get(view, "Open in a window") in text


def test_hostile_names_are_shown_as_they_are(window: Browser, server: Server) -> None:
    open_view(window, server, "owners?by=comm")
    text = window.text("#view")
    assert HOSTILE in text
    assert window.run("return document.title") != "ran"
    open_view(window, server, "owners")
    window.run("for (const one of document.querySelectorAll('details')) one.open = true;")
    assert f"{HOSTILE}+0x1/0x2" in window.text("#view")


def focused(window: Browser) -> str:
    return str(window.run("const e = document.activeElement; return `${e.tagName} ${"
                          "e.textContent.trim().slice(0, 40)}`"))


def test_the_keyboard_is_enough(window: Browser, server: Server) -> None:
    open_view(window, server, "owners")
    press(window, TAB)
    assert focused(window) == "A Skip to the view"
    for _ in range(3):
        press(window, TAB)
    assert focused(window) == "A Leaks"
    press(window, ENTER)
    window.until("document.title.startsWith('Leaks')")
    open_view(window, server, "owners")
    seen = []
    for _ in range(25):
        press(window, TAB)
        seen.append(focused(window))
        if seen[-1].startswith("SUMMARY"):
            break
    assert any(one.startswith("SELECT") for one in seen)
    assert any(one.startswith("INPUT") for one in seen)
    assert any(one == "BUTTON Blocks" for one in seen)
    assert window.run("return !document.activeElement.parentNode.open")
    press(window, ENTER)
    assert window.run("return document.activeElement.parentNode.open")


def test_owners_are_filtered_sorted_and_grouped(window: Browser, server: Server) -> None:
    open_view(window, server, "owners")
    window.run("const i = document.querySelector('input[type=search]');"
               "i.value = 'PIPES'; i.dispatchEvent(new Event('input'));")
    assert window.run("return document.querySelectorAll('tbody tr').length") == 1
    assert "filter=PIPES" in window.run("return location.hash")
    window.run("const s = document.querySelector('select');"
               "s.value = 'memcg'; s.dispatchEvent(new Event('change'));")
    window.until("document.querySelector('tbody') && "
                 "!document.querySelector('tbody').textContent.includes('anon_pipe_write')")
    window.run("document.querySelectorAll('th button')[1].click()")
    window.until("location.hash.includes('sort=blocks')")


def test_two_moments_are_compared_step_by_step(window: Browser, server: Server) -> None:
    open_view(window, server, "history")
    assert "70 MiB" in window.text("#view")
    window.run("document.querySelectorAll('input[type=range]')[0].focus()")
    press(window, RIGHT, RIGHT)
    window.until("location.hash.includes('before=')")
    window.until(IDLE)
    assert window.run("return document.activeElement.type") == "range"
    window.run("const i = document.querySelectorAll('input[type=range]')[1];"
               "i.value = 5; i.dispatchEvent(new Event('change'));")
    window.until("!document.querySelector('[aria-label=\"One capture on\"]').disabled")
    before = window.run("return location.hash")
    window.run("document.querySelector('[aria-label=\"One capture on\"]').click()")
    window.until(f"location.hash !== {before!r}")


def test_the_diagrams_of_flames_and_memory_run_inside(window: Browser, server: Server) -> None:
    open_view(window, server, "flame")
    window.until("document.querySelector('iframe').contentDocument.querySelectorAll('#graph div')"
                 ".length > 3")
    open_view(window, server, "map")
    window.until("document.querySelector('iframe').contentDocument.querySelector('aside')"
                 "?.innerText.includes('pipes')")
    assert window.complaints() == []


def test_an_error_is_told(window: Browser, server: Server) -> None:
    open_view(window, server, "owners?by=colour")
    assert "cannot group by 'colour'" in window.text("#view .error")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_serious_is_in_the_way_of_screen_readers(window: Browser, server: Server,
                                                         view: str, width: int) -> None:
    axe = pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    script = resources.files(axe).joinpath("axe.min.js").read_text()
    open_view(window, server, view, width)
    window.post("timeouts", script=60000)
    found = window.post("execute/async", args=[], script=f"""
        {script}
        const done = arguments[arguments.length - 1];
        axe.run(document, {{iframes: false}}).then(found => done(found.violations.filter(
            one => ['serious', 'critical'].includes(one.impact)).map(
            one => [one.id, one.nodes.slice(0, 3).map(node => node.html)])));""")
    assert found == []
