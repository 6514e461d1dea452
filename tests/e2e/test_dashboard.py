"""The dashboard in a real browser over the real function app: every page, everybody's way through it, and what must
never happen on any of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from local.azurite import Azurite
from local.eventhub.embedded import EmbeddedHub
from local.redis_server import RedisServer
from tests.support.browser import CHROMIUM, MISSING, open_browser
from tests.support.dashboard import (
    ADMIN,
    FINANCE,
    HOSTILE,
    MEMBER,
    NO_ROLE,
    NOBODY,
    STRANGER,
    check,
    start_app,
)

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=MISSING)

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
PAGES = {
    "overview": "Overview",
    "by/team": "Teams",
    "by/model": "Models",
    "by/user": "Users",
    "by/session": "Sessions",
    "by/team/search": "Team search",
    "by/model/gpt-4o": "Model gpt-4o",  # no budget is on it
    f"by/session/{quote(HOSTILE, safe='')}": f"Session {HOSTILE}",
    "decisions": "Recent decisions",
    "savings": "Savings",
    "coverage": "Coverage",
    "unpriced": "Unpriced",
    "anomalies": "Anomalies",
    "statements": "Statements",
    "budgets": "Budgets",
    "budgets/search-month": "Budget search-month",
    "dead-letters": "Dead letters",
    "no-such-page": "Page not found",
    "by/constructor?range=constructor": "Page not found",  # words that every object of the language knows
}
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def app_url(
    azurite: Azurite, redis_server: RedisServer, hub: EmbeddedHub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The function app with a month of calls."""
    with start_app(tmp_path_factory.mktemp("dashboard"), azurite, f"{redis_server.url}/11", hub) as url:
        yield url


@pytest.fixture(scope="module")
def browser(app_url: str) -> Iterator[Browser]:
    """Chromium. Opened after the app, whose start runs an event loop of its own."""
    expect.set_options(timeout=20_000)  # a busy machine is no failure
    with open_browser() as found:
        yield found


class Visit:
    """Somebody with the dashboard open. Whatever the browser complains about, or asks of elsewhere, is kept."""

    def __init__(self, browser: Browser, url: str, headers: dict[str, str], **options: Any) -> None:
        options = {"viewport": DESKTOP, "reduced_motion": "reduce", **options}
        self.context: BrowserContext = browser.new_context(extra_http_headers=headers, **options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.url, self.origin = f"{url}/dashboard", "://".join(urlsplit(url)[:2])
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self.origin}/", "data:")):
            self.elsewhere.append(url)

    def go(self, path: str, tenant: str = "contoso") -> Page:
        """Open a page of the dashboard and wait until its panels have loaded."""
        address = f"#/{path}?tenant={tenant}"
        if self.page.url.startswith(self.url):
            self.page.evaluate("address => { location.hash = address }", address)
        else:
            self.page.goto(f"{self.url}{address}")
        return self.ready()

    def ready(self) -> Page:
        """The page, once all panels of the address have an answer, or nobody is let in."""
        self.page.wait_for_function(
            """() => document.querySelector("#content .gate")
              || document.querySelector("#content [data-ready]")?.dataset.ready === location.hash"""
        )
        return self.page

    def follow(self, name: str) -> Page:
        """Click a link of the menu."""
        self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True).click()
        self.page.get_by_role("heading", level=1, name=name).wait_for()
        return self.ready()

    def end(self) -> None:
        """Nothing was wrong all the while."""
        self.context.close()
        assert self.complaints == []
        assert self.elsewhere == []


@pytest.fixture
def admin(browser: Browser, app_url: str) -> Iterator[Visit]:
    """Grace, who may change budgets and replay letters."""
    visit = Visit(browser, app_url, ADMIN)
    yield visit
    visit.end()


ALL_RULES: dict[str, Any] = {"resultTypes": ["violations"]}
COLOURS: dict[str, Any] = {**ALL_RULES, "runOnly": ["color-contrast", "link-in-text-block"]}  # what a scheme can change


@pytest.mark.parametrize(
    ("scheme", "viewport", "rules"),
    [("light", PHONE, ALL_RULES), ("dark", DESKTOP, COLOURS)],
    ids=["light-360", "dark-1280"],
)
def test_every_page_is_accessible_quiet_and_fits(
    browser: Browser, app_url: str, scheme: Any, viewport: dict[str, int], rules: dict[str, Any]
) -> None:
    """axe finds nothing serious on any page in either scheme; the page's name is its heading and title; nothing
    overflows sideways, complains on the console or asks another origin."""
    visit = Visit(browser, app_url, ADMIN, color_scheme=scheme, viewport=viewport)
    found: dict[str, list[str]] = {}
    for path, title in PAGES.items():
        page = visit.go(path)
        assert page.get_by_role("heading", level=1).inner_text() == title
        assert page.title().startswith(title)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the window"
        violations = Axe().run(page, options=rules).response["violations"]
        wrong = [
            f"{each['id']}: {node['target']}"
            for each in violations
            for node in each["nodes"]
            if each["impact"] in SERIOUS
        ]
        if wrong:
            found[path] = wrong
        assert page.get_by_role("alert").count() == 0, f"{path}: {page.get_by_role('alert').all_inner_texts()}"
    assert found == {}
    visit.end()


def test_admin_changes_a_budget_after_seeing_what_it_would_have_done(admin: Visit) -> None:
    """From the overview to the budget; without a reason nothing is saved; the preview replays real calls; the history
    then says who and why, and the change can be taken back."""
    page = admin.go("overview")
    expect(page.get_by_role("table", name=re.compile("^Budgets: spent"))).to_contain_text("search")
    admin.follow("Budgets")
    page.get_by_role("link", name="search-month").first.click()
    admin.ready()
    page.get_by_label("Limit, USD").fill("38.5")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    page.get_by_role("button", name="Preview").click()
    preview = page.get_by_role("table", name=re.compile("under the budget in force and the changed one"))
    expect(preview.get_by_role("row", name=re.compile("^With the change"))).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Why")).to_be_focused()
    expect(page.get_by_text("Say why, for whoever reads the history.")).to_be_visible()
    page.get_by_label("Why").fill(f"quieter month {HOSTILE}")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".message")).to_contain_text("Saved. It is in force")
    change = page.get_by_role("table", name=re.compile("^Changes of this budget")).get_by_role("row").nth(1)
    expect(change).to_contain_text("grace")
    expect(change).to_contain_text(HOSTILE)
    expect(change).to_contain_text("38.5")
    page.get_by_label("Why").fill("was too tight")
    page.get_by_role("button", name="Back to the files").click()
    page.get_by_role("dialog").get_by_role("button", name="Take back").click()
    expect(change).to_contain_text("was too tight")
    expect(page.get_by_role("button", name="Back to the files")).to_have_count(0)


def test_a_budget_that_somebody_else_changed_is_not_overwritten(admin: Visit) -> None:
    """The form sends the version it was drawn from; an older one is refused and said so in words."""
    page = admin.go("budgets/ads-month")
    page.route("**/budgets/ads-month?*", _with_an_old_version)
    page.get_by_label("Limit, USD").fill("0.75")
    page.get_by_role("button", name="Preview").click()
    page.get_by_label("Why").fill("second thoughts")
    expect(page.get_by_role("button", name="Save")).to_be_enabled()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".message")).to_contain_text("Somebody changed this budget meanwhile")
    admin.complaints = [each for each in admin.complaints if "409" not in each]  # the browser logs every such answer


def _with_an_old_version(route: Route) -> None:
    body = json.loads(route.request.post_data or "{}")
    route.continue_(post_data=json.dumps({**body, "version": "0" * 16}))


def test_admin_replays_a_dead_letter(admin: Visit) -> None:
    """Chosen, asked once more, sent back; Escape at the question sends nothing."""
    page = admin.go("dead-letters")
    page.get_by_label("Choose event twice").check()
    page.get_by_role("button", name="Replay 1 chosen").click()
    expect(page.get_by_role("dialog")).to_contain_text("1 event goes back to the hub")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_text("1 replayed")).to_have_count(0)
    page.get_by_role("button", name="Replay 1 chosen").click()
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.locator(".message")).to_contain_text("1 replayed")
    expect(page.get_by_role("row", name=re.compile("twice.*by grace"))).to_be_visible()


def test_finance_reads_the_whole_tenant_and_changes_nothing(browser: Browser, app_url: str) -> None:
    """Every team is there; there are no dead letters and no form."""
    visit = Visit(browser, app_url, FINANCE)
    page = visit.go("overview")
    expect(page.get_by_text("Spend of the whole tenant.")).to_be_visible()
    expect(page.get_by_role("navigation").get_by_role("link", name="Dead letters")).to_have_count(0)
    visit.follow("Teams")
    for team in ("search", "ads", "research"):
        expect(page.get_by_role("rowheader", name=team, exact=True)).to_be_visible()
    page.get_by_role("link", name="research").click()
    visit.ready()
    expect(page.get_by_role("heading", level=1)).to_have_text("Team research")
    expect(page.get_by_role("table", name="Usage by user")).to_contain_text("eve")
    page.get_by_label("Period (UTC)").select_option("7d")
    visit.ready()
    expect(page).to_have_url(re.compile("range=7d"))
    visit.follow("Savings")
    visit.follow("Budgets")
    page.get_by_role("link", name="search-month").first.click()
    visit.ready()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    visit.follow("Statements")
    with page.expect_download() as saved:
        page.get_by_role("link", name=re.compile("^Journal of ads, ")).first.click()
    assert saved.value.suggested_filename.startswith("contoso-ads-2")
    visit.end()


def test_every_offered_file_is_the_one_of_the_manifest(app_url: str) -> None:
    """Through the host: the bytes have the digest that the list says, and the type says its charset once or not."""
    query = {"tenant": "contoso"}
    (month, *_) = httpx.get(f"{app_url}/statements", params=query).json()["periods"]
    types = set()
    for file in month["files"]:
        of = query | ({"team": file["team"]} if file["team"] else {})
        answer = httpx.get(f"{app_url}/statements/{month['period']}/{file['name']}", params=of)
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        types.add(answer.headers["content-type"])
    assert "text/csv; charset=utf-8" in types
    assert [each for each in types if each.count("charset") != each.startswith("text/")] == []


def test_the_running_month_needs_no_night(browser: Browser, app_url: str) -> None:
    """Each form of the running month is offered beside what was published, and comes."""
    visit = Visit(browser, app_url, FINANCE)
    page = visit.go("statements")
    links = page.get_by_role("region", name="Up to now").get_by_role("link")
    expect(links).to_have_text(["Print", "Excel", "Journal", "JSON", "FOCUS", "FOCUS 1.2", "Parquet"])
    with page.expect_download() as saved:
        links.get_by_text("FOCUS 1.2").click()
    assert saved.value.suggested_filename.startswith("contoso-2")
    visit.end()


def test_a_team_member_sees_their_own_team_and_no_other(browser: Browser, app_url: str) -> None:
    """Lists hold one team; another team's address shows why there is nothing to see."""
    visit = Visit(browser, app_url, MEMBER)
    page = visit.go("overview")
    expect(page.get_by_text("Spend of team search.")).to_be_visible()
    assert "research" not in page.locator("main").inner_text()
    visit.follow("Teams")
    expect(page.get_by_role("rowheader")).to_have_text(["search"])
    visit.follow("Recent decisions")
    assert "ads" not in page.locator("main").inner_text()
    visit.follow("Budgets")
    assert "ads-month" not in page.locator("main").inner_text()
    visit.follow("Unpriced")
    expect(page.get_by_text("Every call has a price")).to_be_visible()
    page = visit.go("by/team/ads")
    expect(page.get_by_role("alert").first).to_contain_text("scope_not_allowed")
    assert page.get_by_role("table").count() == 0
    visit.complaints = [each for each in visit.complaints if "403" not in each]
    visit.end()


@pytest.mark.parametrize(
    ("person", "heading", "link"),
    [
        (NOBODY, "Sign in", "/.auth/login/aad?post_login_redirect_uri=%2Fapi%2Fv1%2Fdashboard"),
        (NO_ROLE, "No access yet", "/.auth/login/aad?post_login_redirect_uri=%2Fapi%2Fv1%2Fdashboard"),
        (STRANGER, "No team yet", None),
    ],
    ids=["nobody", "no-role", "no-team"],
)
def test_who_may_see_nothing_is_told_why(
    browser: Browser, app_url: str, person: dict[str, str], heading: str, link: str | None
) -> None:
    """Not signed in, signed in without a role, with a role but in no team: each is told what helps."""
    visit = Visit(browser, app_url, person)
    page = visit.go("budgets")
    expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    links = page.get_by_role("main").get_by_role("link")
    assert [each.get_attribute("href") for each in links.all()] == ([link] if link else [])
    violations = Axe().run(page).response["violations"]
    assert [each["id"] for each in violations if each["impact"] in SERIOUS] == []
    visit.context.close()


def test_signing_in_comes_back_to_the_page_one_wanted(browser: Browser, app_url: str) -> None:
    """The fragment of the address does not survive the way to the sign-in page and back by itself."""
    visit = Visit(browser, app_url, NOBODY)
    visit.go("budgets/search-month")
    visit.context.set_extra_http_headers(ADMIN)
    visit.page.goto(visit.url)
    page = visit.ready()
    expect(page.get_by_role("heading", level=1)).to_have_text("Budget search-month")
    visit.context.close()


def test_the_keyboard_alone_goes_everywhere(admin: Visit) -> None:
    """The first stop skips to the content; a page opened by Enter takes the focus to its heading; tables sort and
    questions close by keys, and the focus is always to be seen."""
    page = admin.go("by/team")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    for _ in range(4):  # refresh, search, the table's region, its first header
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="Team")).to_have_attribute("aria-sort", "ascending")
    expect(page.get_by_role("button", name="Team")).to_be_focused()
    page.get_by_role("link", name="Coverage", exact=True).focus()
    page.keyboard.press("Enter")
    admin.ready()
    expect(page.get_by_role("heading", level=1, name="Coverage")).to_be_focused()


def test_hostile_names_stay_names(admin: Visit) -> None:
    """Markup, formula, right-to-left mark and quotes appear as they were sent, alone among their neighbours."""
    page = admin.go("by/session")
    name = page.get_by_role("rowheader").get_by_text(HOSTILE, exact=True)
    expect(name).to_be_visible()
    assert name.evaluate("node => [node.tagName, getComputedStyle(node).unicodeBidi]") == ["BDI", "isolate"]
    name.click()
    admin.ready()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Session {HOSTILE}")
    expect(page.get_by_role("table", name="Usage by team")).to_contain_text("ads")
    assert page.evaluate("[document.images.length, window.hacked]") == [0, None]


def test_decisions_arrive_by_themselves(admin: Visit, app_url: str) -> None:
    """A refusal appears while the page is open, with its reason, and screen readers hear of it."""
    page = admin.go("decisions")
    refused = check(app_url, "ads", input_tokens=900_000, scopes={"user": "newcomer"})
    said = {402: "the budget is spent", 429: "what is left is held by calls in flight"}[refused.status_code]
    row = page.get_by_role("row", name=re.compile("newcomer"))
    expect(row).to_contain_text(said)
    expect(row).to_contain_text("refuse")
    expect(page.get_by_role("status").filter(has_text=re.compile("new decision"))).to_have_count(1)
    page.get_by_label("Only refused and downgraded").check()
    expect(page.get_by_role("cell", name="allow", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")


def test_a_tenant_without_calls_shows_empty_pages_and_no_broken_ones(admin: Visit) -> None:
    """Every page says what will appear there."""
    for path in PAGES:
        page = admin.go(path, tenant="fabrikam")
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(page.locator(".state.empty, form, .facts, table").first).to_be_visible()


def test_loading_and_failing_are_drawn_and_one_failure_leaves_the_rest(admin: Visit) -> None:
    """A slow answer shows that it loads; a failed one says why, with its code, and can be tried again."""
    failing = True

    def answer(route: Route) -> None:
        if failing:
            route.fulfill(status=503, json={"error": {"code": "state_unavailable", "message": "The counters sleep."}})
        else:
            route.continue_()

    page = admin.page
    page.route("**/api/v1/spend?*", answer)
    page.goto(f"{admin.url}#/overview?tenant=contoso")
    page.locator(".state.loading").first.wait_for()
    admin.ready()
    alert = page.get_by_role("alert")
    expect(alert).to_have_count(1)
    expect(alert).to_contain_text("The counters sleep.")
    expect(alert).to_contain_text("state_unavailable")
    expect(page.get_by_role("table", name="Largest by team")).to_be_visible()
    failing = False
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("table", name=re.compile("^Budgets: spent"))).to_be_visible()
    admin.complaints = [each for each in admin.complaints if "503" not in each]


def test_a_forecast_without_a_range_draws_none(admin: Visit) -> None:
    """Before there are past errors to take it from, the line is drawn and the range is said to be missing."""

    def without_range(route: Route) -> None:
        body = route.fetch().json()
        body["forecast"] |= {"low": None, "high": None}
        for day in body["forecast"]["days"]:
            day.pop("low", None), day.pop("high", None)
        route.fulfill(json=body)

    page = admin.go("overview")
    expect(page.locator("polygon.band")).to_have_count(1)
    page.route("**/api/v1/forecast?*", without_range)
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_text("no range yet").first).to_be_visible()
    expect(page.locator("polyline.expected")).to_have_count(1)
    expect(page.locator("polygon.band")).to_have_count(0)


def test_the_policy_stops_what_the_page_did_not_bring(browser: Browser, app_url: str) -> None:
    """A script, a style, a picture and a question to another origin that somebody managed to put into the page."""
    visit = Visit(browser, app_url, ADMIN)
    page = visit.go("overview")
    blocked = page.evaluate(
        """async () => {
          const blocked = [];
          document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
          const script = document.createElement("script");
          try { script.textContent = "window.hacked = 1"; } catch (error) { blocked.push("trusted-types"); }
          document.head.append(script);
          try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch (error) { blocked.push("markup"); }
          const style = document.createElement("style");
          style.textContent = "body { display: none }";
          document.head.append(style);
          const image = new Image();
          image.src = "https://elsewhere.invalid/x.png";
          document.body.append(image);
          await fetch("https://elsewhere.invalid/").catch(() => blocked.push("fetch"));
          await new Promise((resolve) => setTimeout(resolve, 200));
          return [...new Set(blocked), window.hacked];
        }"""
    )
    assert {"trusted-types", "markup", "style-src-elem", "img-src", "connect-src", "fetch"} <= set(blocked)
    assert blocked[-1] is None
    visit.context.close()


def test_a_session_that_ends_asks_to_sign_in_again(admin: Visit) -> None:
    """The next answer is 401: the page says so instead of showing half of its panels."""
    page = admin.go("overview")
    admin.context.set_extra_http_headers(NOBODY)
    page.get_by_role("button", name="Refresh").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    admin.complaints = [each for each in admin.complaints if "401" not in each]


def test_charts_fit_their_place_and_can_be_read_without_seeing(admin: Visit) -> None:
    """Charts are drawn at the width there is, and carry a sentence and a table for those who do not see them."""
    page = admin.go("by/team/search")
    chart = page.get_by_role("img", name=re.compile("^Spend per day this month: "))
    assert chart.locator("rect").count() >= 1
    wide = chart.bounding_box()
    page.set_viewport_size(PHONE)
    page.wait_for_function("document.querySelector('svg.chart').viewBox.baseVal.width < 360")
    narrow = chart.bounding_box()
    assert wide is not None
    assert narrow is not None
    assert narrow["width"] < wide["width"]
    page.get_by_text("The same as a table").first.click()
    expect(page.get_by_role("table", name="Spend per day")).to_be_visible()
