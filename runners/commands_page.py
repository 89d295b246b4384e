"""The page of the commands, docs/commands.md: what `--help` says of each, and the exit codes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from gapbench.runners.cli.errors import EXIT_CODES

WIDTH = 100  # of the help, whatever terminal writes the page
EVERYWHERE = {"--debug", "--help"}  # the options of every command, which the page names once
TOP = """# Commands

This page is written by `gapbench readme` from what `--help` says. [Usage](usage.md) has examples. Each command also has
`--help`, and `--debug`, which shows the traceback of an error. `-h` is `--help`."""


def commands_page(main: click.Group) -> str:
    """The page of a group's commands, in Markdown. Hidden ones are left out."""
    found = dict(commands(main))
    lines = ["| command | |", "| --- | --- |"]
    lines += [f"| [{name}](#{name.replace(' ', '-')}) | {first_sentence(one)} |" for name, one in found.items()]
    codes = ["## Exit codes", "| code | meaning |\n| ---: | --- |\n" + "\n".join(exit_codes())]
    parts = [TOP, "\n".join(lines), *(section(name, one) for name, one in found.items()), *codes]
    return "\n\n".join(parts) + "\n"


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """The commands with their names, "data get" for one of a group below, in the order in which they were added."""
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            yield from commands(one, f"{before}{name} ")
        elif not one.hidden:
            yield f"{before}{name}", one


def first_sentence(command: click.Command) -> str:
    return re.split(r"(?<=[.?])\s", " ".join((command.help or "").split()), maxsplit=1)[0]


def section(name: str, command: click.Command) -> str:
    """The help of one command."""
    context = click.Context(command, info_name=f"gapbench {name}", terminal_width=WIDTH, **command.context_settings)
    formatter = context.make_formatter()
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    own = [one for one in command.get_params(context) if not EVERYWHERE & set(one.opts)]
    records = [record for one in own if (record := one.get_help_record(context)) is not None]
    if records:
        with formatter.section("Options"):
            formatter.write_dl(records)
    return f"## {name}\n\n```text\n{formatter.getvalue().strip()}\n```"


def exit_codes() -> list[str]:
    """The exit codes, as lines of a table."""
    found = re.findall(r"^ +(\d+) +(.+)$", EXIT_CODES, re.MULTILINE)
    return [f"| {code} | {meaning.replace('|', chr(92) + '|')} |" for code, meaning in found]
