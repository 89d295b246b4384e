"""The table of the scores in docs/scores.md: the aim, the unit and the definition of each."""

from __future__ import annotations

from gapbench.evaluation.scores import SCORES, Score

UNITS = {"y": "of y", "nats": "nats", "": ""}


def scores_table() -> str:
    """The table, in Markdown."""
    lines = ["| score | aim | unit | definition |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *map(line, SCORES.values())])


def line(score: Score) -> str:
    words = score.description.replace("|", "\\|")
    return f"| `{score.name}` | {score.direction} | {UNITS[score.unit]} | {words} |"
