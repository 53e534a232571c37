"""The page in a real browser: whatever it complains of on its console, violations of its policy too, is a failure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.web_page import TOKEN, Visit, run_browser, save_denoising_checkpoint, serve_page, visit, why_no_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()), pytest.mark.slow]

CODE = "a = 1\nb = 2\nc = "


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    model = save_denoising_checkpoint(folder / "model")
    with serve_page(folder / "server", "--model", model, "--edit-model", model) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with run_browser() as started:
        yield started


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Visit]:
    """A tab that is signed in, on the playground, with few tokens asked for."""
    with visit(browser, address) as seen:
        seen.sign_in()
        seen.page.get_by_label("Code", exact=True).wait_for()
        yield seen


def ask(page: Page, *, num_tokens: int = 12, code: str = CODE, policy: str = "") -> None:
    """Fill in the form by what a user sees of it."""
    page.get_by_label("Code", exact=True).fill(code)
    if not page.get_by_label("Most tokens").is_visible():
        page.get_by_text("Options", exact=True).click()
    page.get_by_label("Most tokens").fill(str(num_tokens))
    if policy:
        page.get_by_role("radio", name=policy, exact=True).check(force=True)


def figure(page: Page, name: str, lane: int = 0) -> str:
    return page.locator(".lane").nth(lane).locator(f".figures div:has(dt:text-is('{name}')) dd").inner_text()


def wait_for_end(page: Page, num_lanes: int = 1) -> None:
    done = "[...document.querySelectorAll('.lane-head .hint')].filter(e => / m?s;/.test(e.textContent)).length"
    wait_for(page, f"{done} === {num_lanes}")


def wait_for(page: Page, condition: str, timeout_s: float = 90) -> None:
    """Playwright's own wait would have the page evaluate a text, which its policy forbids."""
    give_up = time.monotonic() + timeout_s
    while not page.evaluate(condition):
        assert time.monotonic() < give_up, f"it did not come true in time: {condition}"
        page.wait_for_timeout(30)


def test_an_answer_is_watched_and_gone_through_again(tab: Visit) -> None:
    page = tab.page
    ask(page, policy="confidence")
    page.get_by_role("button", name="Run").click()
    wait_for_end(page)
    assert figure(page, "tokens") == "12"
    num_forwards = int(figure(page, "forwards"))
    assert num_forwards > 2  # more than there are blocks
    # Back by one forward: fewer are settled, and the block shows what was masked or could change.
    slider = page.get_by_role("slider", name="Forward")
    assert slider.get_attribute("max") == str(num_forwards)
    settled = page.locator(".stage .settled")
    at_end = settled.count()
    slider.press("Home")
    assert settled.count() == 0
    assert figure(page, "tokens") == "0"
    slider.press("ArrowRight")
    assert page.locator(".stage .masked").count() > 0
    assert "masked" in page.locator(".caption").inner_text()
    slider.press("End")
    assert settled.count() == at_end
    assert page.locator(".stage .masked").count() == 0
    # What is shown is what the server said, token for token.
    shown = "".join(page.locator(".stage .settled:not(.cut)").all_text_contents())
    page.get_by_role("button", name="Insert").click()
    assert page.get_by_label("Code", exact=True).input_value() == CODE + shown


def test_three_policies_are_compared_with_their_times(tab: Visit) -> None:
    page = tab.page
    ask(page)
    page.get_by_role("button", name="Compare").click()
    wait_for_end(page, 3)
    assert page.locator(".lane h2").all_inner_texts() == ["autoregressive", "verified", "confidence"]
    assert [figure(page, "tokens", lane) for lane in range(3)] == ["12"] * 3
    assert figure(page, "forwards") == "12"
    assert "the same text" in page.locator(".lane-head .hint").nth(1).inner_text()
    assert page.get_by_text("one after another").is_visible()
    # Replayed on one clock: at its beginning nothing is there.
    page.get_by_role("slider", name="Time").press("Home")
    assert page.locator(".stage .settled").count() == 0
    page.get_by_role("button", name="Play").click()
    wait_for(page, "document.querySelectorAll('.stage .settled').length > 20")


def test_an_edit_is_a_diff_that_sharpens(tab: Visit) -> None:
    page = tab.page
    page.get_by_role("radio", name="Edit").check(force=True)
    page.get_by_label("Code", exact=True).fill("x = 1\ny = 2\n")
    page.get_by_label("Code", exact=True).press("Control+a")
    page.get_by_role("button", name="Run").click()
    assert "instruction is empty" in page.get_by_role("alert").inner_text()
    page.get_by_label("Instruction").fill("Add one.")
    page.keyboard.press("Control+Enter")
    page.locator(".diff-line.gone").first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("stopped").wait_for()
    assert page.locator(".diff-line.gone").count() > 0
    assert page.get_by_role("button", name="Insert").is_disabled()


def test_everything_goes_by_keyboard(browser: Browser, address: str) -> None:
    with visit(browser, address) as seen:
        page = seen.page
        page.keyboard.type(TOKEN)  # the field has the focus
        page.keyboard.press("Enter")
        page.get_by_label("Code", exact=True).wait_for()
        wait_for(page, "document.activeElement.id === 'view'")
        order = []
        while not order or order[-1] != "TEXTAREA":
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.matches(':focus-visible')"), order
            order.append(page.evaluate("document.activeElement.tagName"))
        assert order == ["INPUT", "SELECT", "TEXTAREA"]  # the task, the examples, the code
        page.keyboard.press("Control+a")
        page.keyboard.type("x = ")
        page.keyboard.press("Control+Enter")
        wait_for_end(page)
        page.keyboard.press("Tab")  # out of the editor
        value = int(page.get_by_role("slider").input_value())
        page.keyboard.press(",")
        assert int(page.get_by_role("slider").input_value()) == value - 1
        page.keyboard.press("?")
        dialog = page.get_by_role("dialog")
        assert "play the trajectory" in dialog.inner_text()
        page.keyboard.press("Escape")
        assert dialog.count() == 0


def test_a_wrong_token_is_refused_and_not_kept(browser: Browser, address: str) -> None:
    with visit(browser, address) as seen:
        seen.expected = ("401",)
        seen.sign_in("not-the-token")
        seen.page.get_by_role("alert").wait_for()
        assert "wrong" in seen.page.get_by_role("alert").inner_text()
        stores = "JSON.stringify([{...sessionStorage}, {...localStorage}]) + document.cookie + location"
        assert "not-the-token" not in seen.page.evaluate(stores)
        seen.sign_in()
        seen.page.get_by_label("Code", exact=True).wait_for()
        assert TOKEN not in seen.page.evaluate("JSON.stringify({...localStorage}) + document.cookie + location")


def test_what_was_typed_survives_a_lost_server_and_a_reload(tab: Visit) -> None:
    page = tab.page
    tab.expected = ("ERR_INTERNET_DISCONNECTED",)
    ask(page, code="kept = True\n")
    page.context.set_offline(True)
    page.get_by_role("button", name="Run").click()
    assert "Your text is kept" in page.get_by_role("alert").inner_text()
    page.locator("#engine[data-state=offline]").wait_for()
    page.context.set_offline(False)
    page.locator("#engine[data-state=ready]").wait_for()
    page.get_by_role("button", name="Try again").click()
    wait_for_end(page)
    page.reload()
    assert page.get_by_label("Code", exact=True).input_value() == "kept = True\n"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_in_both_schemes(browser: Browser, address: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with visit(browser, address, color_scheme=scheme, reduced_motion="reduce") as seen:
        page = seen.page

        def check(name: str) -> None:
            found = axe.Axe().run(page).response["violations"]
            assert not found, (name, [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found])

        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        check("sign-in")
        seen.sign_in()
        page.get_by_label("Code", exact=True).wait_for()
        check("playground")
        ask(page, policy="confidence")
        page.get_by_role("button", name="Run").click()
        wait_for_end(page)
        page.get_by_role("slider").press("ArrowLeft")
        check("a trajectory")
        page.get_by_role("link", name="Admin").click()
        page.get_by_text("being computed").wait_for()
        check("the load")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.keyboard.press("t")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_it_fits_a_phone(browser: Browser, address: str) -> None:
    with visit(browser, address, viewport={"width": 360, "height": 740}) as seen:
        page = seen.page
        seen.sign_in()
        page.get_by_label("Code", exact=True).wait_for()
        ask(page, num_tokens=40)
        page.get_by_role("button", name="Compare").click()
        wait_for_end(page, 3)
        for view in ("#/", "#/admin?live", "#/admin?models"):
            page.evaluate("hash => { location.hash = hash }", view)
            page.locator("main h1").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, view


def test_hundreds_of_tokens_stay_smooth(tab: Visit) -> None:
    """Going through 500 tokens redraws in a fraction of a frame's time on average, whatever else the machine does."""
    page = tab.page
    ask(page, num_tokens=500, policy="autoregressive")
    page.get_by_label("Code", exact=True).fill("def f(x):\n" * 3)
    page.get_by_role("button", name="Run").click()
    wait_for_end(page)
    assert int(figure(page, "tokens")) > 90  # a random model may repeat itself
    ms = page.evaluate(
        """() => {
          const slider = document.querySelector('.timeline input');
          const begin = performance.now();
          let count = 0;
          for (let k = Number(slider.max); k >= 0; k -= 1, count += 1) {
            slider.value = k;
            slider.dispatchEvent(new Event('input'));
            document.querySelector('.stage').offsetHeight;
          }
          return (performance.now() - begin) / count;
        }"""
    )
    assert ms < 16


def test_an_administrator_sees_the_load_and_the_models(tab: Visit) -> None:
    page = tab.page
    ask(page)
    page.keyboard.press("Control+Enter")
    wait_for_end(page)
    page.get_by_role("link", name="Admin").click()
    page.get_by_text("Users of the last ten minutes").wait_for()
    row = page.get_by_role("row").filter(has_text="owner")
    assert int(row.get_by_role("cell").nth(1).inner_text()) >= 1
    assert re.search(r"tokens \d", page.get_by_role("img", name="Tokens").get_attribute("aria-label") or "")
    page.get_by_role("radio", name="Models").check(force=True)
    page.get_by_role("button", name="Load the checkpoints").click()
    page.get_by_text("replaced").first.wait_for()


@pytest.mark.real_model
def test_the_default_model_fills_in_a_function(browser: Browser, tmp_path: Path) -> None:
    import os

    from diffusion_core.config import DEFAULT_MODEL, cache_folder

    own = {"UNMASK_CACHE_DIR": str(cache_folder()), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    with (
        serve_page(tmp_path, "--model", DEFAULT_MODEL, "--edit-model", DEFAULT_MODEL, **own) as url,
        visit(browser, url) as seen,
    ):
        page = seen.page
        page.set_default_timeout(90_000)
        seen.sign_in()
        page.get_by_label("Code", exact=True).wait_for()
        ask(page, num_tokens=16, code="def add(a: int, b: int) -> int:\n    return ", policy="verified")
        page.get_by_role("button", name="Run").click()
        wait_for_end(page)
        settled = page.locator(".stage .settled:not(.cut)")
        assert "a + b" in "".join(settled.all_text_contents())
        assert float(figure(page, "tokens/forward")) > 1
        titles = [settled.nth(at).get_attribute("title") or "" for at in range(settled.count())]
        assert all(re.search(r"\d %$", title) for title in titles), json.dumps(titles)
