"""`ddpo online`: rounds of sampling, scoring, weighing and training on a user's prompts, with any engine and reward.

The folder that it fills is a run folder (`base.run_folder`), so a restart goes on where it was:

    FOLDER/prompts/     the prompts and their split
    FOLDER/sft/         the model that the first round samples
    FOLDER/samples-K/   what round K sampled; FOLDER/pool-K/ has their scores
    FOLDER/round-K/     the pairs of round K, and in `trained/` the model after it
"""

import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo_lib.base.errors import InputError
from ddpo_lib.cli.options import HELD_OUT, SPLIT_SEED, HeldOut, Profile, Sends, SplitSeed, Tokens, examples, sent

if TYPE_CHECKING:  # the command line starts without these modules' packages
    from ddpo_lib.base.run_folder import Run, Step
    from ddpo_lib.profiles.profile import Profile as Settings
    from ddpo_lib.profiles.settings import Online

SETTINGS = "online.json"  # with what a folder was begun
FUNCTION = re.compile(r"[\w.]+:\w+")


app = typer.Typer()


@app.command(
    epilog=examples(
        "ddpo online prompts.jsonl rounds --from sft --reward mine:score",
        "ddpo online mine.jsonl r --from sft --reward runs/small/quality --arm dpo",
        "ddpo online p.jsonl r --from sft --reward http://localhost/v1 --model qwen",
    )
)
def online(
    prompts: Annotated[str, typer.Argument(metavar="PROMPTS", help="WEIGHTS.parquet, a corpus, or only prompts.")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the rounds; an interrupted one goes on.")],
    start: Annotated[Path, typer.Option("--from", help="Model to start from, such as the SFT adapter.")],
    reward: Annotated[
        str, typer.Option(help="MODULE:FUNCTION, a folder with a saved reward, or a judge's URL, with /v1.")
    ],
    arm: Annotated[str, typer.Option(help="dpo, ddpo-semantic, ddpo-both, ..., or an online arm of the profile.")] = (
        "ddpo-both"
    ),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in total; more continue a folder.")] = 2,
    per_round: Annotated[int, typer.Option(min=1, help="Training prompts per round.")] = 64,
    samples: Annotated[int, typer.Option(min=2, help="Samples per prompt and round.")] = 8,
    tokens: Tokens = None,
    reference: Annotated[str, typer.Option(help="refreshed: the model before the round; fixed: that of --from.")] = (
        "refreshed"
    ),
    engine: Annotated[str | None, typer.Option(help="transformers or vllm; default: the profile's.")] = None,
    model: Annotated[str | None, typer.Option(help="The judge's model at the URL.")] = None,
    key_variable: Annotated[str | None, typer.Option(help="Environment variable with the judge's key.")] = None,
    ask: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File with the judge's request: {prompt}, {text}.")
    ] = None,
    sends: Sends = None,
    profile: Profile = "embedded",
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts, samples and trainings.")] = 0,
    held_out: HeldOut = HELD_OUT,
    split_seed: SplitSeed = SPLIT_SEED,
) -> None:
    """Train on the model's own samples, in rounds: sample, score by a reward, weigh by deviation, train.

    A function gets the samples of one prompt, `prompts, texts`, and returns a number for each; NaN is no score. A judge
    answers with a number. After an interruption, or a reward that fails, the same command goes on where it was.
    """
    from ddpo_lib.base.run_folder import Run
    from ddpo_lib.models import models
    from ddpo_lib.profiles.profile import load_profile
    from ddpo_lib.runs.pins import stay_offline

    settings = load_profile(profile).model_copy(update={"seed": seed})
    stay_offline(settings, prompts)
    if not models.is_trained(start):
        raise InputError(f"{start}: holds no trained model; give a folder that `ddpo train` wrote")
    limit = tokens or settings.sampling.max_new_tokens
    plan = _plan(settings, arm, start, rounds, per_round, samples, limit, reference)
    sampling = settings.sampling.model_copy(update={"engine": engine or settings.sampling.engine})
    settings = settings.model_copy(update={"sampling": sampling})
    scoring, facts = _open_reward(reward, settings, model, key_variable, sent(sends), ask)
    made = make_steps(settings, plan, start, scoring, facts, _read_prompts(prompts, held_out, split_seed))
    run = Run(out.resolve(), {step.name: step for step in made})
    _check_settings(run, rounds)
    for number in range(1, rounds + 1):
        run.path(f"round-{number}")
        typer.echo(f"round {number}: {_describe_round(run, number)}")
    typer.echo(f"{out / f'round-{rounds}' / 'trained'}: {arm}, after {rounds} rounds from {start}")


def _plan(
    settings: "Settings", name: str, start: Path, rounds: int, prompts: int, samples: int, tokens: int, reference: str
) -> "Online":
    """The rounds that the options ask for; an arm that the profile does not have under `online` is one of `train`."""
    from ddpo_lib.cli.commands import checked, parse_arm
    from ddpo_lib.profiles.settings import Online

    if name in settings.online:
        arm = settings.online[name].arm
    else:
        arm, _ = parse_arm(name, start)
    if arm is None:
        raise InputError("arm sft: learns from no pairs; give dpo, ddpo-both or another arm")
    fields = {"arm": arm, "rounds": rounds, "prompts": prompts, "samples": samples, "max_new_tokens": tokens}
    return checked(Online, fields | {"reference": reference})


def _read_prompts(source: str, held_out: float, split_seed: int):
    """The training prompts, `prompt_id prompt split`. Prompts need no responses here, so their text decides the side.

    Raises:
        InputError: no prompt is in the training split.
    """
    from ddpo_lib.data.corpus import read_prompts, side
    from ddpo_lib.deviation.weights_table import table_of_weights

    table = table_of_weights(source)
    if table is None:
        table = read_prompts(source, held_out=held_out, seed=split_seed)
        table["split"] = [side(prompt, held_out, split_seed) for prompt in table["prompt"]]
    table = table.drop_duplicates("prompt_id")[["prompt_id", "prompt", "split"]]
    train = table[table["split"] == "train"].reset_index(drop=True)
    if train.empty:
        raise InputError(
            f"{source}: none of {len(table)} prompts is in the training split; give more prompts, a lower --held-out "
            "or another --split-seed"
        )
    return train


def _open_reward(
    name: str, settings: "Settings", model: str | None, key: str | None, sends: list[str] | None, ask: Path | None
) -> tuple[partial, dict]:
    """What scores a pool, a function of pool, folder and run, and the facts that its scores depend on."""
    from ddpo_lib.measures import user_rewards
    from ddpo_lib.models.versions import hash_folder

    judged = {"--model": model, "--key-variable": key, "--sends": sends, "--ask": ask}
    if "://" in name:
        return _open_judge(name, settings, model, key, sends, ask)
    if given := [option for option, value in judged.items() if value is not None]:
        raise InputError(f"{', '.join(given)}: belong to a judge, whose --reward is a URL; got {name}")
    if Path(name).is_dir():
        return partial(user_rewards.pool_by_saved, Path(name).resolve()), {
            "kind": "saved",
            "version": hash_folder(Path(name)),
        }
    if not FUNCTION.fullmatch(name):
        raise InputError(f"--reward {name}: no such folder; give MODULE:FUNCTION, a folder, or a URL with /v1")
    return partial(user_rewards.pool_by_function, user_rewards.load_function(name), name), {
        "kind": "function",
        "name": name,
    }


def _open_judge(
    url: str, settings: "Settings", model: str | None, key: str | None, sends: list[str] | None, ask: Path | None
) -> tuple[partial, dict]:
    from ddpo_lib.cli.commands import checked
    from ddpo_lib.measures import user_rewards
    from ddpo_lib.profiles.evaluation_settings import Baseline
    from ddpo_lib.sampling.engines import open_engine

    asked = {"engine": "server", "url": url, "model": model, "key": key, "sends": sends}
    judge = checked(Baseline, {field: value for field, value in asked.items() if value is not None})
    request = user_rewards.ASK if ask is None else ask.read_text(encoding="utf-8")
    if "{text}" not in request:
        raise InputError(f"{ask}: contains no {{text}}; write it where the text to rate belongs")
    facts = {"kind": "judge", **open_engine(judge, settings.model).facts(), "ask": request}
    return partial(user_rewards.pool_by_judge, judge, request, settings), facts


def make_steps(
    settings: "Settings", plan: "Online", start: Path, scoring: partial, facts: dict, prompts
) -> list["Step"]:
    """The steps of all rounds.

    Args:
        settings: the profile; its seed is that of the rounds.
        plan: the rounds.
        start: folder of the model that the first round samples.
        scoring: called with the artifact of samples, the folder to fill and the run.
        facts: what the scores depend on, besides the code of `scoring`.
        prompts: of `_read_prompts`.
    """
    from ddpo_lib.base.run_folder import Step
    from ddpo_lib.base.store import content_key
    from ddpo_lib.models.versions import exact_version, hash_folder
    from ddpo_lib.runs.online import make_round

    model = settings.model.model_dump() | {"version": exact_version(settings.model.name, settings.model.revision)}
    own, arm = plan.model_dump(exclude={"rounds", "arm"}), plan.arm.model_dump()
    spaces = {name: settings.spaces.choices()[name].model_dump() for name in sorted(plan.arm.spaces())}
    steps = [
        Step("prompts", partial(_write_prompts, prompts), (), {"prompts": content_key(*prompts["prompt"])}),
        Step("sft", partial(_copy_model, start), (), {"version": hash_folder(start)}),
    ]
    before = "sft"
    for number in range(1, plan.rounds + 1):
        drawn, pool, trained = (f"{kind}-{number}" for kind in ("samples", "pool", "round"))
        common = {"model": model, "seed": settings.seed, "plan": own}
        make = partial(sample_round, settings, plan, number, before)
        params = common | {"sampling": settings.sampling.model_dump()}
        steps.append(Step(drawn, make, ("prompts", before), params))
        scored = partial(scoring.func, *scoring.args, drawn)
        steps.append(Step(pool, scored, (drawn,), {"reward": facts}))
        make = partial(make_round, settings, plan, number, before, pool)
        params = common | {"arm": arm, "preference": settings.preference.model_dump(), "spaces": spaces}
        params |= {"max_tokens": settings.data.max_tokens}
        steps.append(Step(trained, make, (pool, *dict.fromkeys((before, "sft"))), params))
        before = trained
    return steps


def _write_prompts(prompts, folder: Path, run: "Run") -> None:
    prompts.to_parquet(folder / "prompts.parquet")


def _copy_model(start: Path, folder: Path, run: "Run") -> None:
    shutil.rmtree(folder / "trained", ignore_errors=True)  # a kill may have left a part of it
    shutil.copytree(start, folder / "trained")


def sample_round(settings: "Settings", plan: "Online", number: int, start: str, folder: Path, run: "Run") -> None:
    """Sample the model for the prompts of a round: `samples.parquet`, from `generate.generate`."""
    from ddpo_lib.pairs.rounds import draw_prompts
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.journal import remove_journal

    prompts = draw_prompts(run.table("prompts", "prompts.parquet"), plan.prompts, number, settings.seed)
    engine = open_trained(settings.model, run.path(start) / "trained", settings.sampling.engine)
    limits = {"samples": plan.samples, "max_new_tokens": plan.max_new_tokens}
    journal = folder / "journal.jsonl"
    drawn = settings.sampling.model_copy(update=limits)
    made = generate(engine, prompts, drawn, settings.seed + number, journal=journal)
    made.to_parquet(folder / "samples.parquet")
    remove_journal(journal)


def _check_settings(run: "Run", rounds: int) -> None:
    """Refuse a folder that was begun with other settings; only the number of rounds may differ."""
    from ddpo_lib.base.files import read_mapping, write_json
    from ddpo_lib.base.unfinished import differing

    first = {name: run.steps[name].params for name in ("prompts", "sft", "samples-1", "pool-1", "round-1")}
    now = {f"{name}, {key}": value for name, params in first.items() for key, value in params.items()}
    file = run.folder / SETTINGS
    before = read_mapping(file)
    if before and (other := differing(before, now)):
        raise InputError(f"{run.folder}: was begun with another {other}; name a new folder")
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(file, now)


def _describe_round(run: "Run", number: int) -> str:
    pool, pairs = run.table(f"pool-{number}", "pool.parquet"), run.table(f"round-{number}", "pairs.parquet")
    scored = pool["score"].notna()
    return f"{len(pool)} samples, {scored.sum()} with a score (mean {pool['score'].mean():.3f}); {len(pairs)} pairs"
