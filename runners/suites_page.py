"""The table of the suites in docs/suites.md: what each asks, on which data, with which methods."""

from __future__ import annotations

from collections.abc import Iterable

from gapbench.runners.suites import Suite, suites

FOUND = "all"  # the suite whose methods are whatever is found: a new file must not make the page stale


def suites_table() -> str:
    """The table, in Markdown."""
    made = suites()
    lines = ["| suite | what it compares | datasets | methods | replicas |", "| --- | --- | --- | --- | ---: |"]
    for name, suite in made.items():
        words = "every one of `gapbench list`" if name == FOUND else methods(name, suite, made["default"])
        lines.append(
            f"| `{name}` | {suite.description} | {', '.join(short(suite.tasks))} | {words} | {suite.replicas} |"
        )
    return "\n".join(lines)


def methods(name: str, suite: Suite, default: Suite) -> str:
    """The names of a suite's methods, or how they differ from the default suite's."""
    own, usual = short(suite.methods), short(default.methods)
    missing, more = [one for one in usual if one not in own], [one for one in own if one not in usual]
    words = ", ".join(own)
    if name != "default" and len(missing) < len(usual) / 2:
        words = "those of `default`" + (f" without {', '.join(missing)}" if missing else "")
        words += f", and {', '.join(more)}" if more else ""
    return words + (f"; if named: {', '.join(suite.on_request)}" if suite.on_request else "")


def short(names: Iterable[str]) -> list[str]:
    """The names without what tells variants apart: "n@…" for n@50 and n@1000."""
    return list(dict.fromkeys(name.partition("@")[0] + ("@…" if "@" in name else "") for name in names))
