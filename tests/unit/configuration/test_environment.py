"""The grammar of environment values, item by item."""

import pytest

from relay.configuration.environment import (
    MIN_TOKEN_LENGTH,
    api_key,
    base_url,
    comma_list,
    fallback_lists,
    is_provider_name,
    misspelt,
    networks,
    origins,
    provider_names,
    subject_of,
    tokens,
    variable_prefix,
)

LONG = "t" * MIN_TOKEN_LENGTH


def test_a_list_ignores_blanks_and_empty_items():
    assert comma_list(" a, b,,c ,") == ("a", "b", "c")


@pytest.mark.parametrize("name", ["gpt", "my-llm", "a.b_c", "G2", "x" * 64])
def test_a_name_that_fits_into_a_path_is_a_provider_name(name):
    assert is_provider_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "x" * 65, "a\n"])
def test_other_names_are_not(name):
    assert not is_provider_name(name)


def test_a_prefix_has_only_capitals_digits_and_underscores():
    assert variable_prefix("my-llm.v2") == "MY_LLM_V2"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (",", "no provider"),
        ("openai", "'gpt'"),
        ("anthropic", "'claude'"),
        ("a b", "not a name"),
        ("gpt,gpt", "same variables"),
        ("my-llm,my_llm", "same variables"),
    ],
)
def test_provider_lists_that_cannot_be_meant_are_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        provider_names(text)


def test_fallback_rules_keep_their_order():
    assert fallback_lists("gpt=claude, gemini; claude=gpt;") == {
        "gpt": ("claude", "gemini"),
        "claude": ("gpt",),
    }


@pytest.mark.parametrize(
    "text", ["gpt", "gpt=", "gpt=gpt", "gpt=claude,claude", "gpt=claude;gpt=gemini", "=claude,"]
)
def test_fallback_rules_that_mean_nothing_are_refused(text):
    with pytest.raises(ValueError):
        fallback_lists(text) if text[0] != "=" else provider_names(next(iter(fallback_lists(text))))


def test_a_base_url_loses_its_last_slash_only():
    assert base_url("http://10.0.0.5:8000/v1/") == "http://10.0.0.5:8000/v1"


@pytest.mark.parametrize(
    "text",
    ["api.example.com", "ftp://x", "http://", "http://u:p@x/", "http://x/?a=1", "http://x:port"],
)
def test_a_base_url_that_is_none_is_refused(text):
    with pytest.raises(ValueError):
        base_url(text)


@pytest.mark.parametrize("text", ['"sk-1"', "'sk-1'", "sk 1", "sk-ä", "sk\n1"])
def test_a_key_that_no_header_can_carry_is_refused(text):
    with pytest.raises(ValueError):
        api_key(text)


def test_a_token_may_have_a_name():
    (token,) = tokens(f"alice={LONG}")
    assert (token.subject, token.secret.get_secret_value()) == ("alice", LONG)


def test_a_bare_token_is_named_by_a_digest_that_does_not_show_it():
    (token,) = tokens(LONG)
    assert token.subject == subject_of(LONG)
    assert LONG[:6] not in token.subject


def test_base64_padding_is_part_of_a_bare_token():
    (token,) = tokens("abcdefghijklmnop==")
    assert token.secret.get_secret_value() == "abcdefghijklmnop=="


def test_a_token_of_exactly_the_shortest_length_is_taken_and_one_less_is_not():
    assert len(tokens(LONG)) == 1
    with pytest.raises(ValueError, match=f"token 2 has {MIN_TOKEN_LENGTH - 1} characters"):
        tokens(f"{LONG},{LONG[1:]}")


@pytest.mark.parametrize("text", [f"{LONG},{LONG}", f"a b={LONG}", f"{LONG} x"])
def test_tokens_that_cannot_be_meant_are_refused_without_showing_them(text):
    with pytest.raises(ValueError) as refused:
        tokens(text)
    assert LONG not in str(refused.value)


def test_one_name_may_have_two_tokens():
    assert [token.subject for token in tokens(f"a={LONG}1,a={LONG}2")] == ["a", "a"]


def test_proxies_are_addresses_and_blocks():
    assert [str(block) for block in networks("10.0.0.0/8, ::1")] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "10.0.0.0/33"])
def test_proxies_that_are_neither_are_refused(text):
    with pytest.raises(ValueError):
        networks(text)


def test_origins_are_written_as_browsers_send_them():
    assert origins("HTTPS://App.Example.com:443/, http://[::1]:5173,*") == (
        "https://app.example.com",
        "http://[::1]:5173",
        "*",
    )


@pytest.mark.parametrize(
    "text", ["app.example.com", "https://*.example.com", "https://x/path", "https://x?q", "null"]
)
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(ValueError):
        origins(text)


def test_a_misspelt_name_finds_the_one_that_was_meant():
    known = ("OPENAI_API_KEY", "LOG_LEVEL", "PORT")
    assert misspelt(["OPENAI_API_KEYS", "PATH", "PORTS", "LOG_LEVEL"], known) == {
        "OPENAI_API_KEYS": "OPENAI_API_KEY"
    }
