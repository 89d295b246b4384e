"""How a command ends: in one line, with a documented exit code."""

from __future__ import annotations

import io
import sys
import traceback
from typing import IO, Any

import click

EXIT_CODES = """\b
Exit codes:
  0    done
  1    done, but a cell or a replica failed, or a damaged file is left out (the output says which)
  2    the command line asks for something that is not there or makes no sense
  3    a folder or file cannot be read or written, or has no results
  4    something unexpected, a bug: --debug shows where
  130  interrupted: run the same command again to go on
  141  the output was closed before its end, as by `| head`
"""


class UserError(click.ClickException):
    exit_code = 2


class FileError(click.ClickException):
    exit_code = 3


class Unexpected(click.ClickException):
    exit_code = 4


class Interrupted(click.ClickException):
    exit_code = 130

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Interrupted. {self.message}".rstrip(), err=True)


class Command(click.Command):
    """A command that ends in one line, whatever happens; --debug shows the traceback before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", EXIT_CODES)
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # where there is no ↓ to be had, a ? has to do
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()  # a pipe that is closed is met here, and not when Python ends
            return done
        except SystemExit:
            flushed()
            raise
        except (click.exceptions.Exit, click.Abort):  # click's own business
            raise
        except BrokenPipeError:
            closed()
        except (KeyboardInterrupt, Exception) as error:
            if debug:
                traceback.print_exc()
            raise told(error) from error


class Group(click.Group):
    command_class = Command


def flushed() -> None:
    """Write what is left of the output."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        closed()


def closed() -> None:
    """End as a command does whose reader has gone: quietly, with the code of SIGPIPE."""
    sys.stdout = open("/dev/null", "w")  # noqa: SIM115 what Python flushes at its end must not meet the pipe again
    raise SystemExit(141)


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
    ):
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return kind(str(error))
    what = str(error).strip().partition("\n")[0]
    return Unexpected(f"{type(error).__name__}: {what}; this should not happen: --debug shows where it did")
