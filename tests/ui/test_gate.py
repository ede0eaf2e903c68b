"""The gate: what strangers, foreign sites and too large bodies get."""

from __future__ import annotations

import http.client
import json
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from backend import signing_in
from feedback_db import people
from tests.ui.house import PASSWORD, House, app_of, build, serving, token_for
from ui.gate import OPEN, RateLimit

PAGE = {"accept": "text/html"}
JSON = {"content-type": "application/json"}
HEADERS = ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy")


@pytest.fixture
def as_person(house: House, url: str):
    with ExitStack() as opened:

        def client(person=None, **headers):
            cookies = {"whetstone": token_for(house, person)} if person else {}
            return opened.enter_context(httpx.Client(base_url=url, cookies=cookies, headers=headers))

        yield client


def every_route(app) -> list[tuple[str, str]]:
    """(method, path) of all routes, those of mounted apps and included routers too."""
    found = []

    def walk(routes, prefix: str) -> None:
        for route in routes:
            inner = getattr(route, "original_router", None)
            path = prefix + getattr(route, "path", "")
            if inner is not None:
                walk(inner.routes, prefix)
            elif getattr(route, "app", None) is not None and hasattr(route.app, "routes"):
                walk(route.app.routes, path)
            elif getattr(route, "methods", None):
                found.extend((method, path) for method in route.methods if method in ("GET", "POST"))

    walk(app.routes, "")
    return found


def test_every_route_but_the_open_ones_refuses_a_stranger(app, as_person):
    routes = every_route(app)
    assert len(routes) > 120
    stranger = as_person()
    for method, pattern in routes:
        path = pattern.replace("{", "").replace("}", "").replace(":path", "").replace(":", "")
        if OPEN.match(path):
            continue
        reply = stranger.request(method, path)
        assert reply.status_code in (401, 404), (method, path, reply.status_code)
        assert set(reply.json()) == {"error", "detail"}, path  # the gate's own answer


def test_a_stranger_who_opens_a_page_is_sent_to_sign_in(as_person):
    reply = as_person(**PAGE).get("/label/")
    assert (reply.status_code, reply.headers["location"]) == (303, "/login?next=/label/")
    assert as_person(**PAGE).get("/admin/gradio_api/config").headers["location"] == "/login"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "10.0.0.1:7860"]
)
def test_a_foreign_host_is_refused(as_person, host):
    assert as_person().get("/healthz", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example"]
)
def test_a_foreign_origin_is_refused_on_loopback_too(house, as_person, origin):
    client = as_person(house.ann)
    refused = client.post("/api/label/projects", json={}, headers={"origin": origin})
    assert refused.status_code == 403
    assert client.get("/healthz", headers={"origin": origin}).status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_a_request_from_a_sibling_site_is_refused(house, as_person):
    client = as_person(house.ann)
    for site in ("cross-site", "same-site"):
        assert client.post("/logout", headers={"sec-fetch-site": site}).status_code == 403
    assert client.post("/api/label/projects", json={}, headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_our_own_origin_is_taken(house, url, as_person):
    reply = as_person(house.ann).post("/api/label/projects", json={}, headers={"origin": url})
    assert reply.status_code == 200
    assert not any(name.startswith("access-control") for name in reply.headers)


@pytest.mark.parametrize("path", ["/api/label/submit", "/label/gradio_api/queue/join", "/login"])
def test_a_body_above_the_limit_is_refused_before_it_is_parsed(house, url, as_person, path):
    cookie = f"whetstone={token_for(house, house.ann)}"
    assert as_person().post(path, content=b"x" * 2_000_001, headers={"cookie": cookie}).status_code == 413
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.hostname, address.port)) as connection:
        chunks = (b"[" * 100_000 for _ in range(40))
        try:
            connection.request("POST", path, chunks, {**JSON, "cookie": cookie}, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):  # the server hung up while we were still sending
            pass
        with connection.getresponse() as reply:
            assert reply.status == 413


def test_what_gradio_offers_and_nobody_needs_is_not_there(house, as_person):
    client = as_person(house.admin)
    for path in (
        "token",
        "proxy=http://example.com",
        "vibe-code/",
        "runs",
        "run-history/records",
        "monitoring",
        "dev/reload",
    ):
        for prefix in ("/label/gradio_api/", "/admin/gradio_api/", "/label/"):
            assert client.get(prefix + path).status_code == 404, prefix + path


def test_a_role_is_checked_by_the_area(house, as_person):
    for person, pages in {house.ann: 1, house.bob: 1, house.admin: 2}.items():
        client = as_person(person, **PAGE)
        reached = [client.get(path).status_code for path in ("/label/", "/admin/people")]
        assert reached == [200] * pages + [403] * (2 - pages)
        assert client.get("/admin/config").status_code == (200 if person is house.admin else 403)
    assert "needs the role admin" in as_person(house.ann, **PAGE).get("/admin/people").text
    assert "管理员" in as_person(house.ann, **{"accept-language": "zh"}).get("/admin/config").json()["error"]


def test_every_reply_has_the_headers(house, url, as_person):
    for person, path in [
        (None, "/login"),
        (None, "/api/x"),
        (None, "/label/"),
        (house.ann, "/label/"),
        (house.ann, "/admin/x"),
    ]:
        reply = as_person(person, **PAGE).get(path)
        assert all(name in reply.headers for name in HEADERS), path
    assert "unsafe" not in as_person(**PAGE).get("/login").headers["content-security-policy"]
    assert all(name in httpx.get(url, headers={"host": "evil"}).headers for name in HEADERS)


def test_static_files_are_kept_and_pages_are_not(house, as_person):
    client = as_person(house.ann, **PAGE)
    page = client.get("/label/")
    assert page.headers["cache-control"] == "no-store"
    script = page.text.split('<script src="')[1].split('"')[0]
    assert "immutable" in client.get(script).headers["cache-control"]
    assert client.get("/static/../web.py").status_code == 404
    assert client.get("/static/%2e%2e/%2e%2e/app.py").status_code == 404


def test_a_slash_too_many_keeps_the_area(house, as_person):
    client = as_person(house.admin, **PAGE)
    assert client.get("/admin/people/").headers["location"] == "/admin/people"
    assert client.get("/label").headers["location"] == "/label/"


def test_next_accepts_only_our_own_pages(house, as_person):
    for target in ("https://evil.example", "//evil.example", "/\\evil.example", "/logout", "/label/../x"):
        page = as_person(**PAGE).get("/login", params={"next": target}).text
        assert 'name="next" value=""' in page
    assert 'name="next" value="/label/"' in as_person(**PAGE).get("/login?next=/label/").text


def test_a_link_from_a_chat_costs_one_more_request_not_a_sign_in(as_person):
    reply = as_person(**PAGE, **{"sec-fetch-site": "cross-site"}).get("/label/")
    assert reply.status_code == 200 and 'url=/label/"' in reply.text


def test_signing_in_and_out_over_http(house, as_person):
    with house.store.write():
        token = people.invite(house.store, house.eve, None)
    client = as_person(**PAGE)
    assert "eve" in client.get(f"/invite/{token}").text
    assert "eve" in client.get(f"/invite/{token}").text  # looking does not use it up
    short = client.post(f"/invite/{token}", data={"password": "short", "again": "short"})
    assert short.status_code == 422 and "at least 15" in short.text
    assert client.post(f"/invite/{token}", data={"without": "1"}).status_code == 422  # only an admin may go without
    done = client.post(f"/invite/{token}", data={"password": PASSWORD, "again": PASSWORD})
    assert (done.status_code, done.headers["location"]) == (303, "/")
    cookie = done.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert client.get("/").headers["location"] == "/label/"
    assert client.get(f"/invite/{token}").text.count("does not work any more")
    assert client.get("/logout").status_code in (404, 405)
    assert client.post("/logout").status_code == 303
    assert client.get("/").headers["location"] == "/login"
    wrong = client.post("/login", data={"name": "eve", "password": "wrong" * 5, "next": "/label/"})
    assert wrong.status_code == 422 and "not right" in wrong.text
    right = client.post("/login", data={"name": "Eve", "password": PASSWORD, "next": "/label/"})
    assert right.headers["location"] == "/label/"


def test_the_first_admin_may_go_without_a_password_on_this_machine_only(tmp_path):
    house = build(tmp_path, comparisons=0)
    for settings, may in [({}, True), ({"behind_proxy": True, "allowed_hosts": ("testserver",)}, False)]:
        token = signing_in.first_admin_token(house.store)
        other = type(house)(**{**house.__dict__, "settings": type(house.settings)(data_dir=tmp_path, **settings)})
        with serving(app_of(other, areas={})) as address, httpx.Client(base_url=address) as client:
            host = {} if may else {"host": "testserver"}
            assert ('name="without"' in client.get(f"/invite/{token}", headers=host).text) is may
            reply = client.post(f"/invite/{token}", data={"without": "1"}, headers=host)
            assert reply.status_code == (303 if may else 422)


def test_behind_a_proxy_the_cookie_is_secure_and_bound_to_the_host(tmp_path):
    house = build(tmp_path, comparisons=0)
    settings = type(house.settings)(data_dir=tmp_path, behind_proxy=True, allowed_hosts=("label.example",))
    other = type(house)(**{**house.__dict__, "settings": settings})
    with house.store.write():
        token = people.invite(house.store, house.ann, None)
    with (
        serving(app_of(other, areas={})) as address,
        httpx.Client(base_url=address, headers={"host": "label.example"}) as client,
    ):
        own = {"origin": "https://label.example"}
        reply = client.post(f"/invite/{token}", data={"password": PASSWORD, "again": PASSWORD}, headers=own)
        assert reply.headers["set-cookie"].startswith("__Host-whetstone=")
        assert "secure" in reply.headers["set-cookie"].lower()
        assert client.get("/healthz", headers={"origin": "http://label.example"}).status_code == 403
        assert client.get(
            "/healthz", headers={"host": "127.0.0.1", "x-forwarded-host": "label.example"}
        ).status_code in (200, 421)


def test_a_session_survives_a_restart_of_web(tmp_path):
    house = build(tmp_path, comparisons=1)
    cookies = {"whetstone": token_for(house, house.ann)}
    for _ in range(2):
        with serving(app_of(house, areas={})) as address:
            assert httpx.post(f"{address}/api/label/projects", json={}, cookies=cookies).status_code == 200


def test_one_person_cannot_hold_all_streams_or_fill_the_queue():
    now = [0.0]
    limit = RateLimit(3, 60, lambda: now[0])
    assert [limit.wait_seconds(1) for _ in range(3)] == [0, 0, 0]
    assert limit.wait_seconds(1) == 61 and limit.wait_seconds(2) == 0
    now[0] = 60.0
    assert limit.wait_seconds(1) == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422), (b"[]", 422), (b"null", 422), (b'{"project": "1"}', 422), (b'{"project": 1.5}', 422),
        (b'{"project": NaN}', 422), (b'{"project": 9223372036854775808}', 422), (b'{"project": 1, "role": "admin"}', 422),
        (b'{"project": "\\ud800"}', 422), (b'{"project": -1}', 422), (b"\xff\xfe", 422), (b'{"project": 99999}', 404),
        (b"[" * 100_000, 422), (b'{"project": 1e400}', 422), (b'{"project": true}', 422),
    ],
)  # fmt: skip
def test_a_bad_body_is_named_never_a_server_error(house, as_person, body, status):
    reply = as_person(house.ann).post("/api/label/next", content=body, headers=JSON)
    assert reply.status_code == status
    assert reply.json()["error"]
    assert str(Path.cwd()) not in reply.text


def test_a_judgement_with_odd_values_is_refused(house, as_person):
    good = {"assignment": 1, "key": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "ranks": [1, 2], "seconds": 1.0}
    for change in (
        {"key": "x"}, {"ranks": []}, {"ranks": [0, 1]}, {"ranks": ["1", 2]}, {"seconds": -1.0}, {"seconds": "1"},
        {"strength": 9}, {"person_id": 2}, {"both_bad": "yes"}, {"rationale": "x" * 20_001}, {"flags": ["x" * 50]},
    ):  # fmt: skip
        reply = as_person(house.ann).post("/api/label/submit", json={**good, **change})
        assert reply.status_code == 422, change
    text = as_person(house.ann).post(
        "/api/label/submit", content=json.dumps(good), headers={"content-type": "text/plain"}
    )
    assert text.status_code == 415
