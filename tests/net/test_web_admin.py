"""The administrator's part of the page against a server with users: what it does is so on the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers.unmask_process import Unmask
from helpers.web_page import Visit, run_browser, save_denoising_checkpoint, serve_page, visit, why_no_browser

pytestmark = [pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()), pytest.mark.slow]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The page of a server with users, where an administrator is signed in."""
    folder = tmp_path_factory.mktemp("admin")
    unmask = Unmask(folder / "server")
    unmask.folder.mkdir()
    assert unmask.run("user", "add", "root").code == 0
    made = unmask.run("token", "create", "root", "--scope", "admin,complete,edit", "--json")
    assert made.code == 0, made.err
    model = save_denoising_checkpoint(folder / "model")
    arguments = ("--model", model, "--edit-model", model)
    with (
        serve_page(folder / "server", *arguments, token="", UNMASK_SERVER_USERS="database") as address,
        run_browser() as browser,
        visit(browser, address) as seen,
    ):
        seen.expected = ("409", "401")
        seen.sign_in(made.json["token"])
        seen.page.get_by_role("link", name="Admin").click()
        yield seen


def session(address: str, token: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.get(f"{address}/v1/session", headers=headers, trust_env=False)


def test_a_user_gets_a_token_and_loses_it(tab: Visit) -> None:
    page = tab.page
    page.get_by_role("radio", name="Workspaces").check(force=True)
    page.get_by_role("button", name="Add a workspace").click()
    page.get_by_label("Name", exact=True).fill("backend")
    page.keyboard.press("Enter")
    page.get_by_role("rowheader", name="backend").wait_for()

    page.get_by_role("radio", name="Users").check(force=True)
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name", exact=True).fill("anna")
    page.get_by_label("Workspace (its").select_option("backend")
    page.keyboard.press("Enter")
    page.get_by_text("anna has no tokens.").wait_for()

    page.get_by_role("button", name="Make a token for anna").click()
    page.get_by_label("Name (what").fill("laptop")
    page.get_by_role("checkbox", name="edits").uncheck()
    page.get_by_role("button", name="Make", exact=True).click()
    token = page.get_by_label("The token").input_value()
    page.get_by_role("button", name="I have it").click()
    assert token not in page.content()
    answer = session(tab.address, token)
    assert (answer.json()["user"], answer.json()["scopes"]) == ("anna", ["complete"])

    page.get_by_role("button", name="Limits of anna").click()
    page.get_by_label("Requests a minute").fill("5")
    page.get_by_role("button", name="Save").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="anna"))
    row.get_by_role("cell", name="5", exact=True).wait_for()

    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("cell", name="revoked").wait_for()
    assert session(tab.address, token).status_code == 401

    page.get_by_role("radio", name="Audit log").check(force=True)
    for action in ("workspace.add", "user.add", "token.create", "token.revoke"):
        page.get_by_role("cell", name=action).first.wait_for()
    assert token not in page.content()


def test_a_mistake_is_said_where_it_was_made(tab: Visit) -> None:
    page = tab.page
    page.get_by_role("radio", name="Users").check(force=True)
    page.get_by_role("button", name="Add a user").click()
    page.get_by_label("Name", exact=True).fill("root")
    page.keyboard.press("Enter")
    alert = page.get_by_role("dialog").get_by_role("alert")
    assert "root" in alert.inner_text()
    page.get_by_role("button", name="Cancel").click()


def test_who_is_no_administrator_sees_no_administration(tab: Visit, tmp_path: Path) -> None:
    page = tab.page
    page.get_by_role("button", name="Sign out").click()
    assert page.get_by_role("link", name="Admin").count() == 0
    page.get_by_label("Access token").wait_for()
