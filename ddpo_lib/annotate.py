"""`ddpo annotate`: an annotation study, from stories to win rates."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="An annotation study: which arm's stories people find better, and more diverse.", no_args_is_help=True
)


@app.callback()
def group() -> None:
    # with one command and no callback, typer would take the command for the group
    pass


@app.command()
def analyse(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A study that `ddpo annotate prepare` wrote.")],
    out: Annotated[Path | None, typer.Option(metavar="OUT.json", help="The whole analysis.")] = None,
    profile: Annotated[str, typer.Option(help="Has the confidence of intervals and the number of draws.")] = "embedded",
) -> None:
    """Win rates with intervals, tests, agreement, side bias, time, and the power that the study had."""
    from ddpo_lib import votes
    from ddpo_lib.human_eval import read_answers
    from ddpo_lib.profiles import load_profile
    from ddpo_lib.runs import write_json

    settings = load_profile(profile)
    answers = read_answers(folder)
    resampling = {"draws": settings.evaluation.bootstrap, "confidence": settings.evaluation.confidence}
    found = votes.analyse(answers.table, **resampling, seed=settings.seed)
    if out:
        aside = out.with_name(f".{out.name}.partial")
        write_json(aside, {"arms": answers.key["arms"], "counts": answers.counts, **found})
        aside.replace(out)
    first, second = answers.key["arms"]
    counted = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in answers.counts.items())
    typer.echo(f"{folder}: first is {first}, second is {second}; {counted}\n{votes.describe(found)}")
