"""Why pip failed, from lines of its log as pip 22.3 to 26.3 write them."""

import re

import pytest

from relay.engine.pip_failure import explain

NONE = """\
2026-11-28T15:20:25,489 ERROR: Could not find a version that satisfies the requirement one-two
2026-11-28T15:20:25,489 ERROR: No matching distribution found for one-two==3.0"""
PAGE = "2026-11-28T15:20:25,484 Could not fetch URL https://me:****@index.test/simple/one-two/: "
BEFORE = "2026-11-28T15:20:25,184 Collecting first==1.0 (from -r relay.lock (line 1))\n"
POOL = "HTTPSConnectionPool(host='index.test', port=443): "
UNFIT = (
    "2026-11-28T15:20:25,484   Skipping link: {why}: https://files.test/x/{file} "
    "(from https://index.test/simple/one-two/)"
)


def log(*lines: str) -> str:
    return BEFORE + "\n".join(lines)


CAUSES = {
    "a name that is not resolved": (
        f"{PAGE}connection error: {POOL}Max retries exceeded with url: /simple/one-two/ (Caused "
        "by NewConnectionError('<object>: Failed to establish a new connection: [Errno -3] "
        "Temporary failure in name resolution')) - skipping\n" + NONE,
        "the connection to index.test failed. Check the network",
    ),
    "an answer that does not come": (
        f"2026 ERROR: Could not install packages due to an OSError: {POOL}Read timed out.\n"
        "2026 Collecting one-two==3.0",
        "the connection to index.test failed",
    ),
    "a download that breaks off": (
        "2026 Collecting one_two==3.0\n"
        "2026   Downloading https://files.test/x/one_two-3.0-py3-none-any.whl (1.6 MB)\n"
        "2026 ERROR: Exception:\n2026 Traceback (most recent call last):\n"
        "2026 pip._vendor.urllib3.exceptions.ProtocolError: ('Connection broken: "
        "IncompleteRead(5 bytes read)', IncompleteRead(5 bytes read))",
        "the connection to files.test failed",
    ),
    "a proxy that is not there": (
        f"{PAGE}proxy connection error: ('Unable to connect to proxy', None) - skipping\n{NONE}",
        "the proxy cannot be reached. Correct HTTPS_PROXY",
    ),
    "a proxy that asks for a password": (
        f"{PAGE}connection error: {POOL}Max retries exceeded with url: /simple/one-two/ (Caused by "
        "ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407 Proxy "
        f"Authentication Required'))) - skipping\n{NONE}",
        "the proxy cannot be reached",
    ),
    "a certificate of somebody else": (
        f"{PAGE}There was a problem confirming the ssl certificate: [SSL: "
        f"CERTIFICATE_VERIFY_FAILED] certificate verify failed - skipping\n{NONE}",
        "the connection to index.test is not secure. If a proxy signs the connection",
    ),
    "an index that wants a password": (
        f"{PAGE}401 Client Error: Unauthorized for url: https://index.test/ - skipping\n{NONE}",
        r"index.test refused it \(401\)",
    ),
    "an index that fails": (
        f"{PAGE}{POOL}Max retries exceeded with url: /simple/one-two/ (Caused by "
        f"ResponseError('too many 502 error responses')) - skipping\n{NONE}",
        r"index.test answered with an error \(502\). Wait a while",
    ),
    "an index that has had enough": (
        f"{PAGE}429 Client Error: Too Many Requests for url: https://index.test/\n{NONE}",
        r"index.test answered with an error \(429\)",
    ),
    "an index without it": (
        f"{PAGE}404 Client Error: Not Found for url: https://index.test/ - skipping\n{NONE}",
        "index.test does not offer it. Check which package index",
    ),
    "an index with other releases of it": (
        UNFIT.format(why="none of the wheel's tags (x) are compatible", file="one_two-2.9-x.whl")
        + f"\n{NONE}",
        "index.test does not offer it|files.test does not offer it",
    ),
    "a full disk": (
        "2026 Collecting one-two==3.0\n2026 ERROR: Could not install packages due to an OSError: "
        "[Errno 28] No space left on device",
        "the disk is full. Free some space",
    ),
    "what nobody has thought of": (
        "2026 Collecting one-two==3.0\n2026 ERROR: The moon is down",
        "pip says 'The moon is down'",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_is_told_with_the_package_and_what_to_do(cause):
    lines, told = CAUSES[cause]
    failure = explain(log(lines))
    assert re.match(rf"one-two 3\.0 could not be installed: ({told})", failure.sentence)
    assert "\n" not in failure.sentence
    assert not failure.none_fits
    assert not failure.altered
    assert "****" not in failure.sentence


def test_another_file_than_the_locked_one_is_told_apart():
    failure = explain(
        log(
            "2026 Collecting one-two==3.0",
            "2026 ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If "
            "you have updated the package versions, please update the hashes.",
            "2026     one-two==3.0 from https://files.test/one_two-3.0-py3-none-any.whl (from -r "
            "relay.lock (line 7)):",
            "2026         Expected sha256 aa",
            "2026              Got        bb",
        )
    )
    assert failure.altered
    assert failure.sentence.startswith(
        "one-two 3.0 could not be installed: the file received is not"
    )


@pytest.mark.parametrize(
    ("why", "file"),
    [
        ("none of the wheel's tags (cp311-win_arm64) are compatible", "one_two-3.0-cp311-x.whl"),
        ("No sources permitted for one-two", "One-Two-3.0.tar.gz"),
        ("3.11.2 Requires-Python: requires a different Python", "one.two-3.0-py3-none-any.whl"),
    ],
)
def test_that_no_file_fits_this_machine_is_told_apart(why, file):
    failure = explain(log(UNFIT.format(why=why, file=file), NONE))
    assert failure.none_fits
    assert "one-two 3.0 could not be installed: no file of it fits" in failure.sentence


def test_unfit_files_of_other_packages_do_not_excuse_a_lost_connection():
    other = UNFIT.format(why="none of the wheel's tags (x) are compatible", file="one-3.0-x.whl")
    failure = explain(log(other, f"{PAGE}connection error: refused - skipping", NONE))
    assert not failure.none_fits


def test_a_log_that_is_empty_still_gives_a_sentence():
    assert explain("").sentence == "A package could not be installed: pip says 'nothing'."
