"""Errors of the command line: one line each, with a documented exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

EXIT_CODES = """\b
Exit codes:
  0    done
  1    done, but a cell or a replica failed or is not as recorded, or a damaged file is left out (the output says which)
  2    the command line asks for something that is not there or makes no sense
  3    a folder or file cannot be read or written, or has no results
  4    something unexpected, a bug: --debug shows where
  5    the engine cannot be reached, or was lost: run the same command again to go on
  130  interrupted: run the same command again to go on
  141  the output was closed before its end, as by `| head`
"""


class UserError(click.ClickException):
    exit_code = 2


class FileError(click.ClickException):
    exit_code = 3


class Unexpected(click.ClickException):
    exit_code = 4


class Lost(click.ClickException):
    exit_code = 5


class Interrupted(click.ClickException):
    exit_code = 130

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Interrupted. {self.message}".rstrip(), err=True)


HELP = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A command that ends in one line, whatever happens; --debug shows the traceback before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", EXIT_CODES)
        kwargs.setdefault("context_settings", HELP)
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # where there is no ↓ to be had, a ? has to do
        try:
            try:
                return super().invoke(ctx)
            finally:
                flush()
        except (SystemExit, click.exceptions.Exit, click.Abort, BrokenPipeError):  # click's business, and the group's
            raise
        except (KeyboardInterrupt, Exception) as error:
            if debug:
                traceback.print_exc()
            raise told(error) from error


class Group(click.Group):
    """A group of commands. A reader of its output that has gone ends it quietly, with the code of SIGPIPE."""

    command_class = Command

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with piped():
            return super().make_context(*args, **kwargs)  # prints --help

    def invoke(self, ctx: click.Context) -> Any:
        with piped():
            return super().invoke(ctx)


@contextmanager
def piped() -> Iterator[None]:
    """A guard around what prints: a reader that has gone, and a disk that is full."""
    try:
        yield
    except BrokenPipeError:
        abandon()
        sys.exit(141)
    except OSError as error:  # of --help; a command has told its own
        abandon()
        raise told(error) from error


def flush() -> None:
    """Write what is left of the output, so that a pipe that is closed or a disk that is full is met here, and not when
    Python ends."""
    try:
        if sys.stdout is not None:  # it is None where the shell closed it: >&-
            sys.stdout.flush()
    except OSError:
        abandon()
        raise


def abandon() -> None:
    """Give the output up: what is left of it would be tried again when Python ends."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def told(error: BaseException) -> click.ClickException:
    """The one line, and the exit code, of whatever went wrong."""
    if isinstance(error, click.ClickException):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("")
    if isinstance(error, OSError):
        return FileError(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    # These are raised by modules that a command imports late; if they could be raised, they are there.
    for module, name, kind in (
        ("gapbench.runners.store", "StoreError", FileError),
        ("gapbench.runners.suites", "Unknown", UserError),
        ("gapbench.runners.devices", "NoDevice", UserError),
        ("gapbench.datasets.table_file", "TableError", UserError),
        ("gapbench.runners.engines", "EngineError", Lost),
    ):
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return kind(str(error))
    what = str(error).strip().partition("\n")[0]
    return Unexpected(f"{type(error).__name__}: {what}; this should not happen: --debug shows where it did")
