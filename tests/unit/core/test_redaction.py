"""What a secret looks like, and what only looks a little like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import redaction
from relay.core.redaction import HIDDEN, hide_shapes
from relay.providers.decoding.faults import redact

LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0fA3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0f"

KEYS = {
    "OpenAI's old ones": f"sk-{LETTERS[:20]}T3BlbkFJ{LETTERS[:20]}",
    "OpenAI's of a project": f"sk-proj-{LETTERS[:30]}_{LETTERS[:20]}-T3BlbkFJ{LETTERS}",
    "OpenAI's of a service account": f"sk-svcacct-{LETTERS}T3BlbkFJ{LETTERS[:20]}",
    "OpenAI's of an administrator": f"sk-admin-{LETTERS}",
    "OpenAI's as it quotes it": "sk-proj-********************************wxyz",
    "OpenAI's, cut": "sk-...wxyz",
    "Anthropic's": f"sk-ant-api03-{LETTERS}-{LETTERS[:20]}_{LETTERS[:9]}AA",
    "Anthropic's OAuth": f"sk-ant-oat01-{LETTERS}-{LETTERS[:20]}AA",
    "OpenRouter's": f"sk-or-v1-{'0123456789abcdef' * 4}",
    "DeepSeek's": f"sk-{'0123456789abcdef' * 2}",
    "Google's": f"AIzaSy{LETTERS[:33]}",
    "Google's newer ones": f"AQ.Ab8RN6{LETTERS[:44]}",
    "Google's OAuth": f"ya29.a0AfH6SM{LETTERS}-{LETTERS[:20]}",
    "Groq's": f"gsk_{LETTERS[:52]}",
    "xAI's": f"xai-{LETTERS}{LETTERS[:18]}",
    "Hugging Face's": f"hf_{LETTERS[:34]}",
    "Cerebras's": f"csk-{LETTERS[:48].lower()}",
    "Perplexity's": f"pplx-{LETTERS[:48]}",
    "NVIDIA's": f"nvapi-{LETTERS}-_{LETTERS[:8]}",
    "Replicate's": f"r8_{LETTERS[:37]}",
    "Fireworks'": f"fw_{LETTERS[:24]}",
    "GitHub's": f"ghp_{LETTERS[:36]}",
    "GitHub's of a server": f"ghs_{LETTERS[:36]}",
    "GitHub's fine-grained": f"github_pat_11{LETTERS[:20]}_{LETTERS[:59]}",
    "Stripe's": f"sk_live_{LETTERS[:24]}",
    "Mailgun's": "key-3ax6xnjp29jd6fds4gc373sgvjxteol0",
    "Amazon's id": "AKIAIOSFODNN7EXAMPLE",
    "Amazon's id for a while": "ASIAIOSFODNN7EXAMPLE",
    "Bedrock's": f"ABSKQmVkcm9ja0FQSUtleS1{LETTERS}+/{LETTERS[:20]}=",
    "a signed token": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{LETTERS[:43]}",
    "an unsigned token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
    "an encrypted token": f"eyJhbGciOiJSU0EifQ.{LETTERS}.48V1_ALb6US04U3b.{LETTERS}.XFBoMYUZodet",
    "a bearer's": f"Bearer {LETTERS[:24]}",
    "a bearer's in small letters": f"bearer {LETTERS[:8]}.{LETTERS[8:24]}/+==",
    "a name and a password": "Basic dXNlcjpwYXNzd29yZA==",
    "a field": f"x-api-key: {LETTERS[:12]}",
    "a field of JSON": f'"api_key": "{LETTERS[:12]}"',
    "a header": f"Authorization: Token {LETTERS[:12]}".replace("Token ", ""),
    "Amazon's secret": f"aws_secret_access_key = {LETTERS[:20]}/{LETTERS[:19]}",
    "a user's in a URL": f"https://user:{LETTERS[:8]}@example.com/",
    "a password with an @": f"redis://:p@{LETTERS[:8]}@10.0.0.1:6379/0",
    "a token as the user's name": f"https://{LETTERS[:20]}@example.com/x.git",
    "in a query": f"https://h/v1?alt=sse&key={LETTERS[:12]}",
    "a token in a query": f"wss://h/ws?token={LETTERS[:12]}",
    "another in a query": f"/x?api_key={LETTERS[:12]}",
    "a signature in a query": f"https://h/x?Expires=1&Signature={LETTERS[:12]}",
}


@pytest.mark.parametrize(
    "around", ["{}", "Incorrect key: {}.", '{{"key":"{}"}}', "({}), see", "密钥是{}"]
)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_every_vendors_keys_are_hidden(key, around):
    before, shown = around.format(key), hide_shapes(around.format(key))
    parts = {key[at : at + 6] for at in range(len(key) - 6) if key[at : at + 6] in LETTERS}
    assert HIDDEN in shown
    assert key not in shown
    assert not [part for part in parts if part in shown]
    assert len(shown) <= len(before) + len(HIDDEN)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_vendors_words_lose_the_same(key):
    assert key not in redact(f"Wrong key: {key}")
    assert redact(f"Wrong: {key}") == hide_shapes(f"Wrong: {key}")[:300]


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn and sk-1",
        "key-value pairs, a key_value store, a key-performance-indicator",
        "token: 5",
        "max_tokens=4096, tokens: 12",
        "a risk-free task, an ask-me-anything",
        "monkey=1",
        "the bearer of it, the bear in the park",
        "a basic information",
        "from huggingface_hub import hf_hub_download",
        "AKIA is how a key's id begins; made in ASIA",
        "eyJ is how a token begins",
        "the API key is wrong, get an API key first",
        "https://example.com/@user?next=a@b and mail me@example.com",
        "http://127.0.0.1:3050/ws, asked by me@example.com",
        "gpt-6-luna-2026-01-01, claude-sonnet-5-5, gemini-3.8-flash",
        "call_0123456789abcdefghijklmn, req_0123456789abcdef, msg_01XFDUDYJgAACzvnptvVoYEL",
        "a commit 3b18e512dba79e4c8300dd08aeb37f8e728b8dad",
        "a pk-index, the rk-method and a pk...",
    ],
)
def test_what_is_no_secret_stays_readable(text):
    assert hide_shapes(text) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("sk-abcdefgh12345678", "abcdefgh"),
        ("key sk-ant-api03-AbC_dEf-123 was refused", "AbC_dEf"),
        ("Authorization: Bearer abc.def-ghi", "abc.def"),
        ("'authorization': 'bearer xyz12345'", "xyz12345"),
        ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ('{"x-api-key": "123abc456"}', "123abc456"),
        ("GET /v1?key=AIzaSyA-1234567890abcdefgh&alt=sse", "AIzaSyA"),
        ("https://u:p4ss@example.com/", "p4ss"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sIgNaTuRe", "sIgNaTuRe"),
        ("wss://h/ws?token=opensesame", "opensesame"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text, secret):
    assert secret not in hide_shapes(text)
    assert HIDDEN in hide_shapes(text)


PIECES = sorted(
    {sign for signs, _ in redaction._SHAPES for sign in signs}
    | {"Bearer ", "Basic ", "x-api-key", "apikey", "Authorization", "?", "&", "u:pw@", "RK-", "AQ."}
    | {
        "AIza",
        "AKIA",
        ".",
        ": ",
        "=",
        " ",
        "abcDEF0123456789xyz",
        "A" * 20,
        "****",
        "\u017f",
        "\u212a",
    }
)


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_the_quick_look_for_signs_overlooks_no_shape(text):
    assert hide_shapes(text) == redaction._ANY.sub(redaction._without_value, text)
