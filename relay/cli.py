"""The command `relay`: serve, check, chat, and fetch the embedded model.

Each command imports its own part when it is called: a chat loads none of the server's
libraries, and the server doesn't load the client.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from relay import __version__
from relay.process import compiled

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from relay.configuration.settings import Settings
    from relay.engine.process import EngineEndpoint

INTERRUPTED = 130
"""The exit status of a command that Ctrl-C stopped before it handled signals itself."""

DESCRIPTION = "A WebSocket-first real-time relay between chat clients and language models."

SERVER_EPILOG = """\
Configured by environment variables, which may be set in .env; docs/configuration.md lists
them. Exit status: 0 stopped in order, or every provider answers; 1 a provider does not, or
stopped at once; 2 bad configuration; 3 the address can't be listened on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    command = given[0] if given else ""
    if command not in COMMANDS:
        _parser().parse_args(given)  # ends with the help, the version or an error
    try:
        return COMMANDS[command].run(given[1:])
    except KeyboardInterrupt:
        return INTERRUPTED


def serve(arguments: Sequence[str]) -> int:
    """Serve until a signal comes, or check; returns the exit status."""
    parser = _make_parser("relay serve", "Serve until Ctrl-C or SIGTERM.", SERVER_EPILOG)
    parser.add_argument(
        "--check",
        action="store_true",
        help="test instead, as `relay check` does",
    )
    parser.add_argument(
        compiled.INTERPRETED,
        action="store_true",
        help="use no compiled modules, even where there are any (`make compile`)",
    )
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    compiled.use(arguments=arguments)  # before the rest is imported

    from relay.configuration.load import load_settings
    from relay.configuration.variables import SettingsError
    from relay.process.serving import BAD_CONFIGURATION, run, run_check

    try:
        settings = load_settings()
        if options.check:
            return run_check(settings)
        _complete_local(settings)
        return run(settings, _work)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIGURATION


def _work(number: int, port: int, endpoint: EngineEndpoint | None, parent: Connection) -> int:
    """Run one of several processes of `serve`, from its first import on."""
    compiled.use(arguments=sys.argv)

    from relay.process.serving import serve_worker

    return serve_worker(number, port, endpoint, parent)


def _complete_local(settings: Settings) -> None:
    """Fetch the embedded model where its engine is installed and only the file is missing. Where
    that fails the start goes on without it."""
    from relay.engine.fetch import NotFetched, fetch_model
    from relay.engine.model import lacks_model

    if "local" in settings.supported_providers and lacks_model():
        try:
            with contextlib.redirect_stdout(sys.stderr):
                fetch_model()
        except NotFetched as error:
            sys.stderr.write(f"{error}\n")


def check(arguments: Sequence[str]) -> int:
    """Test the configuration and each provider; returns the exit status."""
    does = "Test the configuration and each provider's key, at no cost, and print a line for each."
    _make_parser("relay check", does, SERVER_EPILOG).parse_args(arguments)
    return serve(["--check"])


def chat(arguments: Sequence[str]) -> int:
    """Ask a relay from the terminal; returns the exit status."""
    from relay.client.__main__ import main

    return main(arguments, "relay chat")


def model(arguments: Sequence[str]) -> int:
    """Fetch the embedded model's file; returns the exit status."""
    does = "Keep the embedded model's file in the user's cache."
    parser = _make_parser(
        "relay model", does, "Exit status: 0 the file is there; 1 it can't be fetched."
    )
    parser.add_argument("action", choices=["fetch"], help="fetch the file, unless it is there")
    parser.parse_args(arguments)

    from relay.engine.fetch import NotFetched, fetch_model

    try:
        sys.stdout.write(f"{fetch_model()}\n")
    except NotFetched as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


class Command(NamedTuple):
    """A command's function, which takes the arguments after its name, and its two texts in the
    help."""

    run: Callable[[Sequence[str]], int]
    shown: str
    help: str


COMMANDS = {
    "serve": Command(serve, "serve", "serve until Ctrl-C or SIGTERM"),
    "check": Command(check, "check", "test the configuration and each provider's key"),
    "chat": Command(chat, "chat", "ask a relay from the terminal"),
    "model": Command(model, "model fetch", "fetch the embedded model's file"),
}


def _parser() -> argparse.ArgumentParser:
    lines = (f"  {command.shown:<13}{command.help}\n" for command in COMMANDS.values())
    epilog = f"commands:\n{''.join(lines)}\n`relay COMMAND --help` says more."
    parser = _make_parser("relay", DESCRIPTION, epilog)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _make_parser(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
