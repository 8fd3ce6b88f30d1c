"""One browser for all tests here, and pages that are watched: whatever a page complains about or asks for fails its test."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Error, Page, sync_playwright

from tests.browser.pages import PAGES

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",  # as root in a container it has none
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
NOT_FOUND = (
    f"no browser: got none of {', '.join(COMMANDS)}; install chromium (`make browser`), or set MODBENCH_CHROMIUM"
)
WIDE, PHONE = (1440, 900), (390, 844)
TIMEOUT_MS = 10_000

PageOf = Callable[..., Page]


def find_chromium() -> str | None:
    named = os.environ.get("MODBENCH_CHROMIUM")
    return named or next((found for command in COMMANDS if (found := shutil.which(command))), None)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one tests are skipped, and fail where MODBENCH_REQUIRE_BROWSER is set."""
    path = find_chromium()
    if path is None and os.environ.get("MODBENCH_REQUIRE_BROWSER"):
        pytest.fail(NOT_FOUND)
    if path is None:
        pytest.skip(NOT_FOUND)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every page by name, made once."""
    folder = tmp_path_factory.mktemp("pages")
    return {name: make(folder) for name, make in PAGES.items()}


@pytest.fixture
def page_of(browser: Browser) -> Iterator[PageOf]:
    """`page_of(path, size, scheme, javascript)` opens a page; at the end nothing may have gone wrong on any of them."""
    contexts, problems = [], []

    def open_page(
        path: Path,
        size: tuple[int, int] = WIDE,
        scheme: Literal["light", "dark"] = "light",
        javascript: bool = True,
        **options: Any,
    ) -> Page:
        viewport = {"width": size[0], "height": size[1]}
        context = browser.new_context(
            viewport=viewport, color_scheme=scheme, java_script_enabled=javascript, service_workers="block", **options
        )
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        watch(page, path.as_uri(), problems)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def watch(page: Page, address: str, problems: list[str]) -> None:
    """Note console messages, errors, dialogs, other windows and every request but those for the page itself and data."""

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            problems.append(f"console {message.type}: {message.text}")

    def note_dialog(dialog: Dialog) -> None:
        problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note_request(url: str) -> None:
        if url.partition("#")[0] != address and not url.startswith("data:"):
            problems.append(f"request: {url[:200]}")

    def note_error(error: Error) -> None:
        problems.append(f"error: {error.message}")

    page.on("console", note_message)
    page.on("pageerror", note_error)
    page.on("dialog", note_dialog)
    page.on("popup", lambda popup: problems.append(f"popup: {popup.url[:200]}"))
    page.on("request", lambda request: note_request(request.url))
