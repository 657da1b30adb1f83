"""The relay: `python server.py`, or `python server.py --check` to test its configuration."""

from __future__ import annotations

import argparse
import sys

from relay import __version__, compiled

compiled.use(arguments=sys.argv)  # before the rest is imported

from relay.configuration.settings import load_settings  # noqa: E402
from relay.configuration.variables import SettingsError  # noqa: E402
from relay.serving import BAD_CONFIGURATION, run, run_check  # noqa: E402

EPILOG = """\
Configured by environment variables, which may stand in .env; docs/configuration.md lists
them. Exit status: 0 stopped in order, or every provider answers; 1 a provider does not, or
stopped at once; 2 bad configuration; 3 the address can't be listened on."""


def main(arguments: list[str] | None = None) -> int:
    """Serve, or check; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="A WebSocket-first real-time relay between chat clients and language models.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="test the configuration and each provider's key, spend nothing, say a line each",
    )
    parser.add_argument(
        compiled.INTERPRETED,
        action="store_true",
        help="leave compiled modules out, where there are any (`make compile`)",
    )
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        return run_check(settings) if options.check else run(settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
