"""The page, looked at in Chromium: what it shows of real calls, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kaizen.learn.data.rows import line_of
from kaizen.testing.fault_server import FaultServer
from kaizen.testing.media_server import MediaServer
from tests.desk import by_body, rows
from tests.e2e.gateway.conftest import Running
from tests.e2e.gateway.http import post
from tests.e2e.gateway_extras.browser import Browser, chromium
from tests.e2e.gateway_extras.test_traces import trace
from tests.e2e.gateway_learn.conftest import NAME, PROGRAMS, ended

BOTH = frozenset({"infer", "admin"})
EVIL = 'Hello <script>window.hurt = 1</script><img src=x onerror="window.hurt = 2"> there'
ROWS = "document.querySelectorAll('#calls tr').length"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium is installed (Debian's package is called chromium)")
    with Browser(program) as running:
        yield running


@pytest.fixture
def browser(chrome: Browser) -> Browser:
    """A page that knows nothing of the last test's."""
    chrome.attach()
    chrome.errors.clear()
    chrome.requests.clear()
    return chrome


@pytest.fixture
def here(gateway: Callable[..., Running], upstream: FaultServer, media: MediaServer) -> Running:
    upstream.reply = EVIL
    settings: dict[str, Any] = {
        "providers": {"media": {"kind": "openai", "base_url": media.base_url, "api_key": "k"}},
        "models": {
            "mine/large": {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 30.0},
            "media/dall-e-3": {"usd_per_call": 0.04},
        },
    }
    return gateway(**settings)


def chat(here: Running, key: str, text: str = "Where is my card?", model: str = "mine/large") -> int:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return post(here, "/v1/chat/completions", body, key=key).status


def enter(browser: Browser, here: Running, key: str) -> None:
    """Come by the link that ``kaizen serve`` prints."""
    browser.open(f"{here.address}/#key={key}")


def test_calls_appear_while_one_looks(browser: Browser, here: Running) -> None:
    key = here.key(scopes=BOTH)
    enter(browser, here, key)
    browser.until("document.getElementById('state').innerText.includes('nothing was asked yet')")
    assert browser.value("location.hash") == ""  # the key does not stay in the address
    assert chat(here, key) == 200
    browser.until(f"{ROWS} === 1")
    assert chat(here, key) == 200
    browser.until(f"{ROWS} === 2")
    newest, oldest = (browser.text(f"#calls tr:nth-child({place})") for place in (1, 2))
    assert "exact cache" in newest
    assert "$0.00041" in newest  # saved
    assert "20+7" in oldest
    assert "$0.00041" in oldest  # paid
    assert chat(here, key, model="mine/500") == 503
    browser.until("document.querySelector('#calls tr:first-child .error')?.innerText === 'unavailable'")
    assert browser.text("#state") == "live"
    assert browser.errors == []
    assert {address.removeprefix(here.address).partition("?")[0] for address in browser.requests} == {
        "/",
        "/page.css",
        "/page.js",
        "/learn.js",
        "/api/v1/records",
        "/api/v1/programs",
    }


def test_a_trace_shows_its_contents_and_what_a_model_wrote_is_text(browser: Browser, here: Running) -> None:
    key = here.key(scopes=BOTH)
    chat(here, key, "<b>Bold</b> question")
    enter(browser, here, key)
    browser.press("#calls tr", "mine/large")
    browser.until("document.querySelectorAll('#trace pre').length === 2")
    asked, answered = browser.value("[...document.querySelectorAll('#trace pre')].map((e) => e.innerText)")
    assert "<b>Bold</b> question" in asked
    assert "<script>window.hurt = 1</script>" in answered
    assert browser.value("document.querySelectorAll('#trace b, #trace img, #trace script').length") == 0
    assert browser.value("window.hurt") is None
    assert "20+7 tokens" in browser.text("#trace .node")
    assert browser.errors == []


def test_a_trace_of_another_application_is_a_tree_with_timings(browser: Browser, here: Running) -> None:
    key = here.key(scopes=BOTH)
    trace(here, key)
    enter(browser, here, key)
    browser.press("#calls tr", "helpdesk: answer a customer")
    browser.until("document.querySelectorAll('#trace .node').length === 3")
    nodes = browser.value(
        "[...document.querySelectorAll('#trace .node')].map((e) => [e.querySelector('strong').innerText,"
        " e.firstChild.style.marginLeft, parseFloat(e.querySelector('i').style.left)])"
    )
    assert [(name, margin) for name, margin, _ in nodes] == [
        ("helpdesk: answer a customer", "0rem"),
        ("helpdesk: search", "1.2rem"),
        ("helpdesk: chat gpt-4o", "1.2rem"),
    ]
    assert 0 == nodes[0][2] <= nodes[1][2] <= nodes[2][2] <= 100
    assert "120+30 tokens" in browser.text("#trace .node:last-child")
    browser.press("#trace .node:last-child summary")
    browser.until("document.querySelector('#trace .node:last-child pre')?.innerText.includes('gpt-4o-2024-08-06')")


def test_costs_are_summed_by_model_and_by_tier(browser: Browser, here: Running) -> None:
    key = here.key(scopes=BOTH)
    for _ in range(3):
        chat(here, key)
    post(here, "/v1/images/generations", {"model": "media/dall-e-3", "prompt": "x"}, key=key)
    enter(browser, here, key)
    browser.press("#tabs button", "Costs")
    browser.until("document.querySelectorAll('#sums tr').length === 2")
    rows = browser.value("[...document.querySelectorAll('#sums tr')].map((e) => [...e.cells].map((c) => c.innerText))")
    assert rows[0][:7] == ["media/dall-e-3", "1", "0", "11", "40", "$0.04", "$0"]
    assert rows[1][:7] == ["mine/large", "3", "2", "20", "7", "$0.00041", "$0.00082"]
    widths = browser.value("[...document.querySelectorAll('#sums .bar.cost')].map((e) => parseFloat(e.style.width))")
    assert widths == [100, pytest.approx(0.00041 / 0.04 * 100, rel=1e-3)]
    browser.value("document.getElementById('by').value = 'tier'")
    browser.value("document.getElementById('by').dispatchEvent(new Event('change'))")
    browser.until("document.querySelector('#sums td').innerText === 'model'")
    assert browser.errors == []


def test_another_tenant_s_key_sees_nothing(browser: Browser, here: Running) -> None:
    mine = here.key(scopes=BOTH)
    chat(here, mine)
    [record] = here.records()
    other = here.key("other", scopes=BOTH)
    enter(browser, here, other)
    browser.until("document.getElementById('state').innerText.includes('nothing was asked yet')")
    browser.press("#tabs button", "Costs")
    browser.until("document.getElementById('state').innerText.includes('nothing was asked in that time')")
    assert browser.value(ROWS) == 0
    for path in (f"/api/v1/runs?id={record.run_id}", f"/api/v1/contents?id={record.id}"):
        assert post(here, path, key=mine, method="GET").status == 200
        refused = post(here, path, key=other, method="GET")
        assert refused.status == 404
        assert "Where is my card" not in refused.body.decode()


def test_a_wrong_key_is_told_so_and_a_right_one_lets_in(browser: Browser, here: Running) -> None:
    browser.open(f"{here.address}/")
    browser.until("!document.getElementById('door').hidden")
    assert browser.value("document.getElementById('requests').hidden")
    for key, told in (("kz-nobody", "key"), (here.key(), "scope 'admin'")):
        browser.value(f"document.getElementById('key').value = '{key}'")
        browser.press("#door button")
        browser.until(f"document.getElementById('state').innerText.includes(`{told}`)")
        assert browser.value("document.getElementById('state').className") == "bad"
        assert browser.value("document.getElementById('door').hidden") is False
        assert browser.value("sessionStorage.length") == 0
    browser.value(f"document.getElementById('key').value = '{here.key(scopes=BOTH)}'")
    browser.press("#door button")
    browser.until("document.getElementById('state').innerText.includes('nothing was asked yet')")


def test_a_gateway_that_is_gone_is_told_of(browser: Browser, here: Running) -> None:
    enter(browser, here, here.key(scopes=BOTH))
    browser.until("document.getElementById('state').innerText.includes('nothing was asked yet')")
    here.stop()
    browser.until("document.getElementById('state').innerText === 'the gateway does not answer'")


def test_text_can_be_read_by_day_and_by_night(browser: Browser, here: Running, tmp_path: Path) -> None:
    key = here.key(scopes=BOTH)
    chat(here, key, model="mine/429")
    enter(browser, here, key)
    browser.until(f"{ROWS} === 1")
    for dark in (False, True):
        browser.picture(tmp_path / "page.png", dark=dark)
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
        contrasts = browser.value(CONTRASTS)
        assert min(contrasts.values()) >= 4.5, contrasts  # WCAG 2.2, level AA


CONTRASTS = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.createElement('div');
  probe.style.color = 'Canvas';
  document.body.append(probe);
  const ground = light(getComputedStyle(probe).color);
  probe.remove();
  const found = {};
  for (const selector of ['body', 'th', '.hint', '#state', '#calls .error']) {
    const text = light(getComputedStyle(document.querySelector(selector)).color);
    found[selector] = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
  }
  return found;
})()"""


# -- what learns ----------------------------------------------------------------------------------


@pytest.fixture
def learning(gateway: Callable[..., Running], upstream: FaultServer) -> Running:
    upstream.reply = by_body
    return gateway(programs=PROGRAMS)


def tab(browser: Browser, name: str) -> None:
    browser.press("#tabs button", name)


def type_in(browser: Browser, selector: str, text: str) -> None:
    browser.value(f"document.querySelector({selector!r}).value = {text!r}")


def test_a_person_tries_a_program_scores_it_and_releases_a_version(browser: Browser, learning: Running) -> None:
    here, key = learning, learning.key(scopes=BOTH)
    for instructions in (EVIL, "Name it. refund means red."):
        put = {"name": NAME, "params": {"instructions": instructions}, "reason": "<b>why</b>"}
        assert post(here, "/api/v1/registry", put, key=key).status == 201
    enter(browser, here, key)
    # the playground's form comes from the program's schema
    tab(browser, "Try")
    browser.until("document.getElementById('input-message')")
    assert browser.value("document.getElementById('input-message').required") is True
    type_in(browser, "#input-message", "my refund")
    browser.press("#inputs button", "Run")
    browser.until("document.getElementById('outcome').innerText.includes('none')")
    # versions and what differs between them, word by word, as text
    tab(browser, "Versions")
    browser.press("#named button", NAME)
    browser.until("document.querySelector('#apart')?.innerText.includes('refund means red')")
    browser.value("document.getElementById('new').value = '1'")
    browser.value("document.getElementById('new').dispatchEvent(new Event('change'))")
    browser.until("document.querySelector('#apart').innerText.includes('<script>window.hurt')")
    assert browser.value("window.hurt") is None
    browser.value("document.getElementById('new').value = '2'")
    type_in(browser, "#why", "clearer")
    browser.press("#version button", "Release")
    browser.until("document.getElementById('state').innerText === 'prod shows 2'")
    browser.until("document.querySelector('#moves tbody tr')?.innerText.includes('clearer')")
    answer = post(here, f"/api/v1/programs/{NAME}", {"message": "my refund"}, key=key)
    assert answer.json["outputs"] == {"team": "red"}
    browser.press("#version button", "Roll prod back")
    browser.until("document.getElementById('state').innerText === 'prod shows base'")
    # the queue: the oldest first, and gone once it is scored
    tab(browser, "Score")
    browser.until("document.querySelector('#answer pre')?.innerText.includes('my refund')")
    assert browser.text("#state") == "2 wait"
    type_in(browser, "#comment", "it is red")
    type_in(browser, "#correct", '{"team": "red"}')
    browser.press("#answer button", "Wrong")
    browser.until("document.getElementById('state').innerText === '1 wait'")
    [kept] = [record for record in here.records() if record.kind == "score"]
    assert (kept.value, kept.output_digest is not None) == (0.0, True)
    browser.press("#answer button", "★★★★★")
    browser.until("document.getElementById('state').innerText.includes('every answer')")
    assert browser.errors == []


def test_searches_reports_and_experiments_are_shown_and_another_tenant_sees_none(
    browser: Browser, learning: Running, tmp_path: Path
) -> None:
    here, key = learning, learning.key(scopes=BOTH)
    enter(browser, here, key)
    tab(browser, "Optimizer")
    browser.until("document.getElementById('state').innerText.includes('no search')")
    # live: begun while one looks
    train, val = [line_of(row) for row in rows(18)], [line_of(row) for row in rows(12, 100)]
    plan = {"program": "Desk", "train": {"rows": train}, "val": {"rows": val}, "optimizer": "reflective", "calls": 120}
    assert post(here, "/api/v1/optimizations", plan, key=key).status == 202
    browser.until("document.querySelector('#search h2')?.innerText.includes('done')", within=30)
    steps = browser.value("document.querySelector('#best polyline').getAttribute('points').split(' ').length")
    assert steps > 3
    assert "base 0.000, best 0.8" in browser.text("#search .dim")
    assert "★" in browser.text("#tried tbody")
    halves = [{"version": "base", "weight": 0.5}, {"version": "1", "weight": 0.5}]
    assert post(here, "/api/v1/experiments", {"program": "Desk", "arms": halves}, key=key).status == 201
    tab(browser, "Experiments")
    browser.until("document.querySelector('#trials h2')?.innerText.includes('running')")
    browser.press("#trials button", "Stop")
    browser.until("document.querySelector('#trials h2')?.innerText.includes('stopped')")
    job = post(here, "/api/v1/evaluations", {"program": "Desk", "data": {"rows": val}}, key=key).json
    assert ended(here, key, job["id"])["state"] == "done"
    tab(browser, "Evaluations")
    browser.press("#evaluated button", NAME)
    browser.until("document.querySelectorAll('#report details').length === 12")  # the code's own params know no rule
    browser.press("#report summary", "score 0.000")
    browser.until("document.querySelector('#report pre')?.innerText.includes('no. 10')")
    for dark in (False, True):
        browser.picture(tmp_path / "learn.png", dark=dark)
        assert min(browser.value(CONTRASTS.replace("'#calls .error'", "'h2', '#report .dim'")).values()) >= 4.5
    assert browser.errors == []
    enter(browser, here, here.key("other", scopes=BOTH))
    browser.until("document.getElementById('state').innerText.includes('nothing was evaluated yet')")
    assert NAME not in browser.value("document.body.innerText")
    for name, told in (("Versions", "nothing has versions"), ("Optimizer", "no search"), ("Experiments", "no exp")):
        tab(browser, name)
        browser.until(f"document.getElementById('state').innerText.includes({told!r})")
        assert NAME not in browser.value("document.body.innerText")
