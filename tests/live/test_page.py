"""The status page in a real Chromium, over real agents and a real cluster."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node
from tests.bed.agent import Agent, agents_beside
from tests.bed.browser import Chromium, browser
from tests.conftest import StartCluster

pytestmark = pytest.mark.live

SOON = 20_000  # milliseconds; a second or two, on a machine that does nothing else
EVIL = '<script>alert("name")</script>'


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with browser() as started:
        yield started


def card(page: Page, name: str) -> str:
    return page.locator(f"#node-{name}").inner_text()


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return width


def test_a_promotion_is_seen_without_a_reload(
    tmp_path: Path, start_cluster: StartCluster, chromium: Chromium
) -> None:
    cluster = start_cluster(2)
    pg1, pg2 = cluster.nodes
    with agents_beside(tmp_path, cluster.nodes, {"start_alone_after": "3s"}) as (one, two):
        one.wait_for("/primary", 200)
        two.wait_for("/replica", 200)
        page, complaints = chromium.page(f"{two.url}/ui")
        summary = page.locator("#summary")
        expect(summary).to_have_text("Writes go to pg1. Reads go to pg2.", timeout=SOON)
        page.evaluate("window.untouched = true")
        page.locator("#hour summary").click()  # a person has opened something, and the focus is there
        pg1.stop("immediate")
        expect(page.locator("#node-pg1")).to_contain_text("PostgreSQL does not answer", timeout=SOON)
        expect(summary).to_contain_text("No node takes writes.", timeout=SOON)
        pg2.promote()
        expect(summary).to_contain_text("Writes go to pg2.", timeout=2 * SOON)
        expect(page).to_have_title(re.compile("writes go to pg2", re.IGNORECASE))
        expect(page.locator("#events tbody")).to_contain_text("not_primary", timeout=SOON)
        expect(page.locator("#node-pg2 svg.mark rect")).to_have_class("is-writes")
        expect(page.locator("#hour svg.band rect.is-writes").first).to_be_visible(timeout=SOON)
        assert page.evaluate("window.untouched") is True
        assert page.locator("#hour details").get_attribute("open") is not None
        assert page.evaluate("document.activeElement.localName") == "summary"
        assert complaints == []

        one.kill()  # and what an agent no longer says is not passed off as the present
        expect(page.locator("#node-pg1")).to_contain_text("Not heard", timeout=SOON)
        two.kill()
        lost = page.locator("#lost")
        expect(lost).to_be_visible(timeout=SOON)
        expect(lost).to_contain_text("No answer from this agent since")
        assert page.locator("body.lost").count() == 1
        two.start()
        expect(lost).to_be_hidden(timeout=SOON)
        expect(page.locator("body.lost")).to_have_count(0)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A witness whose peers, and cluster, have names that would like to be markup."""
    peers = {
        EVIL: f"http://127.0.0.1:{free_port()}",
        "x' onload='alert(1)": f"http://127.0.0.1:{free_port()}",
    }
    settings = {"witness": True, "cluster": "<img src=x onerror=alert(2)>"}
    folder = tmp_path_factory.mktemp("evil")
    with Agent(folder, name="w1", peers=peers, settings=settings) as agent:
        yield agent


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
def test_markup_in_a_name_is_text(evil: Agent, chromium: Chromium, script: bool) -> None:
    page, complaints = chromium.page(f"{evil.url}/ui", script=script)
    if script:
        with page.expect_response(lambda reply: "part=live" in reply.url, timeout=SOON):
            pass
    assert EVIL in page.locator("#nodes").inner_text()
    assert "<img src=x onerror=alert(2)>" in page.locator("h1").inner_text()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert complaints == []


def test_without_javascript_it_shows_the_same_and_reloads(evil: Agent, chromium: Chromium) -> None:
    page, _ = chromium.page(f"{evil.url}/ui", script=False)
    assert "No node takes writes." in page.locator("#summary").inner_text()
    seen = page.locator("header time").get_attribute("datetime")
    with page.expect_navigation(timeout=SOON):
        pass
    assert page.locator("header time").get_attribute("datetime") != seen


def test_an_injected_script_would_not_run(evil: Agent, chromium: Chromium) -> None:
    """The second line of defence: the browser itself refuses what is not our script."""
    page, complaints = chromium.page(f"{evil.url}/ui")
    page.evaluate(
        """() => { const made = document.createElement('div');
        made.innerHTML = '<img src="x" onerror="window.pwned = 1">'; document.body.append(made);
        const script = document.createElement('script'); script.textContent = 'window.pwned = 2';
        document.body.append(script); }"""
    )
    expect(page.locator("#summary")).to_be_visible()
    assert page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in complaint for complaint in complaints)


@pytest.mark.parametrize("width", [400, 520, 768, 1400])
def test_nothing_is_wider_than_the_window(evil: Agent, chromium: Chromium, width: int) -> None:
    page, complaints = chromium.page(f"{evil.url}/ui", width=width)
    assert overflow(page) <= 0
    assert complaints == []


def test_it_is_dark_where_that_is_preferred(evil: Agent, chromium: Chromium) -> None:
    def back(dark: bool) -> int:
        page, _ = chromium.page(f"{evil.url}/ui", dark=dark)
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3])

    assert back(dark=True) < 150 < 600 < back(dark=False)


def test_the_keyboard_reaches_everything_in_order(evil: Agent, chromium: Chromium) -> None:
    page, _ = chromium.page(f"{evil.url}/ui")
    reached: list[tuple[str, float]] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, place = page.evaluate(
            """() => { const at = document.activeElement, top = at.getBoundingClientRect().top;
            return [at.localName + ' ' + at.textContent.trim().slice(0, 30), top + scrollY] }"""
        )
        if name.startswith("body") or name in [seen for seen, _ in reached]:
            break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", name
        reached.append((name, place))
    assert reached[0][0] == "a Skip to the nodes"
    assert [name for name, _ in reached if name.startswith("a /")] == [
        *("a /status", "a /events", "a /metrics", "a /cluster")
    ]
    assert all(above <= below + 1 for (_, above), (_, below) in pairwise(reached[1:])), reached
    page.keyboard.press("Shift+Tab")
    page.locator("#hour summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#hour details").get_attribute("open") is not None


def test_a_screen_reader_hears_names_for_everything(evil: Agent, chromium: Chromium) -> None:
    """What axe's rules ask for, from the browser's own tree: names of regions, tables, pictures, links."""
    page, _ = chromium.page(f"{evil.url}/ui")
    tree = page.locator("body").aria_snapshot()
    for line in (
        "- banner",
        "- main",
        'heading "Nodes" [level=2]',
        "- status",
        'region "The last 10 minutes"',
    ):
        assert line in tree, f"{line}\n{tree}"
    nameless = re.findall(r"- (?:link|img|table|region|button)(?::|$)", tree, re.MULTILINE)
    assert nameless == []


def test_many_members_do_not_delay_checks(tmp_path: Path, postgres: Node, chromium: Chromium) -> None:
    """64 silent peers: the page is there, and /primary answers while somebody looks."""
    peers = {f"peer-{number}": f"http://127.0.0.1:{free_port()}" for number in range(64)}
    with Agent(tmp_path, postgres, name="pg0", peers=peers) as agent:
        page, complaints = chromium.page(f"{agent.url}/ui", width=400)
        assert page.locator(".card").count() == 65
        assert overflow(page) <= 0
        assert agent.get("/liveness", timeout=5).status == 200
        assert complaints == []
