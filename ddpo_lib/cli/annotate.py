"""`ddpo annotate ...`: a study with people, from the stories of a run to win rates."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.unfinished import write_whole
from ddpo_lib.cli.options import Sends, examples, sent

app = typer.Typer(
    help="A study with people: prepare it, serve it, analyse its answers, and ask a model too.", no_args_is_help=True
)

HOSTING = """\
http://127.0.0.1:{port}/

Only this machine can reach it. To let others in, run an HTTPS proxy in front of it on this machine, and never open the
port itself. With nginx, write this into a server block that has your certificate:
    location / {{ proxy_pass http://127.0.0.1:{port}; proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; }}
Then start this command with POTATO_PROXY_FIX=1 in its environment, so that Potato trusts these headers.
Anyone who knows a name can sign in with it; `require_password: true` in {config} asks for a password too.
For Prolific, add these two lines to that file, with your code:
    login: {{type: url_direct, url_argument: PROLIFIC_PID}}
    completion_code: YOUR-CODE
and give Prolific the address https://YOUR-HOST/?PROLIFIC_PID={{{{%PROLIFIC_PID%}}}}
Stop with Ctrl-C. Answers are kept, and the same command continues."""


class Show(StrEnum):
    """How annotators see a story."""

    whole = "whole"
    opening = "opening"
    summary = "summary"


@app.command(
    epilog=examples(
        "ddpo annotate prepare runs/embedded --arms ddpo-both dpo --out study",
        "ddpo annotate prepare runs/small --arms dpo sft --out short --show opening",
        "ddpo annotate prepare runs/small --arms dpo sft --out plots --show summary",
    )
)
def prepare(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with stories, such as runs/embedded.")],
    arms: Annotated[tuple[str, str], typer.Option(help="The two arms; the wins of the first are counted.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="New folder for the study; must not exist.")],
    prompts: Annotated[int, typer.Option(min=1, help="Number of items, one per prompt, at most.")] = 100,
    show: Annotated[Show, typer.Option(help="Each story whole, its opening, or a summary of its plot.")] = Show.whole,
    words: Annotated[int, typer.Option(min=1, help="Number of words in an opening or a summary.")] = 100,
    items: Annotated[int, typer.Option(min=1, help="Items per annotator, besides attention checks.")] = 25,
    labels: Annotated[int, typer.Option(min=1, help="Labels per item, by different annotators.")] = 3,
    checks: Annotated[int, typer.Option(min=0, help="Attention checks per annotator.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts, their order, sides and checks.")] = 0,
    model: Annotated[str | None, typer.Option(help="Model that writes summaries, here or at the server.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, with /v1.")] = None,
    key_variable: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    engine: Annotated[str | None, typer.Option(help="transformers, vllm or server; default: by --url.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens per summary, thoughts included; default: 4 per word.")
    ] = None,
    sends: Sends = None,
    profile: Annotated[str, typer.Option(help="Profile whose model writes summaries without --model.")] = "embedded",
) -> None:
    """Write a study of two arms: pages for Potato, and a separate key that says which story is from which arm."""
    from ddpo_lib.people import human_eval

    given = _given(model=model, url=url, key=key_variable, engine=engine, sends=sent(sends))
    if given and show != Show.summary:
        raise InputError(f"--show {show}: nothing is summarised; leave out {', '.join(given)}, or give --show summary")
    if out.exists():  # checked before a model is loaded
        raise InputError(f"{out}: exists already and may hold answers; name a new folder")
    writer = _open_engine(given, profile) if show == Show.summary else None
    sizes = {"prompts": prompts, "items": items, "labels": labels, "checks": checks, "words": words, "tokens": tokens}
    key = human_eval.prepare(run, arms, out, show=show.value, seed=seed, engine=writer, **sizes)
    fewer = f" ({prompts} were asked for; the arms share no more)" if key["prompts"] < prompts else ""
    blocks = -(-key["prompts"] // items)
    typer.echo(
        f"{out}: {key['prompts']} items{fewer}, {labels} labels each, for {blocks * labels} annotators; "
        f"write who you are into {out / 'study' / 'consent.json'}, and keep {out / 'key.json'} to yourself"
    )


@app.command(epilog=examples("ddpo annotate serve study --port 8000"))
def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A study that `ddpo annotate prepare` wrote.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8000,
) -> None:
    """Start the annotation server of a study on this machine."""
    from ddpo_lib.people import potato

    server = potato.start(folder, port)
    typer.echo(HOSTING.format(port=port, config=folder / "study" / "config.yaml"))
    status = potato.serve_until_stopped(server)
    if status:
        raise InputError(f"Potato stopped with status {status}; its log is {folder / 'potato.log'}")


@app.command(
    epilog=examples(
        "ddpo annotate analyse study",
        "ddpo annotate analyse study --out found.json",
    )
)
def analyse(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A study that `ddpo annotate prepare` wrote.")],
    out: Annotated[Path | None, typer.Option(metavar="OUT.json", help="File for the whole analysis.")] = None,
    profile: Annotated[str, typer.Option(help="Profile with the confidence and the number of draws.")] = "embedded",
) -> None:
    """Print win rates with intervals, tests, agreement, side bias, time, and what the study can detect."""
    from ddpo_lib.base.files import write_json
    from ddpo_lib.people import vote_report, votes
    from ddpo_lib.people.answers import read_answers
    from ddpo_lib.profiles.profile import load_profile

    settings = load_profile(profile)
    answers = read_answers(folder)
    resampling = {"draws": settings.evaluation.bootstrap, "confidence": settings.evaluation.confidence}
    found = votes.analyse(answers.table, **resampling, seed=settings.seed)
    if out:
        whole = {"arms": answers.key["arms"], "counts": answers.counts, **found}
        write_whole(out, lambda aside: write_json(aside, whole))
    first, second = answers.key["arms"]
    counted = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in answers.counts.items())
    typer.echo(f"{folder}: first is {first}, second is {second}; {counted}\n{vote_report.describe(found)}")


@app.command(
    epilog=examples(
        "ddpo annotate judge study",
        "ddpo annotate judge study --url http://127.0.0.1:8080/v1 --model qwen",
    )
)
def judge(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A study that `ddpo annotate prepare` wrote.")],
    model: Annotated[str | None, typer.Option(help="Model that judges, here or at the server.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, with /v1.")] = None,
    key_variable: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    engine: Annotated[str | None, typer.Option(help="transformers, vllm or server; default: by --url.")] = None,
    name: Annotated[str | None, typer.Option(help="Judge's name in files and tables; default: the model's.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens per answer; thoughts need more.")] = 64,
    sends: Sends = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    profile: Annotated[str, typer.Option(help="Profile with the confidence, and the default judge.")] = "embedded",
) -> None:
    """Ask a language model the study's questions, with each item in both orders. Continues after an interruption."""
    from ddpo_lib.people import judge as judges
    from ddpo_lib.people import judge_report
    from ddpo_lib.people.answers import read_answers
    from ddpo_lib.profiles.profile import load_profile

    settings = load_profile(profile)
    answers = read_answers(folder)  # before a model is loaded
    given = _given(model=model, url=url, key=key_variable, engine=engine, sends=sent(sends))
    name = name or Path(model or settings.model.name).name
    sampling = judges.SAMPLING.model_copy(update={"max_new_tokens": tokens})
    judged = judges.judge_study(folder, _open_engine(given, profile), name=name, seed=seed, sampling=sampling)
    resampling = {"draws": settings.evaluation.bootstrap, "confidence": settings.evaluation.confidence}
    first, second = answers.key["arms"]
    said = judge_report.describe(judged, answers.table, **resampling, seed=settings.seed)
    typer.echo(f"{folder}, judge {name}: first is {first}, second is {second}\n{said}")


def _given(**asked: str | list[str] | None) -> dict:
    """The options of an engine that were given; an address without an engine means a server."""
    asked["engine"] = asked["engine"] or ("server" if asked["url"] else None)
    return {name: value for name, value in asked.items() if value is not None}


def _open_engine(given: dict, profile: str):
    from ddpo_lib.cli.commands import checked
    from ddpo_lib.profiles.evaluation_settings import Baseline
    from ddpo_lib.profiles.profile import load_profile
    from ddpo_lib.sampling.engines import open_engine

    return open_engine(checked(Baseline, given), load_profile(profile).model)
