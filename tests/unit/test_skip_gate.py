from pathlib import Path

import pytest

from tests.skip_gate import ALLOWED, Gate, Skip, parse, unlisted

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parents[2]


def test_a_line_names_a_test_and_a_reason():
    assert parse("# why\n\ntests/a.py::* | no redis*\n") == [Skip("tests/a.py::*", "no redis*")]


@pytest.mark.parametrize("line", ["tests/a.py", "tests/a.py |", "| reason"])
def test_a_line_without_a_reason_is_refused(line):
    with pytest.raises(ValueError, match=r"allowed_skips\.txt"):
        parse(line)


def test_a_skip_is_covered_only_when_test_and_reason_both_match():
    allowed = [Skip("tests/a.py::*", "no redis*")]
    covered = Skip("tests/a.py::test_x", "no redis-server here")
    other_reason = Skip("tests/a.py::test_x", "flaky")
    other_test = Skip("tests/b.py::test_x", "no redis-server here")
    assert unlisted([covered, other_reason, other_test], allowed) == [other_reason, other_test]


def test_the_list_in_the_repository_can_be_read():
    parse(ALLOWED.read_text(encoding="utf-8"))


def run(pytester: pytest.Pytester, body: str, *allowed: Skip) -> pytest.HookRecorder:
    pytester.makepyfile(body)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    return pytester.inline_run(plugins=[Gate(list(allowed))])


SKIPPED = "import pytest\ndef test_a(): pass\n@pytest.mark.skip(reason='later')\ndef test_b(): pass"


def test_an_unlisted_skip_fails_a_run_that_went_well(pytester):
    assert run(pytester, SKIPPED).ret == 1


def test_a_listed_skip_lets_the_run_pass(pytester):
    assert run(pytester, SKIPPED, Skip("*::test_b", "later")).ret == 0


def test_a_skipped_file_counts_as_a_skip(pytester):
    body = "import pytest\npytest.skip('whole file', allow_module_level=True)"
    pytester.makepyfile(test_other="def test_a(): pass")
    assert run(pytester, body).ret == 1


def test_an_expected_failure_is_no_skip(pytester):
    body = "import pytest\n@pytest.mark.xfail\ndef test_a(): assert 0\ndef test_b(): pass"
    assert run(pytester, body).ret == 0
