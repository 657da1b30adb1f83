"""A real Redis process, on a Unix socket of its own.

`RELAY_TEST_REDIS_SERVER` names the program to run instead of `redis-server`, such as a
`valkey-server`, by its path or by its name in the PATH.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import redis

from lab.waiting import block_until

SERVER = "RELAY_TEST_REDIS_SERVER"
START_SECONDS = 10.0


def server_program() -> str:
    """The path of the server that is run."""
    wanted = os.environ.get(SERVER, "redis-server")
    program = shutil.which(wanted)
    assert program, f"{wanted} is missing; `make test` installs redis-server (or set {SERVER})"
    return program


class RedisProcess:
    """Starts, stops, freezes and kills one server. Nothing is written to disk."""

    def __init__(self, *options: str) -> None:
        self._program = server_program()
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="relay-redis-")
        self.folder = Path(self._folder.name)
        self.socket = str(self.folder / "redis.sock")
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self, *options: str, loading: bool = False) -> None:
        """Start and wait until it answers; with `loading`, until it says that it loads its data.
        Raises `TimeoutError`."""
        command = [self._program, "--port", "0", "--unixsocket", self.socket, "--save", ""]
        self._process = subprocess.Popen(
            [*command, "--appendonly", "no", "--dir", str(self.folder), *self._options, *options],
            stdout=subprocess.DEVNULL,
        )
        wanted = "loading" if loading else "ready"
        block_until(lambda: self._state() == wanted, within=START_SECONDS)

    def _state(self) -> str:
        try:
            with redis.Redis.from_url(self.url) as client:
                client.ping()
                return "ready"
        except redis.exceptions.BusyLoadingError:
            return "loading"
        except redis.RedisError:
            return "away"

    def kill(self) -> None:
        """End it at once, like a power cut."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop answering, with connections open."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it answer again."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Delete every key."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def disconnect_all(self) -> None:
        """Close every connection, as a restarted proxy does."""
        with redis.Redis.from_url(self.url) as client:
            for kind in ("normal", "pubsub"):
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def configure(self, **options: str | int) -> None:
        """Set options with `CONFIG SET`; underscores stand for dashes."""
        with redis.Redis.from_url(self.url) as client:
            for name, value in options.items():
                client.config_set(name.replace("_", "-"), value)

    def age(self, seconds: float) -> None:
        """Let `seconds` pass for every key: keys that would have expired are deleted."""
        with redis.Redis.from_url(self.url) as client:
            for key in list(client.scan_iter()):
                left = client.pttl(key) - int(seconds * 1000)
                if client.pttl(key) < 0:
                    continue
                if left > 0:
                    client.pexpire(key, left)
                else:
                    client.delete(key)

    def age_field_by(self, seconds: float, field: str) -> None:
        """Move a time (ms) in the streams' hashes back by `seconds`, and delete leases."""
        with redis.Redis.from_url(self.url) as client:
            for key in list(client.scan_iter()):
                if client.type(key) == b"hash" and client.hexists(key, field):
                    client.hincrbyfloat(key, field, -seconds * 1000)
                elif key.endswith(b":lease"):
                    client.delete(key)

    def close(self) -> None:
        """End the process and delete its folder."""
        self.thaw()
        self.kill()
        self._folder.cleanup()
