"""Why pip failed, in a sentence that names the package and what to do.

Read from what pip prints, or from the log that `pip --log` writes; their wording is the same from
pip 22.3 to 26.3. Where the wording is unknown, pip's last error is quoted.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Failure(NamedTuple):
    """The sentence for a user, and two causes that callers handle. `none_fits`: the index has the
    package, but no file of it for this Python on this machine. `altered`: the file received is not
    the locked one."""

    sentence: str
    none_fits: bool = False
    altered: bool = False


NOTHING_FOUND = "No matching distribution found"
AGAIN = "then run the same command again: it continues from there."
CAUSES = (
    (
        r"No space left on device|Disk quota exceeded",
        "the disk is full",
        f"Free some space, {AGAIN}",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "the file received is not the locked one: it was cut short or altered on the way",
        "Run the same command again; if it fails in the same way, use another network, proxy or "
        "package index.",
    ),
    (
        r"ProxyError|proxy connection error|Unable to connect to proxy",
        "the proxy cannot be reached",
        f"Correct HTTPS_PROXY and HTTP_PROXY, or pip's own setting `proxy`, {AGAIN}",
    ),
    (
        r"confirming the ssl certificate|CERTIFICATE_VERIFY_FAILED|SSLError",
        "the connection to {host} is not secure",
        f"If a proxy signs the connection, set PIP_CERT to the proxy's certificate, {AGAIN}",
    ),
    (
        r"(40[137]) Client Error",
        "{host} refused it ({status})",
        f"Check the access to the package index that pip uses, {AGAIN}",
    ),
    (
        r"many (\d{3}) error|(?:HTTP error|\b)(429|5\d\d) (?:Client|Server) Error",
        "{host} answered with an error ({status})",
        f"Wait a while, {AGAIN}",
    ),
    (
        r"connection error|(?<!Network)ConnectionError|Connection (?:broken|aborted|interrupted)"
        r"|[Tt]imed out|IncompleteRead|ProtocolError|incomplete-download|Max retries exceeded",
        "the connection to {host} failed",
        f"Check the network, and the proxy if HTTPS_PROXY names one, {AGAIN}",
    ),
    (
        rf"404 Client Error|{NOTHING_FOUND}",
        "{host} does not offer it",
        f"Check which package index pip uses (python -m pip config list), {AGAIN}",
    ),
)
"""For each cause a pattern for the log, its description, and what to do. The first that matches is
reported, because later ones may follow from it."""
NONE_FITS = (
    "no file of it fits this Python on this machine",
    "Name another Python, e.g. PYTHON=python3.13, in the same command.",
)
UNFIT = re.compile(r"none of the wheel's tags|No sources permitted|requires a different Python")
TROUBLE = re.compile(r"ERROR|WARNING|Could not fetch URL|Max retries|[A-Z]\w+Error\b")
PIN = r"([\w.-]+)==([\w.!+]+)"
FILE = r"([\w.]+)-(\d[\w.!+]*)-[\w.-]+\.whl"
CULPRITS = (
    rf"No matching distribution found for {PIN}",
    rf"^\S*\s+{PIN} from .*:$",  # below "DO NOT MATCH THE HASHES"
    rf"(?:ERROR|Max retries).*?[/ ]{FILE}",
    rf"Collecting {PIN}|Downloading (?:\S*/)?{FILE}$|Downloading (?:\S*/)?{FILE} ",
)
"""Patterns for the package that failed, the most reliable first."""
HOST = re.compile(r"https?://(?:[^\s/@]*@)?([\w.-]+)|host='([\w.-]+)'")


def explain(log: str) -> Failure:
    """The failure that a log of pip ends with."""
    name, version = culprit(log)
    lines = log.splitlines()
    trouble = [line for line in lines if TROUBLE.search(line)]
    if NOTHING_FOUND in log and _unfit(name, version, lines):
        return Failure(_sentence(name, version, *NONE_FITS), none_fits=True)
    for shown_by, told, remedy in CAUSES:
        if shown := re.search(shown_by, "\n".join(trouble)):
            status = next(filter(None, shown.groups()), "")
            told = told.format(host=_host(trouble) or _host(lines), status=status)
            return Failure(_sentence(name, version, told, remedy), altered="altered" in told)
    return Failure(_sentence(name, version, f"pip says {_last_error(lines)!r}", ""))


def culprit(log: str) -> tuple[str, str]:
    """Name and version of the package that failed, as far as the log names them."""
    for pattern in CULPRITS:
        if found := re.findall(pattern, log, re.MULTILINE):
            name, version = [part for part in found[-1] if part]
            return re.sub(r"[-_.]+", "-", name).lower(), version
    return "", ""


def _unfit(name: str, version: str, lines: list[str]) -> bool:
    """Whether pip saw files of that release and skipped them because they are for other
    machines."""
    escaped = name.replace("-", "[-_.]")
    file = re.compile(rf"/{escaped}-{re.escape(version)}[-.]", re.IGNORECASE)
    return any(UNFIT.search(line) and file.search(line) for line in lines)


def _host(lines: list[str]) -> str:
    """The host that the last line with an address names."""
    found = [match for line in lines if (match := HOST.search(line))]
    return next(filter(None, found[-1].groups())) if found else ""


def _last_error(lines: list[str]) -> str:
    errors = [line.partition("ERROR: ")[2] for line in lines if "ERROR: " in line]
    return errors[-1] if errors else "nothing"


def _sentence(name: str, version: str, told: str, remedy: str) -> str:
    package = f"{name} {version}" if name else "A package"
    return f"{package} could not be installed: {told}. {remedy}".rstrip()
