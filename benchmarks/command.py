"""What the commands of all benchmarks have in common: how they are refused and interrupted, and numbers from 1 on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from pals_core.errors import InvalidSpec, PalsError

REFUSED, INTERRUPTED = 2, 130  # exit codes; the second is a shell's for Ctrl-C


class Refused(Exception):
    """A benchmark cannot run as it was asked to."""


def run_command(command: Callable[[], None], *, when_interrupted: str = "") -> None:
    """Run a command; what is wrong with its arguments or its files, or Ctrl-C, is told in one line."""
    try:
        command()
    except KeyboardInterrupt:
        _leave(f"Interrupted. {when_interrupted}".rstrip(), INTERRUPTED)
    except InvalidSpec as invalid:
        _leave("\n".join(f"{problem.pointer}: {problem.message}" for problem in invalid.problems), REFUSED)
    except (Refused, PalsError, OSError) as error:
        _leave(str(error), REFUSED)


def _leave(why: str, code: int) -> None:
    print(why, file=sys.stderr)
    sys.exit(code)


def at_least(least: int) -> Callable[[str], int]:
    """Return a type for argparse: whole numbers from `least` on."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    number.__name__ = "whole number"  # what argparse calls it
    return number
