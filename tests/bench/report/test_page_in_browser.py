"""The page in a real browser: it loads and logs nothing, sorts by mouse and keyboard, and runs no hostile text."""

import pytest

from bench.report import build_report

NAME = "<img src=x onerror=alert(1)>"


@pytest.fixture
def page(chromium, cold_start, renamed, tmp_path):
    api = pytest.importorskip("playwright.sync_api")
    spec, results = renamed(cold_start, "teacher+opd", NAME)
    path = build_report(spec, results, tmp_path)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        events: list[str] = []
        page.on("console", lambda message: events.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: events.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
        page.on("request", lambda r: events.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.goto(path.as_uri())
        yield page, events
        browser.close()


@pytest.mark.slow
def test_the_page_works_alone_and_sorts(page):
    view, events = page
    arms = "#table-leaderboard tbody th"
    first = view.locator(arms).all_inner_texts()
    assert first[0] == "teacher+grpo_opd" and NAME in first

    head = view.locator("#table-leaderboard thead th").nth(2)
    head.get_by_role("button").focus()
    view.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert view.locator(arms).all_inner_texts() == first
    view.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "ascending"
    assert view.locator(arms).all_inner_texts() == first[::-1]

    view.locator("#table-leaderboard thead th").first.get_by_role("button").click()
    names = view.locator(arms).all_inner_texts()
    assert sorted(names) == sorted(first) and names[-1] == "teacher+sft_only"
    assert view.locator("#table-leaderboard th[aria-sort]").count() == 1

    assert all(view.evaluate("[...document.images].map((i) => i.complete && i.naturalWidth > 100)"))
    assert all(view.evaluate("[...document.images].map((i) => i.alt.length > 20)"))
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert events == []
