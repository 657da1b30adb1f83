"""Two nodes, one Redis, nginx in front, on loopback: `python deploy/run.py`.

Needs `nginx` and `redis-server` (Debian packages of these names), no Docker, no root, and
Python's standard library. Keys are taken from the environment or from `.env`, as
`server.py` does. Ctrl-C stops everything in order: nginx last but Redis, so that draining
nodes still reach their clients and may hand their answers over.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from types import FrameType

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
START_SECONDS = 60.0
STOP_SECONDS = 40.0
"""Above DRAIN_TIMEOUT (25 s)."""


class Failed(Exception):
    """Something did not start. `str()` of it is for whoever called."""


class Part:
    """A program that was started. `name` is for messages."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, variables: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as out:
            # A session of its own: Ctrl-C is for this script, which then stops the parts
            # one after the other.
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
        """Raise `Failed` where it has ended."""
        if self.process.poll() is not None:
            said = self.log.read_text(errors="replace")[-2000:].strip()
            raise Failed(f"{self.name} ended with {self.process.returncode}:\n{said}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, where there is somebody to hear it."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self) -> None:
        """Wait for its end, and end it where that takes too long."""
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{self.name} does not stop: killed", flush=True)
            self.process.kill()
            self.process.wait()


def program(name: str) -> str:
    """Where a program lies; daemons lie in sbin, which is not on every user's path."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Failed(f"{name} is missing. On Debian: apt-get install {name}")
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def start_redis(folder: Path) -> Part:
    """Redis on a Unix socket, in memory only: nothing of it is left behind."""
    where = str(folder / "redis.sock")
    options = ["--port", "0", "--unixsocket", where, "--unixsocketperm", "700"]
    options += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
    options += ["--maxmemory", "512mb", "--maxmemory-policy", "noeviction"]
    part = Part("redis", [program("redis-server"), *options], folder, {})
    _until(part, Path(where).is_socket)
    return part


def start_node(name: str, port: int, folder: Path, variables: Mapping[str, str]) -> Part:
    """One relay node on a port of its own."""
    installed_here = importlib.util.find_spec("aiohttp") is not None
    python = sys.executable if installed_here or not PYTHON.exists() else str(PYTHON)
    command = [python, str(ROOT / "server.py")]
    return Part(name, command, folder, {"PORT": str(port), **variables})


def until_ready(part: Part, port: int) -> None:
    """Wait until a node takes chats."""
    _until(part, lambda: _answers(f"http://127.0.0.1:{port}/readyz"))


def start_nginx(folder: Path, listen: int, nodes: Sequence[int]) -> Part:
    """nginx with the templates filled in."""
    servers = "\n    ".join(
        f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in nodes
    )
    fill(
        HERE / "relay.conf.template",
        folder / "relay.conf",
        {"NODES": servers, "LISTEN": f"127.0.0.1:{listen}"},
    )
    main = folder / "nginx.conf"
    fill(HERE / "nginx.conf.template", main, {"FOLDER": str(folder)})
    part = Part("nginx", [program("nginx"), "-c", str(main), "-e", "stderr"], folder, {})
    _until(part, lambda: _answers(f"http://127.0.0.1:{listen}/readyz"))
    return part


def fill(template: Path, target: Path, values: Mapping[str, str]) -> None:
    """Write a template with `${NAME}` replaced; nginx's own `$names` stay."""
    text = Template(template.read_text(encoding="utf-8")).safe_substitute(values)
    target.write_text(text, encoding="utf-8")


def _until(part: Part, there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not there():
        part.check()
        if time.monotonic() > deadline:
            raise Failed(f"{part.name} does not answer; it said:\n{part.log.read_text()[-2000:]}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


class Deployment:
    """Everything that was started, to be stopped in the reverse order."""

    def __init__(self, folder: Path, port: int, count: int) -> None:
        self.folder = folder
        self.port = port
        self.nodes: list[Part] = []
        self.ports = [free_port() for _ in range(count)]
        self.redis: Part | None = None
        self.nginx: Part | None = None
        self.token = ""

    def start(self) -> None:
        """Start Redis, then the nodes, then nginx. Raises `Failed`."""
        self.redis = start_redis(self.folder)
        variables = self._variables()
        for number, port in enumerate(self.ports, 1):
            self.nodes.append(start_node(f"node-{number}", port, self.folder, variables))
        for node, port in zip(self.nodes, self.ports, strict=True):
            until_ready(node, port)
        self.nginx = start_nginx(self.folder, self.port, self.ports)

    def _variables(self) -> dict[str, str]:
        """What a node of this deployment is set to, beside what the caller sets."""
        variables = {
            "HOST": "127.0.0.1",
            "REDIS_URL": f"unix://{self.folder / 'redis.sock'}",
            "TRUSTED_PROXIES": "127.0.0.1",
            "LOG_DIR": "none",
        }
        if not os.environ.get("RELAY_TOKENS") and "RELAY_TOKENS=" not in _env_file():
            self.token = secrets.token_urlsafe(24)
            variables["RELAY_TOKENS"] = f"demo={self.token}"
        return variables

    def lines(self) -> list[str]:
        """What to say once it runs."""
        url = f"http://127.0.0.1:{self.port}"
        said = [f"chat page   {url}/", f"WebSocket   ws{url[4:]}/ws"]
        if self.token:
            said.append(f"token       {self.token}   (RELAY_TOKENS is unset: made for this run)")
        for node, port in zip(self.nodes, self.ports, strict=True):
            said.append(f"{node.name}      http://127.0.0.1:{port}  process {node.process.pid}")
        said.append(f"logs        {self.folder}")
        return [*said, "Ctrl-C stops everything in order."]

    def stop(self) -> None:
        """The nodes drain behind nginx, one after the other, so that what a node can't end
        in time goes to the next; then nginx, then Redis."""
        for part in (*self.nodes, self.nginx):
            if part is not None:
                part.signal(signal.SIGTERM)
                part.wait()
        if self.redis is not None:
            self.redis.signal(signal.SIGTERM)
            self.redis.wait()

    def watch(self) -> None:
        """Until a signal comes. A node that died is said and left dead: that the other one
        goes on is what this deployment shows. Without nginx or Redis it is over."""
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


def _env_file() -> str:
    file = ROOT / ".env"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="deploy/run.py", description="Two relay nodes, Redis and nginx on loopback."
    )
    parser.add_argument("--port", type=int, default=8080, help="nginx's port (default: 8080)")
    parser.add_argument("--nodes", type=int, default=2, help="how many nodes (default: 2)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
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
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            deployment.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
