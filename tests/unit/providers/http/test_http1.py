"""HTTP/1.1 in bytes: what is sent, and how a response is read however it is cut."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.http.http1 import (
    MAX_HEAD_BYTES,
    Interrupted,
    Malformed,
    Origin,
    ResponseParser,
    Unsupported,
    endpoint,
    supports,
)

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
)
COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"
UNTIL_EOF = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello world"
TRAILED = CHUNKED[:-2] + b"X-Sum: 1\r\nStatus: 500\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + COUNTED
WHOLE = {"chunked": CHUNKED, "counted": COUNTED, "trailers": TRAILED, "interim": INTERIM}


def read(*parts: bytes) -> tuple[ResponseParser, bytes]:
    parser = ResponseParser()
    return parser, b"".join(parser.feed(part) for part in parts)


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


# What is sent


def test_a_request_is_one_post_with_its_own_framing_headers():
    ready = endpoint("https://api.example:8443/v1/chat?beta=1", {"Authorization": "Bearer k"})
    assert ready.origin == Origin("https", "api.example", 8443)
    assert ready.request(b"{}") == (
        b"POST /v1/chat?beta=1 HTTP/1.1\r\nhost: api.example:8443\r\nAuthorization: Bearer k\r\n"
        b"accept-encoding: identity\r\ncontent-length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_a_url_without_port_or_path_gets_the_schemes_port_and_the_root(scheme, port):
    ready = endpoint(f"{scheme}://h", {})
    assert ready.origin == Origin(scheme, "h", port)
    assert ready.head.startswith(b"POST / HTTP/1.1\r\nhost: h\r\n")


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Connection", "HOST", "Accept-Encoding"]
)
def test_a_callers_framing_headers_are_left_out(name):
    head = endpoint("http://h/", {name: "bogus"}).head
    assert b"bogus" not in head


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nevil: 1"},
        {"x": "a\nb"},
        {"x": "a\0b"},
        {"x": "ключ"},
        {"x\r\nevil": "1"},
        {"x y": "1"},
        {"": "1"},
    ],
)
def test_a_header_that_breaks_out_of_its_line_is_refused(headers):
    with pytest.raises(ValueError, match="header"):
        endpoint("http://h/", headers)


def test_a_refused_headers_value_is_not_in_the_message():
    with pytest.raises(ValueError) as caught:
        endpoint("http://h/", {"authorization": "Bearer sk-secret\r\n"})
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "h/path",
        "http://user:pw@h/",
        "http:///path",
        "http://h/a b",
        "http://bücher/",
        "http://h/ü",
        "http://h:x/",
        "http://h:99999/",
    ],
)
def test_a_url_that_cannot_be_sent_as_it_is_is_left_to_the_sdk(url):
    assert not supports(url)
    with pytest.raises(ValueError, match="URL"):
        endpoint(url, {})


@pytest.mark.parametrize("url", ["http://h/v1", "https://h:1/v1?x=%20", "http://[::1]:9/x"])
def test_plain_urls_are_supported(url):
    assert supports(url)
    assert endpoint(url, {})


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_environment_leaves_the_url_to_the_sdk(monkeypatch, variable):
    monkeypatch.setenv(variable, "http://proxy:3128")
    assert not supports("https://api.example/v1")
    assert supports("https://api.example/v1", uds="/tmp/engine.sock")


def test_another_schemes_proxy_does_not_matter(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert supports("http://api.example/v1")


def test_a_host_that_is_excepted_from_the_proxy_is_reached_directly(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "api.example")
    assert supports("https://api.example/v1")
    assert not supports("https://other.example/v1")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_of_the_operators_own_leave_https_to_the_sdk(monkeypatch, variable):
    monkeypatch.setenv(variable, "/etc/corporate")
    assert not supports("https://api.example/v1")
    assert supports("http://api.example/v1")


# What is read


@pytest.mark.parametrize("wire", WHOLE.values(), ids=WHOLE.keys())
def test_a_body_is_the_same_wherever_the_wire_is_cut_in_two(wire):
    for at in range(1, len(wire)):
        parser, body = read(wire[:at], wire[at:])
        assert (body, parser.status, parser.error) == (b"hello world", 200, None), at
        assert parser.over
        assert parser.reusable


@pytest.mark.parametrize("wire", WHOLE.values(), ids=WHOLE.keys())
def test_a_body_is_the_same_byte_by_byte(wire):
    parser, body = read(*(wire[i : i + 1] for i in range(len(wire))))
    assert body == b"hello world"
    assert parser.reusable


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8), st.data())
def test_any_chunks_cut_anywhere_join_to_the_same_body(chunks, data):
    wire = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    wire += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=12)))
    parts = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    parser, body = read(*parts)
    assert body == b"".join(chunks)
    assert parser.over
    assert parser.error is None


@given(st.binary(max_size=300), st.integers(0, 300))
def test_garbage_ends_the_response_and_never_raises(noise, at):
    parser = ResponseParser()
    for part in (CHUNKED[:at], noise, noise):
        if not parser.over:
            parser.feed(part)
    if not parser.over:
        parser.eof(clean=True)
    assert parser.over


def test_headers_are_lower_case_and_repeated_ones_are_joined():
    parser, _ = read(b"HTTP/1.1 429 No\r\nRetry-After: 2\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    assert parser.status == 429
    assert parser.headers == {"retry-after": "2", "x-a": "1, 2"}


def test_of_a_good_responses_headers_only_the_hint_for_its_connection_is_kept():
    parser, body = read(
        b"HTTP/1.1 200 OK\r\nX-Request-Id: 1\r\nSet-Cookie: a=b\r\nKeep-Alive: timeout=5\r\n"
        b"Content-Length: 2\r\nContent-Type: text/event-stream\r\n\r\nhi"
    )
    assert body == b"hi"
    assert parser.headers == {"keep-alive": "timeout=5"}
    assert parser.over


def test_trailers_and_interim_headers_are_not_the_responses():
    parser, _ = read(TRAILED)
    assert "x-sum" not in parser.headers
    assert "status" not in parser.headers
    parser, _ = read(INTERIM.replace(b" 200 ", b" 429 "))
    assert parser.headers == {"content-length": "11"}


def test_a_body_without_framing_ends_with_the_connection():
    parser, body = read(UNTIL_EOF)
    assert body == b"hello world"
    assert not parser.over
    parser.eof(clean=True)
    assert parser.over
    assert parser.error is None
    assert not parser.reusable


def test_a_body_without_framing_is_interrupted_by_a_reset():
    parser, _ = read(UNTIL_EOF)
    parser.eof(clean=False)
    assert isinstance(parser.error, Interrupted)


@pytest.mark.parametrize("wire", WHOLE.values(), ids=WHOLE.keys())
def test_an_end_before_the_last_byte_is_an_interruption(wire):
    for at in range(len(wire)):
        parser, _ = read(wire[:at])
        assert not parser.over, at
        parser.eof(clean=True)
        assert isinstance(parser.error, Interrupted), at


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_is_whole_at_its_head(status):
    parser, body = read(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert parser.over
    assert body == b""


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi garbage",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi garbage",
    ],
    ids=["close", "http/1.0", "second response", "garbage", "garbage after close"],
)
def test_a_whole_response_on_a_connection_that_is_not_to_be_used_again(wire):
    parser, body = read(wire)
    assert body == b"hi"
    assert parser.over
    assert parser.error is None
    assert not parser.reusable


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=["ssh", "status", "both framings", "two lengths", "negative", "chunk size", "upgrade"],
)
def test_what_is_not_valid_http_is_malformed(wire):
    parser, _ = read(wire)
    assert parser.over
    assert isinstance(parser.error, Malformed)


def test_what_came_before_a_break_in_the_same_read_is_still_returned():
    parser, body = read(CHUNKED.replace(b"5\r\nworld", b"!\r\nworld"))
    assert body == b"hello "
    assert isinstance(parser.error, Malformed)


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Transfer-Encoding: gzip, chunked"])
def test_a_compressed_response_is_left_to_the_sdk(header):
    wire = f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode() + gzip.compress(b"x")
    parser, body = read(wire)
    assert isinstance(parser.error, Unsupported)
    assert body == b""


def test_identity_is_not_a_compression():
    parser, _ = read(b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 0\r\n\r\n")
    assert parser.error is None


def test_a_redirect_is_left_to_the_sdk():
    parser, _ = read(b"HTTP/1.1 307 Go\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(parser.error, Unsupported)


def head_of(size: int) -> bytes:
    length = "content-length: 0\r\n"
    return f"HTTP/1.1 200 OK\r\n{length}x: {'y' * (size - len(length) - 5)}\r\n\r\n".encode()


def test_a_head_at_the_limit_is_read_and_one_byte_more_is_not():
    parser, _ = read(head_of(MAX_HEAD_BYTES))
    assert parser.over
    assert parser.error is None
    parser, _ = read(head_of(MAX_HEAD_BYTES + 1))
    assert isinstance(parser.error, Malformed)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED[:-2], b"x: y\r\n"),
        (CHUNKED[:-7] + b"\r\n5;", b"y" * 1000),
    ],
    ids=["value", "headers", "interim responses", "trailers", "chunk extension"],
)
def test_bytes_without_end_and_without_content_are_bounded(start, more):
    parser, _ = read(start)
    fed = 0
    while not parser.over:
        parser.feed(more)
        fed += len(more)
        assert fed <= MAX_HEAD_BYTES + 2000
    assert isinstance(parser.error, Malformed)


def test_a_long_answer_of_small_chunks_is_not_bounded():
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(MAX_HEAD_BYTES // 4):
        assert parser.feed(b"1\r\nx\r\n") == b"x"
    assert parser.error is None
