"""The `ddpo` command. Bad input ends with one clear line and status 2, and leaves no incomplete file."""

import ctypes
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ddpo_lib.base.disk_errors import describe_disk_error
from ddpo_lib.base.errors import InputError, Printable, printable
from ddpo_lib.base.extras import MissingPackage
from ddpo_lib.cli import annotate, maintain, online
from ddpo_lib.cli.doctor import doctor
from ddpo_lib.cli.options import (
    GPUS,
    HELD_OUT,
    IS_MAIN,
    SPLIT_SEED,
    Corpus,
    HeldOut,
    Profile,
    Runs,
    Sends,
    SplitSeed,
    Tokens,
    examples,
    sent,
)
from ddpo_lib.cli.weigh import divide, merge, weights
from ddpo_lib.cli.workflow import pdf, read

app = typer.Typer(
    help="Deviation-weighted preference training: DDPO and DORPO (arXiv:2503.17126).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(annotate.app, name="annotate")
app.add_typer(maintain.app)
app.add_typer(online.app)


def main() -> None:
    """Entry point: turns errors that a user can fix into one line and status 2."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(Printable("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[terminal])
    logging.getLogger("ddpo_lib").setLevel(logging.INFO if IS_MAIN else logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except (InputError, MissingPackage) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        said = describe_disk_error(error)
        if said is None:
            raise
        print(f"error: {printable(said)}", file=sys.stderr)
        sys.exit(2)


@app.callback()
def check_processes(context: typer.Context) -> None:
    # two processes of another command would do the same work twice, or wait for each other's lock for ever
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and context.invoked_subcommand not in ("train", "weights"):
        command = context.invoked_subcommand
        raise InputError(f"{command}: started as several processes; only `train` and `weights` share their work")


app.command(
    epilog=examples(
        "ddpo weights mine.jsonl weights.parquet",
        "ddpo weights mine.jsonl weights.parquet --semantic lexical --held-out 0.2",
        "ddpo weights mine.jsonl part1.parquet --shard 1/2",
    )
)(weights)
app.command(epilog=examples("ddpo divide mine.jsonl parts --parts 64"))(divide)
app.command(epilog=examples("ddpo merge weights.parquet part1.parquet part2.parquet"))(merge)


@app.command(
    epilog=examples(
        "ddpo train weights.parquet sft --arm sft",
        "ddpo train weights.parquet ddpo --arm ddpo-both --from sft",
    )
)
def train(
    source: Annotated[Path, typer.Argument(metavar="WEIGHTS.parquet", help="Table that `ddpo weights` wrote.")],
    out: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder for the LoRA adapter; must not exist.")],
    arm: Annotated[
        str, typer.Option(help="sft, dpo, ddpo-semantic, ddpo-style, ddpo-both, orpo, dorpo-*.")
    ] = "ddpo-both",
    start: Annotated[Path | None, typer.Option("--from", help="Adapter to start from; also the reference.")] = None,
    profile: Profile = "embedded",
) -> None:
    """Train one arm on the training prompts: `--arm sft` first, then any other with `--from` the SFT adapter."""
    from ddpo_lib.cli import commands

    sentence = commands.train(source, out, arm, start, profile)
    if IS_MAIN:
        typer.echo(sentence)


@app.command(
    epilog=examples(
        "ddpo generate ddpo weights.parquet samples.jsonl",
        "ddpo generate ddpo prompts.jsonl samples.jsonl --samples 4 --temperature 0.8",
        "ddpo generate - weights.parquet iter.jsonl --how iter",
        "ddpo generate - prompts.jsonl qwen.jsonl --model Qwen/Qwen2.5-0.5B-Instruct",
        "ddpo generate - prompts.jsonl s.jsonl --url http://localhost/v1 --model qwen",
    )
)
def generate(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder that `ddpo train` wrote, or - for none.")],
    prompts: Annotated[str, typer.Argument(metavar="PROMPTS", help="WEIGHTS.parquet, a corpus, or only prompts.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Samples, grouped by prompt.")],
    model: Annotated[str | None, typer.Option(help="Model without an adapter, here or at the server.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server, with /v1.")] = None,
    key_variable: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="transformers, vllm or server; default: by --url or profile.")
    ] = None,
    how: Annotated[str | None, typer.Option(help="plain, iter or verbalized.")] = None,
    instruction: Annotated[str | None, typer.Option(help="What to tell the model; contains {prompt}.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per prompt; default: the profile's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; default: the profile's.")] = None,
    tokens: Tokens = None,
    sends: Sends = None,
    profile: Profile = "embedded",
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    split: Annotated[str, typer.Option(help="test: held-out prompts; train: the others; all: both.")] = "test",
    held_out: HeldOut = HELD_OUT,
    split_seed: SplitSeed = SPLIT_SEED,
) -> None:
    """Sample stories for held-out prompts from an adapter, any model, or a server. Continues after an interruption.

    WEIGHTS.parquet says which prompts are held out. A corpus is split by --held-out and --split-seed; give the same
    values as to `ddpo weights`. A prompt without responses is held out.
    """
    from ddpo_lib.cli import commands

    asked = {"model": model, "url": url, "key": key_variable, "how": how, "instruction": instruction}
    asked |= {"engine": engine or ("server" if url else None), "sends": sent(sends)}
    given = {field: value for field, value in asked.items() if value is not None}
    chosen = None if adapter == "-" else Path(adapter)
    sampling = samples, temperature, tokens, profile, seed
    typer.echo(commands.generate(prompts, out, chosen, given, *sampling, split, held_out, split_seed))


@app.command(
    epilog=examples(
        "ddpo evaluate samples.jsonl --scored weights.parquet",
        "ddpo evaluate dpo.jsonl ddpo.jsonl --scored mine.jsonl --out results.json",
    )
)
def evaluate(
    sources: Annotated[list[str], typer.Argument(metavar="SAMPLES...", help="Prompt-grouped files, one per arm.")],
    scored: Annotated[str | None, typer.Option(help="WEIGHTS.parquet or a corpus, to fit the reward on.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="OUT.json", help="Every measure, with intervals.")] = None,
    profile: Profile = "embedded",
    held_out: HeldOut = HELD_OUT,
    split_seed: SplitSeed = SPLIT_SEED,
) -> None:
    """Measure quality and diversity of samples, with intervals, and compare the other files with the first one.

    The reward is fitted on the training prompts of --scored. If that is a corpus, --held-out and --split-seed split it.
    The first line says how many of the prompts the models and the reward have learned from.
    """
    from ddpo_lib.base.files import write_json
    from ddpo_lib.base.unfinished import write_whole
    from ddpo_lib.cli import evaluate_samples

    result = evaluate_samples.evaluate(sources, scored, profile, held_out, split_seed)
    if out:
        write_whole(out, lambda aside: write_json(aside, result))
    typer.echo(evaluate_samples.describe_evaluation(result))


@app.command(
    epilog=examples(
        "ddpo run --profile smoke",
        "ddpo run --corpus mine.jsonl --cores 8",
        "ddpo run --profile deviation --corpus mine.jsonl",
        "ddpo run --profile paper --executor slurm --jobs 16",
    )
)
def run(
    profile: Profile = "embedded",
    corpus: Corpus = None,
    runs: Runs = Path("runs"),
    cores: Annotated[int, typer.Option(help="Processes and threads at once.")] = os.cpu_count() or 1,
    gpus: Annotated[str | None, typer.Option(help=GPUS + " Default: all GPUs of this machine.")] = None,
    executor: Annotated[str | None, typer.Option(help="Snakemake executor, such as slurm; default: none.")] = None,
    jobs: Annotated[int, typer.Option(help="Jobs at once, with an executor.")] = 16,
) -> None:
    """Make everything: data, training, samples, evaluation and the book. Fresh artifacts are not made again."""
    from ddpo_lib.base import gpus as devices
    from ddpo_lib.cli.workflow import cluster_options, make_apart, snakemake
    from ddpo_lib.report.book import publish
    from ddpo_lib.runs.pipeline import ALONE, PROJECT, open_run

    opened = open_run(profile, corpus, runs)
    if "sft" not in opened.steps:  # a profile without arms
        alone = f"chapter-{ALONE}"
        typer.echo(opened.path(alone) / f"{ALONE}.ipynb" if alone in opened.steps else opened.path("maps"))
        return
    goal = "book" if "book" in opened.steps else "evaluation"
    where = cluster_options(executor, jobs) if executor else []
    slots = [] if executor else devices.visible() if gpus is None else devices.split(gpus)
    # reads and checks the corpus first, so that its errors are shown plainly; a cluster computes the vectors itself
    first = ["corpus"] if executor else ["pairs", "vectors"]
    if not all(map(opened.is_fresh, first)):
        make_apart(first, profile, corpus, runs, slots)
    if not opened.is_fresh(goal):
        snakemake(opened.folder, profile, corpus, goal, cores, slots, where)
    if goal == "book":
        typer.echo(publish(opened.path("book") / "_build" / "html", PROJECT))
    else:
        typer.echo(opened.path("evaluation") / "results.json")


@app.command(
    epilog=examples(
        "ddpo plan --profile paper",
        "ddpo plan --corpus mine.jsonl --gpu A100",
    )
)
def plan(
    profile: Profile = "embedded",
    corpus: Corpus = None,
    runs: Runs = Path("runs"),
    gpu: Annotated[str, typer.Option(help="GPU whose memory must do: A100, H100, H200, L40S or 4090.")] = "H100",
) -> None:
    """Say what a run needs: names, licences, steps, disk and memory. Uses no network.

    Hours are added if `python -m benchmarks.gpu` has measured the speed of your GPU.
    """
    from ddpo_lib.profiles.profile import load_profile
    from ddpo_lib.runs import plan as planning
    from ddpo_lib.runs.costs import read_speed
    from ddpo_lib.runs.pipeline import PROJECT, open_run, source_of

    settings, opened = load_profile(profile), open_run(profile, corpus, runs, ask=False)
    speed = read_speed(PROJECT / "results" / "gpu" / "speed.json")
    typer.echo(planning.describe(planning.make_plan(settings, opened, source_of(settings, corpus), gpu, speed)))


@app.command(
    epilog=examples(
        "ddpo make pairs --profile smoke",
        "ddpo make corpus pairs --corpus mine.jsonl",
        "ddpo make samples-dpo --gpus 0,1",
    )
)
def make(
    steps: Annotated[
        list[str], typer.Argument(metavar="STEP...", help="Artifacts of the run: corpus, pairs, samples-dpo, book, ...")
    ],
    profile: Profile = "embedded",
    corpus: Corpus = None,
    runs: Runs = Path("runs"),
    gpus: Annotated[str, typer.Option(help=GPUS + " Default: none is chosen.")] = "",
) -> None:
    """Make artifacts of a run and their inputs, one after another. Fresh artifacts are not made again."""
    from ddpo_lib.base import gpus as devices
    from ddpo_lib.profiles.profile import load_profile
    from ddpo_lib.runs.pins import stay_offline
    from ddpo_lib.runs.pipeline import open_run, source_of

    opened = open_run(profile, corpus, runs)
    settings = load_profile(profile)
    stay_offline(settings, source_of(settings, corpus))
    for step in steps:
        if step not in opened.steps:
            raise InputError(f"{step}: no such artifact; there are {', '.join(opened.steps)}")
    number = max(map(opened.devices, steps))
    with devices.held(devices.split(gpus), opened.folder / ".gpus", number):
        for step in steps:
            typer.echo(opened.path(step))
            _give_memory_back()


app.command(epilog=examples("ddpo read"))(read)
app.command(epilog=examples("ddpo pdf"))(pdf)
app.command(epilog=examples("ddpo doctor", "ddpo doctor --profile smoke --runs runs"))(doctor)


def _give_memory_back() -> None:
    """Free what a step held, before the next one in this process."""
    gc.collect()  # a trainer and its model refer to each other
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):  # glibc alone; it keeps freed memory for itself
        libc.malloc_trim(0)
