"""A page as a reader's browser shows it.

Drives an installed Chromium; none is downloaded. Where there is none the test is
skipped, unless ``LAYERPEEL_REQUIRE_BROWSER=1`` says that there has to be one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

_COMMANDS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The part of an element's box that is neither cut off by the document nor scrolled away.
_PICTURES = """
() => [...document.querySelectorAll("svg")].map(svg => {
  const full = svg.getBoundingClientRect();
  let left = full.left, right = full.right;
  for (let e = svg.parentElement; e; e = e.parentElement) {
    if (getComputedStyle(e).overflowX === "visible") continue;
    const box = e.getBoundingClientRect();
    left = Math.max(left, box.left); right = Math.min(right, box.right);
  }
  return {name: svg.getAttribute("aria-label"), left, right, height: full.height};
})
"""

# WCAG 2 contrast of every piece of text with what is behind it. Text on coloured cells
# is left out: its background is drawn, not inherited.
_CONTRASTS = """
() => {
  const reading = {willReadFrequently: true};
  const canvas = document.createElement("canvas").getContext("2d", reading);
  const pixel = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(
      v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = pixel(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode, e = node.parentElement;
    const text = node.textContent.trim();
    if (!text || e.closest("style")) continue;
    const drawn = e.closest("svg");
    const front = pixel(getComputedStyle(e)[drawn ? "fill" : "color"]), back = behind(e);
    const [a, b] = [luminance(front), luminance(back)];
    if (drawn && front.join() === back.join()) continue;
    found.push({text, ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)});
  }
  return found;
}
"""


@dataclass(frozen=True)
class Picture:
    """The visible part of a picture, in CSS pixels of the document."""

    name: str
    left: float
    right: float
    height: float


@dataclass(frozen=True)
class PageState:
    """What happened when a page was opened.

    Attributes:
        errors: Messages of the console at error or warning level, and uncaught errors.
        requests: Every address asked for besides the page itself.
        scroll_width: The width of the content.
        client_width: The width there is for it.
        pictures: The pictures, in order.
        contrasts: The contrast of every piece of text, with the text.
        background: The colour behind the page.
        text: The text of the page as a reader can select it.
    """

    errors: list[str]
    requests: list[str]
    scroll_width: int
    client_width: int
    pictures: list[Picture]
    contrasts: list[tuple[float, str]]
    background: str
    text: str


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the installed Chromium, or skip the test."""
    command = next(filter(None, map(shutil.which, _COMMANDS)), None)
    if command is None:
        reason = f"none of {', '.join(_COMMANDS)} is installed"
        if os.environ.get("LAYERPEEL_REQUIRE_BROWSER") == "1":
            pytest.fail(f"LAYERPEEL_REQUIRE_BROWSER=1, but {reason}")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=command, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def page_state(
    path: Path,
    width: int,
    scheme: str,
    *,
    javascript: bool = True,
    browser: Browser | None = None,
    screenshot: Path | None = None,
) -> PageState:
    """Open a saved page and report what a reader would see, good or bad.

    Args:
        path: The file.
        width: Of the window, in CSS pixels.
        scheme: The reader's colour scheme, ``"light"`` or ``"dark"``.
        javascript: Whether the page may run scripts.
        browser: A running browser; one is started when omitted.
        screenshot: Where to put a picture of the whole page.
    """
    if browser is None:
        with chromium() as started:
            return page_state(
                path,
                width,
                scheme,
                javascript=javascript,
                browser=started,
                screenshot=screenshot,
            )
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        java_script_enabled=javascript,
    )
    try:
        page = context.new_page()
        errors: list[str] = []
        requests: list[str] = []
        page.on(
            "console",
            lambda said: errors.append(said.text) if said.type != "log" else None,
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_timeout(100)  # for what a script would do after loading
        root = "document.documentElement"
        state = PageState(
            errors,
            [url for url in requests if url != path.as_uri()],
            page.evaluate(f"{root}.scrollWidth"),
            page.evaluate(f"{root}.clientWidth"),
            [Picture(**found) for found in page.evaluate(_PICTURES)],
            [(found["ratio"], found["text"]) for found in page.evaluate(_CONTRASTS)],
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
            page.evaluate("document.body.innerText"),
        )
        if screenshot is not None:
            page.screenshot(path=screenshot, full_page=True)
        return state
    finally:
        context.close()


def assert_readable(state: PageState) -> None:
    """Check what must hold of every report in every window.

    No error, no request, no horizontal scrolling, every picture in sight, and text that
    contrasts as much as WCAG 2 AA asks for.
    """
    assert state.errors == []
    assert state.requests == []
    assert state.scroll_width <= state.client_width
    for picture in state.pictures:
        assert picture.left >= 0, picture
        assert picture.right <= state.client_width, picture
        assert picture.right - picture.left > 100, picture
        assert picture.height > 50, picture
    assert state.contrasts
    assert [(ratio, text) for ratio, text in state.contrasts if ratio < 4.5] == []


def inspect_page(path: Path, width: int, scheme: str, **options: Any) -> PageState:
    """Open a saved page, check that it is readable, and report what a reader sees.

    Args:
        path: The file.
        width: Of the window, in CSS pixels.
        scheme: The reader's colour scheme, ``"light"`` or ``"dark"``.
        **options: As of `page_state`.
    """
    state = page_state(path, width, scheme, **options)
    assert_readable(state)
    return state
