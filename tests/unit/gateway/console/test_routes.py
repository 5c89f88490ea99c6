import asyncio
import logging
import re

import pytest
from starlette.routing import Router
from unit.gateway.console.rig import has_read
from unit.gateway.rig import KeptLog, browser_of, key_in, settings_of

from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.access import Access
from clipper_gateway.console.routes import Console, run_again
from clipper_gateway.pipeline import Pipeline

URL = "http://localhost:8080"
PROMOTE = {"application": "digits", "model": "svm:2", "seen": "4"}
RIGHTS = {"ada": ("read", "operate"), "grace": ("read",), "shop": ("predict",)}


class Site:
    """A console, with clients that look at it as browsers do."""

    def __init__(self, folder, section, keys=None):
        self.keys = keys
        settings = settings_of(folder / "console", section)
        self.log = KeptLog()
        access = Access.from_settings(section)
        self.console = Console(settings, access, Pipeline(settings, bool, access.shares), self.log)
        self.app = Router(self.console.routes(), redirect_slashes=False)

    def browser(self, **headers):
        return browser_of(self.app, URL, **headers)


@pytest.fixture(scope="module")
async def site(anyio_backend, tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("open"), GatewaySection())
    yield site
    await site.console.stop()


@pytest.fixture(scope="module")
async def keyed(anyio_backend, tmp_path_factory):
    """One with keys, of which it has the secrets."""
    folder = tmp_path_factory.mktemp("keyed")
    keys = {name: key_in(folder / "keys.json", name, *rights) for name, rights in RIGHTS.items()}
    site = Site(folder, GatewaySection(keys_file=str(folder / "keys.json")), keys)
    yield site
    await site.console.stop()


@pytest.fixture
def keys(keyed):
    return keyed.keys


def token_of(page):
    return re.search(r'x-csrf-token": "([^"]+)"', page.text)[1]


# --- what every answer has ------------------------------------------------------------------------------------------
PATHS = ("", "/models", "/changes", "/nothing", "/applications/a/b", "/static/console.css", "/static/no.css")


async def test_every_answer_keeps_a_browser_from_what_is_not_the_consoles(site):
    async with site.browser() as browser:
        answers = [await browser.get(f"/console{path}") for path in PATHS]
    for found in answers:
        policy = dict(rule.split(" ", 1) for rule in found.headers["content-security-policy"].split("; "))
        none = {name for name, value in policy.items() if value == "'none'"}
        assert none == {"default-src", "base-uri", "frame-ancestors"}
        assert {policy[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}
        wanted = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin", "cache-control": "no-store"}
        assert {name: found.headers[name] for name in wanted} == wanted


async def test_files_are_kept_for_ever_under_their_digests_alone(site):
    async with site.browser() as browser:
        page = await browser.get("/console")
        named = set(re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text))
        assert len(named) >= 7
        for path in named:
            found = await browser.get(path)
            assert (found.status_code, found.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
            assert found.headers["content-type"].partition(";")[0] in {"text/css", "text/javascript", "image/svg+xml"}
        older = await browser.get(path.partition("?")[0] + "?v=0123456789abcdef")
        assert older.headers["cache-control"] == "no-store"


OTHER_FILES = ("../routes.py", "..%2froutes.py", "vendor/LICENSE-htmx", "", "%00", "/etc/passwd")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/console/nothing", 404),
        *(("GET", f"/console/static/{name}", 404) for name in OTHER_FILES),
        *(("GET", f"/console/live?page={page}", 404) for page in ("/console/nothing", "http://[", "//[", "%00", "")),
        *(("GET", f"/console/dead-letters/{position}", 404) for position in ("9" * 5_000, "٣", "-1", "")),
        ("DELETE", "/console/models", 405),
        ("GET", "/console/actions/promote", 405),
    ],
)
async def test_what_there_is_not_is_said_on_a_page(site, method, path, status):
    async with site.browser() as browser:
        found = await browser.request(method, path)
        part = await browser.request(method, path, headers={"hx-request": "true"})
    assert (found.status_code, found.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "<h1>" in found.text
    assert (found.headers.get("allow") is not None) == (status == 405)
    assert (part.status_code, "<html" in part.text) == (status, False)


async def test_the_root_has_one_address_and_answers_head(site):
    async with site.browser() as browser:
        for path in ("/", "/console/"):
            assert (await browser.get(path, follow_redirects=True)).url.path == "/console"
        assert (await browser.head("/console/login")).status_code == 303


async def test_every_page_of_a_deployment_that_was_read_is_shown(tmp_path):
    site = Site(tmp_path, GatewaySection())
    has_read(site.console._view)
    async with site.browser() as browser:
        for path in ("", "/models", "/changes", "/queries", "/applications/digits", "/applications/digits/trials/rf:2"):
            found = await browser.get(f"/console{path}")
            assert (found.status_code, "<h1>" in found.text) == (200, True), path
    await site.console.stop()


async def test_requests_are_written_down_by_route_and_never_by_path(site):
    before = len(site.log.written())
    async with site.browser() as browser:
        overview = await browser.get("/console/applications/digits")
        await browser.get("/console/some/<script>")
        await browser.post("/console/actions/promote", data=PROMOTE)
    assert [(one["route"], one["application"], one["status"]) for one in site.log.written()[before:]] == [
        ("/console/applications/{name}", "digits", overview.status_code),
        ("/console/{rest:path}", "", 404),
        ("/console/actions/{action}", "", 403),
    ]


# --- who gets in ----------------------------------------------------------------------------------------------------
async def test_everything_but_the_page_to_sign_in_and_files_needs_a_key(keyed):
    filled = {"name": "a", "ref": "m:1", "position": "1", "action": "promote", "rest:path": "x"}
    statuses = {}
    async with keyed.browser() as browser:
        for route in keyed.console.routes():
            path = re.sub(r"{(.+?)}", lambda found: filled.get(found[1], "x"), route.path)
            for method in route.methods:
                statuses[path, method] = (await browser.request(method, path)).status_code
    public = {path for (path, _), status in statuses.items() if status != 401}
    assert public == {"/", "/console/login", "/console/logout", "/console/static/x", "/console/x"}
    assert statuses["/console/logout", "POST"] == 403


async def test_who_signs_in_sees_the_page_that_was_asked_for_until_signing_out(keyed, keys):
    async with keyed.browser() as browser:
        asked = await browser.get("/console/models?q=svm")
        assert (asked.status_code, 'action="/console/login"' in asked.text) == (401, True)
        form = {"key": keys["ada"]}
        signed_in = await browser.post("/console/login", data=form, headers={"referer": f"{URL}/console/models?q=svm"})
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/console/models?q=svm")
        page = await browser.get("/console/models")
        assert (page.status_code, ">ada<" in page.text) == (503, True), "the topics are not read yet"
        assert (await browser.post("/console/logout")).status_code == 403
        gone = await browser.post("/console/logout", data={"csrf": token_of(page)})
        assert (gone.status_code, gone.headers["location"]) == (303, "/console/login")
        assert (await browser.get("/console/models")).status_code == 401
    assert keys["ada"] not in str(keyed.log.written())


ELSEWHERE = (
    "",
    "http://[",
    "http://[::1",
    "http://[/console",
    "https://elsewhere.example//evil",
    f"{URL}/livez",
    f"{URL}/console/login",
    f"{URL}//evil.example",
)


@pytest.mark.parametrize(
    ("key", "headers", "path", "content", "status", "said", "answered"),
    [
        # signing in leads nowhere but into the console, and behind a link of another site a browser is to ask again
        *(("", {"referer": one}, "/login", {"key": "$grace"}, 303, "", {"location": "/console"}) for one in ELSEWHERE),
        ("", {"sec-fetch-site": "cross-site"}, "/models", None, 401, "", {"refresh": "0"}),
        ("", {"sec-fetch-site": "same-origin"}, "/models", None, 401, "", {}),
        ("", {}, "/login", {"key": "cs_guessed"}, 401, "unknown or revoked", {}),
        ("grace", {"hx-request": "true"}, "/actions/abort/preview", PROMOTE, 403, "--right operate", {}),
        *(("ada", {}, "/actions/retire", body, 400, "", {}) for body in (b"\xff=1", b"a=1&" * 2_000)),
        ("ada", {}, "/actions/retire", b"application=<img src=x onerror=alert(1)>", 400, "", {}),
    ],
)
async def test_a_request_is_answered_with_what_helps(keyed, keys, key, headers, path, content, status, said, answered):
    method, given = ("GET" if content is None else "POST"), {"content": content}
    if isinstance(content, dict):
        given = {"data": {name: value.replace("$grace", keys["grace"]) for name, value in content.items()}}
    async with keyed.browser(**headers, **({"x-api-key": keys[key]} if key else {})) as browser:
        found = await browser.request(method, f"/console{path}", **given)
    assert (found.status_code, said in found.text) == (status, True)
    assert {name: found.headers[name] for name in ("location", "refresh") if name in found.headers} == answered
    assert not any(text in found.text for text in ("cs_guessed", "<img src=x"))


async def test_a_key_without_the_right_to_read_and_another_host_without_keys_see_nothing(site, keyed, keys):
    for own, headers in (
        (keyed, {"x-api-key": keys["shop"]}),
        (site, {"host": "rebound.example:8080"}),
    ):
        async with own.browser(**headers) as browser:
            for path in ("", "/models", "/series/digits", "/live?page=/console"):
                found = await browser.get(f"/console{path}")
                assert (found.status_code, re.search(r'x-csrf-token": "."', found.text)) == (403, None)


# --- what changes anything ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "given"),
    [({}, ""), ({"origin": "http://localhost:3000"}, "$TOKEN"), ({"origin": "null"}, "$TOKEN"), ({"origin": URL}, "x")],
)
async def test_a_forged_request_is_refused_before_anything_is_asked(keyed, keys, headers, given):
    async with keyed.browser() as browser:
        await browser.post("/console/login", data={"key": keys["ada"]})
        token = token_of(await browser.get("/console"))
        for path in ("/console/actions/promote", "/console/actions/promote/preview"):
            fields = PROMOTE | {"csrf": given.replace("$TOKEN", token)}
            assert (await browser.post(path, data=fields, headers=headers)).status_code == 403
            own = {"origin": URL, "sec-fetch-site": "same-origin", "x-csrf-token": token, "hx-request": "true"}
            away = await browser.post(path, data=PROMOTE, headers=own)
            assert (away.status_code, "not connected" in away.text) == (503, True)
            assert 'id="action-title"' in away.text


async def test_a_series_is_sent_whole(site):
    async with site.browser() as browser:
        found = (await browser.get("/console/series/digits?hours=0.1")).json()
    assert (found["step_s"], len(found["times_s"]), found["values"], found["versions"]) == (10, 37, {}, {})


# --- what follows the topics ----------------------------------------------------------------------------------------
async def test_a_defect_of_the_view_is_logged_and_the_view_begun_again(caplog):
    again, begun = asyncio.Event(), []

    async def view():
        begun.append(again)
        if len(begun) == 1:
            raise ZeroDivisionError
        if len(begun) == 3:
            again.set()
            await asyncio.Event().wait()

    caplog.set_level(logging.ERROR)
    following = asyncio.create_task(run_again(view, 0.0))
    await asyncio.wait_for(again.wait(), 10)
    following.cancel()
    (record,) = caplog.records
    assert (record.exc_info[0], "begun again" in record.message) == (ZeroDivisionError, True)
