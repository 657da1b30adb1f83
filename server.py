"""The server from a checkout: `python server.py` is `relay serve`, with the same options."""

import sys

from relay.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
