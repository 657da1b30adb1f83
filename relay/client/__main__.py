"""Ask a relay from a terminal: `relay chat`, or `python -m relay.client`, which is the same."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.client.answer import ClientError, ConnectionFailed
from relay.client.chat import Chat
from relay.client.client import DEFAULT_URL, GIVE_UP_AFTER, RelayClient, Status
from relay.client.terminal import JsonPrinter, Printer, WholePrinter, as_json, explain, one_line
from relay.client.transport import websocket_url

OK, FAILED, USAGE, UNREACHABLE, BROKEN_PIPE = 0, 1, 2, 3, 141

MODULE = "python -m relay.client"

STOP_TIMEOUT = 5.0
"""Seconds to wait for the relay to confirm a cancel; after that the command ends."""

EPILOG = """\
exit codes:
  0    the answer is complete
  1    the answer failed; stderr says why and what to do
  2    wrong usage
  3    no relay could be reached, or it refused the connection
  130  stopped with Ctrl-C (143: by SIGTERM); the relay was told to cancel
  141  the reader of the output closed it; the relay was told to cancel

The text goes to stdout, everything about it to stderr. Control characters in a model's
text are left out, so that it can't control the terminal. A dropped connection is made
again, and the answer continues where it broke. A second Ctrl-C ends at once.

examples:
  %(prog)s "Why is the sky blue?" --provider local
  git diff | %(prog)s --system "Review this diff." --whole > review.txt
"""


def parser(prog: str = MODULE) -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog=prog,
        description="Ask a chat relay and stream the answer to the terminal.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("prompt", nargs="?", help="the message; read from stdin when left out or -")
    add("--provider", metavar="NAME", help="provider or route (default: the relay's own)")
    add("--providers", action="store_true", help="list the relay's providers and exit")
    add("--system", metavar="TEXT", help="system prompt")
    add("--max-tokens", type=int, metavar="N", help="limit of the answer, in tokens")
    add(
        "--no-fallback",
        action="store_true",
        help="try no other model and do not continue a broken answer",
    )
    add("--url", default=DEFAULT_URL, help="the relay's address (default: %(default)s)")
    add("--token", metavar="TOKEN", help="access token (better: the variable RELAY_TOKEN)")
    add("--reasoning", action="store_true", help="show the model's thinking, on stderr")
    form = made.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="print the relay's frames, one JSON object a line"
    )
    form.add_argument(
        "--whole", action="store_true", help="print the text once it is complete, for scripts"
    )
    add(
        "--give-up-after",
        type=float,
        default=GIVE_UP_AFTER,
        metavar="SECONDS",
        help="how long to try to reconnect (default: %(default)g)",
    )
    return made


def read_prompt(given: str | None) -> str:
    """The message, from the command line or from stdin."""
    if given is not None and given != "-":
        return given
    if sys.stdin.isatty():
        print("[type the message, end it with Ctrl-D]", file=sys.stderr)
    return sys.stdin.read()


@dataclass
class Interrupt:
    """Turns a first signal into a cancel of the chat, and a second one into an exit."""

    task: asyncio.Task[int]
    printer: Printer
    chat: Chat | None = None
    code: int | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def install(self) -> None:
        """Listen for SIGINT and SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self.fire, 128 + number)
            except NotImplementedError:  # Windows has no signal handlers in the loop.
                signal.signal(
                    number, lambda n, _: loop.call_soon_threadsafe(self.fire, 128 + n) and None
                )

    def fire(self, code: int) -> None:
        """Stop the chat. Exit at once if no chat was sent yet, or if this is the second signal."""
        if self.chat is None or self.code is not None:
            self.code = self.code or code
            self.task.cancel()
            return
        self.code = code
        self.chat.cancel()
        self.timers.append(asyncio.get_running_loop().call_later(STOP_TIMEOUT, self._too_late))

    def _too_late(self) -> None:
        self.printer.note("the relay did not confirm the stop in time")
        self.task.cancel()


def status_note(printer: Printer, status: Status) -> None:
    """Print a change of the connection that a person should know about."""
    if status.state == "waiting":
        printer.note(f"connection lost, trying again in {status.delay:.1f} s")


async def ask(options: argparse.Namespace, message: str) -> int:
    """Ask and print; returns the exit code."""
    printer = (JsonPrinter if options.json else Printer)(
        sys.stdout, sys.stderr, reasoning=options.reasoning
    )
    task: asyncio.Task[int] | None = asyncio.current_task()
    assert task is not None
    interrupt = Interrupt(task, printer)
    interrupt.install()
    try:
        code = await _converse(options, message, printer, interrupt)
    except asyncio.CancelledError:
        if interrupt.code is None:
            raise
        code = interrupt.code
    except ClientError as failure:
        printer.end_line()
        if options.json:
            print(as_json(failure), flush=True)
        print(f"error: {explain(failure)}", file=sys.stderr)
        code = UNREACHABLE if isinstance(failure, ConnectionFailed) else FAILED
    return interrupt.code or code


async def _converse(
    options: argparse.Namespace, message: str, printer: Printer, interrupt: Interrupt
) -> int:
    async with RelayClient(
        options.url,
        token=options.token or os.environ.get("RELAY_TOKEN"),
        give_up_after=options.give_up_after,
        on_status=lambda status: status_note(printer, status),
        on_problem=lambda failure: printer.note(explain(failure)),
    ) as relay:
        if options.providers:
            return _list(relay, as_json_lines=options.json)
        chat = relay.chat(
            message,
            provider=options.provider,
            system=options.system,
            max_tokens=options.max_tokens,
            fallback=False if options.no_fallback else None,
        )
        interrupt.chat = chat
        if options.whole:
            printer = WholePrinter(sys.stdout, sys.stderr, chat.answer, reasoning=options.reasoning)
        return await _print(chat, printer)


async def _print(chat: Chat, printer: Printer) -> int:
    try:
        async for event in chat:
            printer.show(event)
    except BrokenPipeError:
        chat.cancel()
        await chat.done()
        return BROKEN_PIPE
    return OK


def _list(relay: RelayClient, *, as_json_lines: bool) -> int:
    for offer in relay.providers:
        shown = one_line(f"{offer['name']}  {offer['model']}  {offer['status']}")
        print(json.dumps(offer) if as_json_lines else shown)
    return OK


def main(arguments: Sequence[str] | None = None, prog: str = MODULE) -> int:
    """The command, called `prog` in its help; returns its exit code."""
    made = parser(prog)
    options = made.parse_args(arguments)
    try:
        websocket_url(options.url)
    except ValueError as error:
        made.error(str(error))
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        message = "" if options.providers else read_prompt(options.prompt)
        if not options.providers and not message.strip():
            made.error("the message is empty: pass it as an argument or on stdin")
        code = asyncio.run(ask(options, message))
    except KeyboardInterrupt:
        return 130
    if code == BROKEN_PIPE:
        # Python flushes stdout once more at exit, which would fail on a closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


if __name__ == "__main__":
    sys.exit(main())
