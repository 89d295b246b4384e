"""`gapbench tune`: what does choosing settings by validation buy, and does it make the gap worse?"""

from __future__ import annotations

from pathlib import Path

import click

from gapbench.runners.cli.console import default_folder, folder_option
from gapbench.runners.cli.errors import HELP, Command, UserError
from gapbench.runners.cli.run import run


@click.command(cls=Command, context_settings={**HELP, "ignore_unknown_options": True})
@click.argument("method")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--trials", type=click.IntRange(min=2), default=30, show_default=True, help="Settings that are tried.")
@click.option(
    "--gap",
    type=click.IntRange(min=0),
    metavar="FEATURE",
    help="Choose by the fifth of the points in the middle of this feature, counted from 0: a gap like those of tables. "
    "Default: by a random fifth of the training points.",
)
@click.option("--suite", default="default", show_default=True, help="On the datasets of which suite.")
@click.option(
    "--out",
    callback=folder_option,
    metavar="FOLDER",
    help="Results folder; the suite is written beside it. Default: as of `run`, named after method and trials.",
)
def tune(method: str, options: tuple[str, ...], trials: int, gap: int | None, suite: str, out: Path | None) -> None:
    """Run a method as it is beside the best of a random search. OPTIONS are those of `gapbench run`.

    The search moves learning rates, dropout rates, initial scales and the prior's std, as far as a method has these,
    never the steps. Each replica chooses by log likelihood on a part of its training data, and the winner is trained
    again on all of them. A trial costs what a run of the method does.
    """
    ours = ("--from", "--csv", "--methods", "--set", "--budget")
    for word in options:
        if word.partition("=")[0] in ours:
            raise UserError(
                f"{word}: not for tune; `gapbench run --from` takes the suite that tune writes, and all of these"
            )
    if method.startswith("-"):
        raise UserError(f"{method}: expected METHOD before the options of `gapbench run`")
    from gapbench.runners.suite_file import written
    from gapbench.runners.suites import one_of, suites
    from gapbench.runners.tuning import tuning

    made = written(tuning(one_of("suite", suite, suites()), method, trials, gap))
    by = "" if gap is None else f"-gap{gap}"
    folder = (out or default_folder(f"{suite}-{method}-tuned{trials}{by}")).absolute()
    source = folder.with_name(f"{folder.name}.toml")
    source.parent.mkdir(parents=True, exist_ok=True)
    if source.exists() and source.read_text(encoding="utf-8") != made:
        raise UserError(f"{source}: another suite is there: run that one by --from, or give another --out")
    source.write_text(made, encoding="utf-8", newline="\n")
    click.echo(f"The suite: {source}", err=True)
    run.main(["--from", str(source), "--out", str(folder), *options], standalone_mode=False)
