"""On which line a key stands."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.configuration.tomllines import locate, syntax_line


def test_keys_are_found_in_headers_dotted_keys_and_inline_tables():
    text = 'a.b = 1\n[t."x y"]\n# k = 0\nk = """\nl = 2\n"""\nm = {n = [\n1]}\n[[u]]\nv = 1\n'
    lines = {path: place.line for path, place in locate(text).items()}
    assert lines == {
        ("a",): 1,
        ("a", "b"): 1,
        ("t",): 2,
        ("t", "x y"): 2,
        ("t", "x y", "k"): 4,
        ("t", "x y", "m"): 7,
        ("t", "x y", "m", "n"): 7,
        ("u",): 9,
        ("u", "v"): 10,
    }


def test_an_item_is_found_on_its_own_line():
    place = locate('k = [\n  "a",\n  "b",\n]\n')[("k",)]
    assert (place.of("b"), place.of("z"), place.of("")) == (3, 1, 1)


@pytest.mark.parametrize(("text", "line"), [("a = 1\nb =\n", 2), ("a = [\n1,\n", 2), ("=", 1)])
def test_a_syntax_error_has_its_line(text, line):
    with pytest.raises(tomllib.TOMLDecodeError) as error:
        tomllib.loads(text)
    assert syntax_line(error.value, text)[0] == line


@given(st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), unique=True, max_size=8))
def test_every_key_has_the_line_that_it_was_written_on(keys):
    text = "".join(f"# {key}\n{key} = [\n]\n" for key in keys)
    places = locate(text)
    assert {key: places[(key,)].line for key in keys} == {
        key: 3 * at + 2 for at, key in enumerate(keys)
    }
