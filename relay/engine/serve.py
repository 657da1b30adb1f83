"""The child process: a model behind llama.cpp's own OpenAI-compatible server.

    python -P serve.py MODEL_FILE SLOTS CONTEXT_PER_SLOT ALIAS SOCKET_PATH

The socket's name must end in `.sock`, by which llama.cpp distinguishes it from a host name.

The first line of stdin is the key that callers must send as a bearer token; it is not an argument
because arguments can be read by every user of the machine. Stdin then stays open; when it ends the
child exits, so that it never outlives its parent. One line `ready` on stdout says that the socket
accepts calls; all that llama.cpp prints goes to stderr.

Runs as a plain file and imports nothing of the relay, so that it starts fast wherever the relay was
started from.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
WARNINGS = 2
"""llama.cpp's verbosity: errors and warnings, no line per request."""
EVALUATED_AT_ONCE = 64
"""Prompt tokens in one step of the engine. Running answers get a token between two steps,
so a long prompt slows them and doesn't stop them; larger steps are no faster on one thread."""
TEMPERATURE = 0.0
"""Always the most likely token: one unlikely word is enough to derail so small a model with weights
of four bits. The same question gets the same answer."""
CORE_FILE_LIMIT = (0, 0)


def main() -> NoReturn:
    """Serve until stdin ends or SIGTERM comes, then exit without running destructors."""
    model, slots, context, alias, socket_path = sys.argv[1:]
    _end_with_parent()
    report = _reserve_stdout()
    key = sys.stdin.buffer.readline().strip().decode()
    threading.Thread(target=_leave_with_stdin, args=(socket_path,), daemon=True).start()
    try:
        server = _start(model, socket_path, int(slots), int(context), alias, key)
    except Exception as error:
        os.write(2, f"{error}\n".encode())
        os._exit(1)
    os.write(report, b"ready\n")
    signal.sigwait({signal.SIGTERM})
    _leave(socket_path, server)


def _start(model: str, socket_path: str, slots: int, context: int, alias: str, key: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {alias}
    _remove(socket_path)
    params.hostnames = [socket_path]
    params.api_keys = [key]
    params.ui = False
    params.offline = True
    params.endpoint_slots = False
    params.verbosity = WARNINGS
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.n_batch = params.n_ubatch = EVALUATED_AT_ONCE
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.sampling.temp = TEMPERATURE
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    return xllamacpp.Server(params)


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM at the parent's death, ignore Ctrl-C, which the parent handles,
    and write no core file should the engine abort.

    SIGTERM is blocked before any thread exists, so that only `sigwait` receives it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, CORE_FILE_LIMIT)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _reserve_stdout() -> int:
    """A descriptor of the real stdout; everything printed afterwards goes to stderr."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _leave_with_stdin(socket_path: str) -> None:
    sys.stdin.buffer.read()
    _leave(socket_path)


def _leave(socket_path: str, _server: Any = None) -> NoReturn:
    """Exit at once. A regular exit would destroy the engine while it generates, which
    aborts the process; `_server` is held so that it isn't collected before."""
    _remove(socket_path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(socket_path))
    os._exit(0)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


if __name__ == "__main__":
    main()
