"""The systems that are compared: how each is installed, started and called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = HERE / "work"
UPSTREAM_PORT = 9500
UPSTREAM = f"http://127.0.0.1:{UPSTREAM_PORT}"
RELAY_PORT = 9510
QUESTION = [{"role": "user", "content": "Hello, tell me a story."}]

SHAPES = {
    "paced": "bench-n128-d20-t200",
    "steady": "bench-n256-d20-t0",
    "burst": "bench-n256-d0-t0",
}
"""The upstream's script by phase: tokens, ms between them, ms before the first."""


@dataclass(frozen=True)
class Process:
    """A server process. It has started when its port accepts connections."""

    port: int
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """One way to call one server. `body` makes the request for a phase; `phases` are those that
    the system can play."""

    process: str
    mode: str
    path: Callable[[str], str]
    body: Callable[[str], str]
    headers: tuple[str, ...] = ()
    phases: tuple[str, ...] = tuple(SHAPES)


def openai_body(phase: str) -> str:
    """A chat.completions request whose model name is the upstream's script."""
    return json.dumps({"model": SHAPES[phase], "stream": True, "messages": QUESTION})


def relay_python() -> str:
    """The interpreter with the packages that the relay needs: BENCH_PYTHON, the checkout's own
    environment, or the one that runs this."""
    own = ROOT / ".venv" / "bin" / "python"
    return os.environ.get("BENCH_PYTHON") or (str(own) if own.exists() else sys.executable)


def relay_env(port: int) -> dict[str, str]:
    """The relay in its usual configuration, with other upstreams: a compatible provider for each
    phase, and the three vendors' own wires for the paced one."""
    env = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "SUPPORTED_PROVIDERS": ",".join(["gpt", "claude", "gemini", *SHAPES]),
    }
    for vendor, base in (
        ("OPENAI", f"{UPSTREAM}/v1"),
        ("ANTHROPIC", UPSTREAM),
        ("GEMINI", UPSTREAM),
    ):
        env[f"{vendor}_API_KEY"] = "bench"
        env[f"{vendor}_BASE_URL"] = base
        env[f"{vendor}_MODEL_DEFAULT"] = SHAPES["paced"]
    for name, shape in SHAPES.items():
        env[f"{name.upper()}_API_KEY"] = "bench"
        env[f"{name.upper()}_BASE_URL"] = f"{UPSTREAM}/v1"
        env[f"{name.upper()}_MODEL_DEFAULT"] = shape
    return env


def _chat(provider: str) -> str:
    return json.dumps({"type": "chat", "id": "{id}", "provider": provider, "messages": QUESTION})


def _socket(provider: str | None = None, process: str = "relay") -> System:
    return System(
        process,
        "ws",
        lambda phase: "/ws",
        lambda phase: _chat(provider or phase),
        phases=("paced",) if provider else tuple(SHAPES),
    )


def argv(program: str | Path, options: str) -> tuple[str, ...]:
    """A command line; no path of the bench may contain a space."""
    return (str(program), *options.split())


PORTKEY = WORK / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"

PROCESSES = {
    "nginx": Process(
        9501,
        argv(
            WORK / "nginx/root/usr/sbin/nginx",
            f"-p {WORK} -c {WORK}/nginx.conf -e {WORK}/nginx.log",
        ),
    ),
    "litellm": Process(
        9502,
        argv(
            WORK / "litellm/bin/litellm",
            f"--config {WORK}/litellm.yaml --host 127.0.0.1 --port 9502 --num_workers 1",
        ),
        {
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
        },
    ),
    "portkey": Process(
        9503,
        argv("node", f"{PORTKEY} --port=9503 --headless"),
        {"NODE_ENV": "production"},
    ),
    "relay": Process(RELAY_PORT, argv(relay_python(), f"{ROOT}/server.py"), relay_env(RELAY_PORT)),
    "relay-interpreted": Process(
        RELAY_PORT + 1,
        argv(relay_python(), f"{ROOT}/server.py --interpreted"),
        relay_env(RELAY_PORT + 1),
    ),
}

SYSTEMS = {
    "nginx": System("nginx", "sse", lambda phase: "/v1/chat/completions", openai_body),
    "litellm": System("litellm", "sse", lambda phase: "/v1/chat/completions", openai_body),
    "portkey": System(
        "portkey",
        "sse",
        lambda phase: "/v1/chat/completions",
        openai_body,
        (
            "x-portkey-provider: openai",
            "authorization: Bearer bench",
            f"x-portkey-custom-host: {UPSTREAM}/v1",
        ),
    ),
    "relay-ws": _socket(),
    "relay-sse": System(
        "relay",
        "sse",
        lambda phase: f"/chat/{phase}",
        lambda phase: json.dumps({"messages": QUESTION}),
    ),
    "relay-openai": System(
        "relay",
        "sse",
        lambda phase: "/v1/chat/completions",
        lambda phase: json.dumps({"model": phase, "stream": True, "messages": QUESTION}),
    ),
    "relay-interpreted": _socket(process="relay-interpreted"),
    "relay-gpt": _socket("gpt"),
    "relay-claude": _socket("claude"),
    "relay-gemini": _socket("gemini"),
}
"""relay-ws, -sse and -openai differ in the clients' protocol; -gpt, -claude and -gemini in the
upstream's; -interpreted is -ws without compiled modules."""

NGINX_CONF = f"""worker_processes 1; daemon off; pid nginx.pid; error_log nginx.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path nginx-a; proxy_temp_path nginx-b; fastcgi_temp_path nginx-c;
  uwsgi_temp_path nginx-d; scgi_temp_path nginx-e;
  upstream model {{ server 127.0.0.1:{UPSTREAM_PORT}; keepalive 4096; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:9501 backlog=4096;
    location / {{
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
"""

LITELLM_CONF = f"""model_list:
  - model_name: "bench*"
    litellm_params: {{model: "openai/bench*", api_base: "{UPSTREAM}/v1", api_key: bench}}
litellm_settings: {{telemetry: false, drop_params: true}}
"""


def install(names: set[str]) -> None:
    """Compile the tools and install the systems of `names` that are missing, all below
    lab/bench/work."""
    WORK.mkdir(exist_ok=True)
    for tool in ("upstream", "load"):
        _run("cc", "-O2", "-o", str(WORK / tool), str(HERE / "native" / f"{tool}.c"))
    (WORK / "nginx.conf").write_text(NGINX_CONF)
    (WORK / "litellm.yaml").write_text(LITELLM_CONF)
    for name in sorted(names & INSTALLERS.keys()):
        if not Path(PROCESSES[name].argv[name == "portkey"]).exists():
            print(f"installing {name}", flush=True)
            INSTALLERS[name]()


def _install_nginx() -> None:
    """Debian's package, unpacked but not installed."""
    target = WORK / "nginx"
    target.mkdir(exist_ok=True)
    _run("apt-get", "download", "nginx", cwd=target)
    package = next(target.glob("nginx_*.deb"))
    _run("dpkg", "-x", str(package), str(target / "root"))


def _install_litellm() -> None:
    _run(sys.executable, "-m", "venv", str(WORK / "litellm"))
    _run(str(WORK / "litellm/bin/pip"), "install", "-q", "litellm[proxy]")


def _install_portkey() -> None:
    """With the newest adapter that works with it; later ones break its error headers."""
    target = WORK / "portkey"
    target.mkdir(exist_ok=True)
    (target / "package.json").write_text('{"private": true}')
    _run(
        "npm", "install", "--silent", "@portkey-ai/gateway", "@hono/node-server@1.13.8", cwd=target
    )
    inner = target / "node_modules/@portkey-ai/gateway/node_modules/@hono/node-server"
    shutil.rmtree(inner, ignore_errors=True)


INSTALLERS: dict[str, Callable[[], None]] = {
    "nginx": _install_nginx,
    "litellm": _install_litellm,
    "portkey": _install_portkey,
}


def install_plotting() -> str:
    """The interpreter of an environment with matplotlib."""
    python = WORK / "plotting/bin/python"
    if not python.exists():
        _run(sys.executable, "-m", "venv", str(WORK / "plotting"))
        _run(str(python), "-m", "pip", "install", "-q", "matplotlib")
    return str(python)


def _run(*argv: str, cwd: Path | None = None) -> None:
    if subprocess.run(argv, cwd=cwd).returncode:
        sys.exit(f"{' '.join(argv)}: failed, see above. Run the bench again when that is fixed.")
