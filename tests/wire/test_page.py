"""The chat page in a real browser, and how its files are served."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from playwright.async_api import Page, expect
from yarl import URL

from lab.waiting import until
from relay.edges.page import CONTENT_SECURITY_POLICY, WEB
from tests.wire.browser import PHONE, page_at
from tests.wire.stub_relay import StubRelay, answer, done, drop

WORDS = [f"word{n} " for n in range(60)]
FALLBACK = {
    "type": "fallback",
    "from": {"provider": "claude", "model": "claude-sonnet-5-5"},
    "to": {"provider": "gpt", "model": "gpt-6-luna"},
    "reason": "provider_interrupted",
}


async def ask(page: Page, text: str) -> None:
    await page.fill("#prompt", text)
    await page.keyboard.press("Enter")


def last_text(page: Page) -> Any:
    return page.locator(".answer .text").last


async def holds(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression is true in the page."""
    await until(lambda: page.evaluate(expression))


async def test_typing_and_enter_shows_the_question_the_answer_and_the_model() -> None:
    async with StubRelay(lambda _: answer(*WORDS)).serve() as stub, page_at(stub.page) as page:
        assert await page.locator("#provider option").all_text_contents() == [
            "Claude · claude-sonnet-5-5",
            "Local demo · smollm2-135m (not answering)",
        ]
        await ask(page, "Why is the sky blue?")
        await expect(page.locator(".foot")).to_contain_text("7 tokens")
        assert await last_text(page).text_content() == "".join(WORDS)
        assert await page.locator(".user").text_content() == "Why is the sky blue?"
        await expect(page.locator(".who")).to_contain_text("claude-sonnet-5-5-20261001")
    assert stub.frames("chat")[0]["provider"] == "claude"


async def test_tokens_appear_while_the_answer_is_under_way() -> None:
    async with (
        StubRelay(lambda _: answer("first", finish=False)).serve() as stub,
        page_at(stub.page) as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_have_text("first")
        stub.stream().append({"type": "token", "text": " second"})
        await expect(last_text(page)).to_have_text("first second")
        await expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
        stub.stream().append(done())
        await expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
        await expect(page.locator("#send")).to_be_visible()


@pytest.mark.parametrize("how", ["Escape", "button"])
async def test_stop_cancels_at_the_relay(how: str) -> None:
    async with (
        StubRelay(lambda _: answer("begun", finish=False)).serve() as stub,
        page_at(stub.page) as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_have_text("begun")
        await (page.keyboard.press("Escape") if how == "Escape" else page.click("#stop"))
        await expect(page.locator(".foot")).to_contain_text("Stopped")
        await stub.until(lambda: len(stub.frames("cancel")) == 1)
        await expect(page.locator("#stop")).to_be_hidden()


async def test_a_dropped_connection_comes_back_and_the_text_is_whole() -> None:
    async with (
        StubRelay(lambda _: answer(*WORDS[:20], finish=False)).serve() as stub,
        page_at(stub.page) as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_contain_text(WORDS[19].strip())
        drop(stub.connections[0])
        records = answer(*WORDS)
        stub.stream().append(*records[21:])
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == "".join(WORDS)
        await expect(page.locator("#connection")).to_be_hidden()
    assert stub.starts == 1
    assert len(stub.connections) == 2


async def test_a_reload_takes_the_answer_up_and_asks_once() -> None:
    async with (
        StubRelay(lambda _: answer("begun", finish=False)).serve() as stub,
        page_at(stub.page) as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_have_text("begun")
        await page.reload()
        await expect(last_text(page)).to_have_text("begun")
        stub.stream().append({"type": "token", "text": ", done"}, done())
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == "begun, done"
        assert await page.locator(".user").all_text_contents() == ["hi"]
    assert stub.starts == 1


async def test_what_a_model_writes_is_text_and_never_markup() -> None:
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    records = [*answer(evil, finish=False), done()]
    records[0]["model"] = "<b>model</b>"
    async with StubRelay(lambda _: records).serve() as stub, page_at(stub.page) as page:
        title = await page.title()
        await ask(page, "<u>me</u>")
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == evil
        assert await page.locator(".user").text_content() == "<u>me</u>"
        assert await page.locator("#log :is(img, script, u, main b b)").count() == 0
        assert await page.title() == title


async def test_a_fallback_that_discards_clears_the_text_and_names_who_goes_on() -> None:
    again = [*answer("wrong", finish=False), {**FALLBACK, "keep": False}]
    records = [*again, *answer("right")[1:]]
    async with StubRelay(lambda _: records).serve() as stub, page_at(stub.page) as page:
        await ask(page, "hi")
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == "right"
        await expect(page.locator(".notice")).to_contain_text("GPT starts the answer over")


async def test_a_fallback_that_keeps_goes_on() -> None:
    records = [*answer("one ", finish=False), {**FALLBACK, "keep": True}, *answer("two")[1:]]
    async with StubRelay(lambda _: records).serve() as stub, page_at(stub.page) as page:
        await ask(page, "hi")
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == "one two"
        said = "Claude (claude-sonnet-5-5) broke off; GPT goes on."
        await expect(page.locator(".notice")).to_have_text(said)


async def test_a_model_that_was_not_asked_is_not_said_to_have_broken_off() -> None:
    skipped = {**FALLBACK, "keep": True, "reason": "provider_overloaded"}
    records = [*answer(finish=False), skipped, *answer("two")[1:]]
    async with StubRelay(lambda _: records).serve() as stub, page_at(stub.page) as page:
        await ask(page, "hi")
        await expect(page.locator(".foot")).to_be_visible()
        said = "Claude (claude-sonnet-5-5) is overloaded; GPT answers."
        await expect(page.locator(".notice")).to_have_text(said)


async def test_a_failed_answer_says_what_to_do_and_can_be_asked_again() -> None:
    failed = {"type": "error", "code": "providers_exhausted", "message": "x", "retryable": True}
    scripts = [[*answer(finish=False), failed], answer("there")]
    async with StubRelay(lambda _: scripts.pop(0)).serve() as stub, page_at(stub.page) as page:
        await ask(page, "hi")
        await expect(page.locator(".fault")).to_contain_text("choose another provider")
        await page.click(".fault button")
        await expect(last_text(page)).to_have_text("there")
        assert await page.locator(".fault").count() == 0
        assert await page.locator(".user").count() == 1
    assert [f["messages"] for f in stub.frames("chat")] == [[{"role": "user", "content": "hi"}]] * 2


async def test_the_conversation_goes_along_and_a_new_chat_forgets_it() -> None:
    async with StubRelay(lambda _: answer("yes")).serve() as stub, page_at(stub.page) as page:
        await ask(page, "one")
        await expect(page.locator(".foot")).to_have_count(1)
        await ask(page, "two")
        await expect(page.locator(".foot")).to_have_count(2)
        await page.click("#new-chat")
        await expect(page.locator("#empty")).to_be_visible()
        await page.click("#examples button >> nth=0")
        await expect(page.locator(".foot")).to_have_count(1)
    turns = [[turn["content"] for turn in frame["messages"]] for frame in stub.frames("chat")]
    assert turns == [["one"], ["one", "yes", "two"], ["Explain why the sky is blue"]]


async def test_shift_enter_starts_a_line_and_does_not_send() -> None:
    async with StubRelay(lambda _: answer("ok")).serve() as stub, page_at(stub.page) as page:
        await page.fill("#prompt", "one")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        assert stub.frames("chat") == []
        await page.keyboard.press("Enter")
        await expect(page.locator(".foot")).to_be_visible()
    assert stub.frames("chat")[0]["messages"][0]["content"] == "one\ntwo"


async def test_the_page_follows_the_answer_but_not_a_reader_who_scrolled_up() -> None:
    lines = [f"line {n}\n" for n in range(200)]
    async with (
        StubRelay(lambda _: answer(*lines, finish=False)).serve() as stub,
        page_at(stub.page) as page,
    ):
        await ask(page, "hi")
        await expect(last_text(page)).to_contain_text("line 199")
        distance = (
            "(() => { const s = document.getElementById('scroller');"
            " return s.scrollHeight - s.scrollTop - s.clientHeight; })()"
        )
        await holds(page, f"{distance} < 2")
        await page.hover("#scroller")
        await page.mouse.wheel(0, -600)
        await holds(page, f"{distance} > 400")
        stub.stream().append({"type": "token", "text": "more\n" * 50})
        await expect(last_text(page)).to_contain_text("more")
        assert await page.evaluate(distance) > 1000
        await page.click("#latest")
        await holds(page, f"{distance} < 2")


@pytest.mark.parametrize("text", ["x" * 3000, "空" * 800, "👩‍👩‍👧" * 200, "שלום עולם " * 80])
async def test_nothing_is_wider_than_a_phone(text: str) -> None:
    async with (
        StubRelay(lambda _: answer(text)).serve() as stub,
        page_at(stub.page, **PHONE) as page,
    ):
        await ask(page, text)
        await expect(page.locator(".foot")).to_be_visible()
        assert await last_text(page).text_content() == text
        widths = "[document.documentElement, document.getElementById('scroller')]"
        excess = f"Math.max(...{widths}.map((e) => e.scrollWidth - e.clientWidth))"
        assert await page.evaluate(excess) <= 0
        box = await page.locator("#send").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
        assert box["width"] >= 44
        size = "parseFloat(getComputedStyle(document.getElementById('prompt')).fontSize)"
        assert await page.evaluate(size) >= 16  # below it, phones zoom into the field


async def test_a_relay_that_wants_a_token_is_given_one() -> None:
    async with StubRelay(lambda _: answer("ok")).serve() as stub, page_at(stub.page) as page:
        stub.hello_closes_with = 4401
        drop(stub.connections[0])
        await page.fill("#token", "s3cret")
        stub.hello_closes_with = None
        await page.press("#token", "Enter")
        await expect(page.locator("#access")).to_be_hidden()
        await ask(page, "hi")
        await expect(last_text(page)).to_have_text("ok")
    assert stub.frames("hello")[-1]["token"] == "s3cret"


async def test_each_file_is_served_with_a_strict_policy_and_an_etag() -> None:
    async with StubRelay(lambda _: []).serve() as stub, aiohttp.ClientSession() as http:
        for name in ["", *(f"web/{path.name}" for path in WEB.iterdir() if path.suffix != ".html")]:
            async with http.get(stub.page + name) as first:
                assert first.status == 200, name
                assert first.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
                assert first.headers["X-Content-Type-Options"] == "nosniff"
                assert first.headers["Referrer-Policy"] == "no-referrer"
                etag = first.headers["ETag"]
            async with http.get(stub.page + name, headers={"If-None-Match": etag}) as second:
                assert (second.status, await second.read()) == (304, b"")


async def test_the_policy_allows_nothing_inline_and_the_page_needs_nothing() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    html = (WEB / "index.html").read_text(encoding="utf-8")
    assert "<style" not in html
    assert "style=" not in html
    assert " on" not in "".join(part.partition(">")[0] for part in html.split("<") if "=" in part)
    assert html.count("<script") == html.count('<script type="module" src="/web/')


@pytest.mark.parametrize("path", ["web/", "web/../page.py", "web/%2e%2e/app.py", "web/none.js"])
async def test_nothing_else_is_served(path: str) -> None:
    async with StubRelay(lambda _: []).serve() as stub, aiohttp.ClientSession() as http:
        response = await http.get(URL(stub.page + path, encoded=True))
        assert response.status == 404
