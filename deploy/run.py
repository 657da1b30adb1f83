"""Two nodes, one Redis, nginx in front, on loopback: `python deploy/run.py`.

Needs `nginx` and `redis-server` (Debian packages of these names), no Docker, no root, and Python's
standard library; the relay itself as `make run` installs it. Keys are taken from the environment
or from `.env`, as `server.py` does. Ctrl-C stops everything in order, nginx only after the nodes,
so that draining nodes still reach their clients and can hand over their answers.

A program of another run is never taken for one of this run: the nodes choose their ports
themselves and report them in their logs, and nginx writes its process id once it has its port.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from string import Template
from types import FrameType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
START_SECONDS = 60.0
STOP_SECONDS = 40.0
"""Above DRAIN_TIMEOUT (25 s)."""


DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Connects to loopback directly, even if the environment sets a proxy for everything."""


class Failed(Exception):
    """A part did not start. `str()` of it is the message for the user."""


class Part:
    """A program that was started. `name` is used in messages."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, variables: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as out:
            # In a session of its own, so that Ctrl-C reaches only this script, which then stops
            # the parts one after the other.
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise `Failed` if it has ended."""
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}; {self.last_words()}")

    def said(self) -> str:
        """All of its output."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def last_words(self) -> str:
        """The end of its output, for a message."""
        return f"it said:\n{self.said()[-2000:].strip()}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self) -> None:
        """Wait for its end, and kill it after a timeout."""
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self.name} does not stop: killed", flush=True)
            self.process.kill()
            self.process.wait()


def program(name: str) -> str:
    """The path of a program. Daemons are in sbin, which is not on every user's path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Failed(f"{name} is missing. On Debian: apt-get install {name}")
    return found


def check_port(port: int) -> None:
    """Raise `Failed` if nginx can't use this port of 127.0.0.1."""
    with socket.socket() as wanted:
        wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as nginx does
        try:
            wanted.bind(("127.0.0.1", port))
        except OSError as error:
            remedy = "or take another port; --port 0 takes any free one"
            raise Failed(f"{_why_not(port, error)}, {remedy}") from error


def _why_not(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is taken: another program, maybe an earlier run of this command, "
            "listens on it. Stop that one"
        )
    if error.errno == errno.EACCES:
        return f"port {port} is allowed for root only. Run this as root"
    return f"port {port} can't be used: {error.strerror}. Free it"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def start_redis(folder: Path) -> Part:
    """Redis on a Unix socket, in memory only, so that no data remains."""
    options = ["--port", "0", "--unixsocket", str(_redis(folder)), "--unixsocketperm", "700"]
    options += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    options += ["--maxmemory", "512mb", "--maxmemory-policy", "noeviction"]
    return Part("redis", [program("redis-server"), *options], folder, {})


def _redis(folder: Path) -> Path:
    return folder / "redis.sock"


def start_node(name: str, folder: Path, variables: Mapping[str, str]) -> Part:
    """One relay node on a port that it chooses itself: `port_of` reads it."""
    command = [python(), str(ROOT / "server.py")]
    return Part(name, command, folder, {**variables, "PORT": "0"})


def python() -> str:
    """A Python with the packages that the relay needs. Raises `Failed` if there is none."""
    if importlib.util.find_spec("aiohttp") is not None:
        return sys.executable
    if not PYTHON.exists():
        raise Failed("the relay is not installed: run `make run` once, stop it, and try again")
    return str(PYTHON)


def port_of(node: Part) -> int | None:
    """The port that a node listens on, None while it does not listen."""
    found = re.search(r"^chat page +http://127\.0\.0\.1:(\d+)/$", node.said(), re.MULTILINE)
    return int(found[1]) if found else None


def is_ready(node: Part) -> bool:
    """Whether a node takes chats."""
    port = port_of(node)
    return port is not None and _answers(port)


def start_nginx(folder: Path, listen: int, nodes: Sequence[int]) -> Part:
    """nginx with the templates filled in."""
    servers = "\n    ".join(
        f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in nodes
    )
    names = {"NODES": servers, "LISTEN": f"127.0.0.1:{listen}", "SERVER_NAME": "_"}
    fill(HERE / "relay.conf.template", folder / "relay.conf", names)
    main = folder / "nginx.conf"
    fill(HERE / "nginx.conf.template", main, {"FOLDER": str(folder)})
    return Part("nginx", [program("nginx"), "-c", str(main), "-e", "stderr"], folder, {})


def fill(template: Path, target: Path, values: Mapping[str, str]) -> None:
    """Write a template with `${NAME}` replaced; nginx's own `$names` stay."""
    text = Template(template.read_text(encoding="utf-8")).safe_substitute(values)
    target.write_text(text, encoding="utf-8")


def _answers(port: int) -> bool:
    try:
        with DIRECT.open(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Deployment:
    """All the parts that were started; they are stopped in the reverse order."""

    def __init__(self, folder: Path, port: int, count: int) -> None:
        self.folder = folder
        self.port = port
        self.count = count
        self.nodes: list[Part] = []
        self.redis: Part | None = None
        self.nginx: Part | None = None
        self.token = ""

    def start(self) -> None:
        """Start Redis, then the nodes, then nginx. Raises `Failed`, also if an earlier part ends
        meanwhile."""
        check_port(self.port)
        self.redis = start_redis(self.folder)
        self._until(_redis(self.folder).is_socket, self.redis)
        variables = self._variables()
        for number in range(1, self.count + 1):
            self.nodes.append(start_node(f"node-{number}", self.folder, variables))
        for node in self.nodes:
            self._until(partial(is_ready, node), node)
        self.nginx = start_nginx(self.folder, self.port, self.ports())
        self._until(self._is_open, self.nginx)

    def ports(self) -> list[int]:
        """The ports of the nodes, once they are ready."""
        return [port for node in self.nodes if (port := port_of(node)) is not None]

    def _is_open(self) -> bool:
        """Whether nginx has its port and forwards to a node that answers."""
        return (self.folder / "nginx.pid").is_file() and _answers(self.port)

    def _until(self, there: Callable[[], bool], part: Part) -> None:
        """Wait until `there` is true, which depends on `part`. Raises `Failed` if a part ends, or
        after `START_SECONDS`."""
        deadline = time.monotonic() + START_SECONDS
        while not there():
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{part.name} does not answer; {part.last_words()}")
            time.sleep(0.05)
        self.check()

    def check(self) -> None:
        """Raise `Failed` if a part has ended."""
        for part in (self.redis, *self.nodes):
            if part is not None:
                part.check()
        if self.nginx is not None and self.nginx.process.poll() is not None:
            check_port(self.port)  # its message is better than nginx's if the port is taken
            self.nginx.check()

    def _variables(self) -> dict[str, str]:
        """The variables of a node in this deployment, in addition to the caller's."""
        variables = {
            "HOST": "127.0.0.1",
            "REDIS_URL": f"unix://{self.folder / 'redis.sock'}",
            "TRUSTED_PROXIES": "127.0.0.1",
            "LOG_DIR": "none",
            "LOG_FORMAT": "text",  # the lines that `port_of` reads
        }
        if not is_set("RELAY_TOKENS"):
            self.token = secrets.token_urlsafe(24)
            variables["RELAY_TOKENS"] = f"demo={self.token}"
        return variables

    def lines(self) -> list[str]:
        """The lines to print once it runs."""
        url = f"http://127.0.0.1:{self.port}"
        of_node = self.nodes[0].said().splitlines()
        said = [f"chat page   {url}/", f"WebSocket   ws{url[4:]}/ws"]
        if self.token:
            said.append(f"token       {self.token}   (RELAY_TOKENS is unset: made for this run)")
        for node, port in zip(self.nodes, self.ports(), strict=True):
            said.append(f"{node.name}      http://127.0.0.1:{port}  process {node.process.pid}")
        said.append(f"logs        {self.folder}")
        said += [line for line in of_node if line.startswith(("on  ", "off  ", "no provider"))]
        return [*said, "Ctrl-C stops everything in order."]

    def stop(self) -> None:
        """Stop the nodes one after the other behind nginx, so that answers that a node can't
        finish in time go to the next; then nginx, then Redis."""
        for part in (*self.nodes, self.nginx):
            if part is not None:
                part.signal(signal.SIGTERM)
                part.wait()
        if self.redis is not None:
            self.redis.signal(signal.SIGTERM)
            self.redis.wait()

    def watch(self) -> None:
        """Report nodes that end, until a signal comes. An ended node is left stopped: the
        deployment shows that the other one continues. Raises `Failed` if nginx or Redis ends."""
        said: set[str] = set()
        while True:
            for node in self.nodes:
                if node.process.poll() is not None and node.name not in said:
                    said.add(node.name)
                    print(f"{node.name} ended with {node.process.returncode}", flush=True)
            for part in (self.redis, self.nginx):
                if part is not None:
                    part.check()
            time.sleep(0.2)


def is_set(name: str) -> bool:
    """Whether the nodes find a value for this name, as `server.py` does: an empty variable counts
    as unset, and hides the one in `.env`."""
    if name in os.environ:
        return bool(os.environ[name].strip())
    file = ROOT / ".env"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    line = rf"^[ \t\ufeff]*(?:export[ \t]+)?{name}[ \t]*=[ \t]*[\"']?[^#\s\"']"
    return re.search(line, text, re.MULTILINE) is not None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="relay-deploy-") as folder:
        deployment = Deployment(Path(folder), options.port or free_port(), options.nodes)
        status = 0
        try:
            deployment.start()
            print("\n".join(deployment.lines()), flush=True)
            deployment.watch()
        except KeyboardInterrupt:
            print("stopping", flush=True)
        except Failed as error:
            print(error, file=sys.stderr, flush=True)
            status = 1
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            deployment.stop()
    return status


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="deploy/run.py", description="Two relay nodes, Redis and nginx on loopback."
    )
    add = parser.add_argument
    add("--port", type=int, default=8080, help="nginx's port, 0 for any (default: 8080)")
    add("--nodes", type=int, default=2, help="how many nodes (default: 2)")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port {options.port}: a port is a number from 0 to 65535")
    if options.nodes < 1:
        parser.error(f"--nodes {options.nodes}: at least one is needed")
    return options


if __name__ == "__main__":
    sys.exit(main())
