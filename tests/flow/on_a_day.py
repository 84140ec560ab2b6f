"""The command line as it would run on another day: python tests/flow/on_a_day.py 2024-04-01 run …

No command has an option for the day, so that nobody works with a study that has ended. Tests of studies that have ended
need another clock. There is no network either: what runs here passes on a computer that has none.
"""

from __future__ import annotations

import importlib
import socket
import sys
from datetime import date
from typing import Any


def without_network() -> None:
    """Let no connection begin and no name be looked up, from now on and in this process."""

    def refused(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("the network was asked for")

    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, refused)
    for name in ("getaddrinfo", "create_connection"):
        setattr(socket, name, refused)


def main() -> None:
    """Set the clock of every module that asks it, then do what the arguments say."""
    without_network()
    day = date.fromisoformat(sys.argv[1])

    class Clock(date):
        @classmethod
        def today(cls) -> Clock:
            return cls(day.year, day.month, day.day)

    for name in ("consent.command", "deidentify.command", "destroy", "export.command", "govern"):
        module = importlib.import_module(f"reportlabel.{name}")
        assert module.date is date
        setattr(module, "date", Clock)  # noqa: B010
    sys.argv = ["reportlabel", *sys.argv[2:]]
    from reportlabel.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
