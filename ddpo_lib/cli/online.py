"""`ddpo online`: rounds of sampling, scoring, weighing and training on a user's prompts, with any engine and reward.

The folder that it fills is a run folder (`base.run_folder`), so a restart goes on where it was:

    FOLDER/prompts/     the prompts and their split
    FOLDER/sft/         the model that the first round samples
    FOLDER/samples-K/   what round K sampled; FOLDER/pool-K/ has their scores
    FOLDER/round-K/     the pairs of round K, and in `trained/` the model after it
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ddpo_lib.base.errors import InputError
from ddpo_lib.cli.options import HELD_OUT, SPLIT_SEED, HeldOut, Profile, Sends, SplitSeed, Tokens, examples, sent

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
    import pandas as pd

    from ddpo_lib.base.run_folder import Run
    from ddpo_lib.cli.commands import checked
    from ddpo_lib.models import models
    from ddpo_lib.profiles.profile import load_profile
    from ddpo_lib.profiles.settings import Online, Sampling
    from ddpo_lib.runs.online import make_own_steps
    from ddpo_lib.runs.pins import stay_offline

    settings = load_profile(profile).model_copy(update={"seed": seed})
    stay_offline(settings, prompts)
    if not models.is_trained(start):
        raise InputError(f"{start}: holds no trained model; give a folder that `ddpo train` wrote")
    fields = {"arm": _online_arm(arm, profile, start), "rounds": rounds, "prompts": per_round, "samples": samples}
    fields |= {"max_new_tokens": tokens or settings.sampling.max_new_tokens, "reference": reference}
    plan = checked(Online, fields)
    drawn = settings.sampling.model_dump() | ({"engine": engine} if engine else {})
    settings = settings.model_copy(update={"sampling": checked(Sampling, drawn)})
    scoring, facts = _open_reward(reward, profile, model, key_variable, sent(sends), ask)
    made = make_own_steps(settings, plan, start, scoring, facts, _read_prompts(prompts, held_out, split_seed))
    run = Run(out.resolve(), {step.name: step for step in made})
    _check_settings(run.folder, {step.name: step.params for step in made})
    for number in range(1, rounds + 1):
        pairs = pd.read_parquet(run.path(f"round-{number}") / "pairs.parquet")
        scores = run.table(f"pool-{number}", "pool.parquet")["score"]
        said = f"{len(scores)} samples, {scores.count()} with a score (mean {scores.mean():.3f}); {len(pairs)} pairs"
        typer.echo(f"round {number}: {said}")
    typer.echo(f"{out / f'round-{rounds}' / 'trained'}: {arm}, after {rounds} rounds from {start}")


def _online_arm(name: str, profile: str, start: Path):
    """The `Arm` of a name: one of the section `online` of a profile, or else one of `ddpo train`."""
    from ddpo_lib.cli.commands import parse_arm
    from ddpo_lib.profiles.profile import load_profile

    known = load_profile(profile).online
    arm = known[name].arm if name in known else parse_arm(name, start)[0]
    if arm is None:
        raise InputError("arm sft: learns from no pairs; give dpo, ddpo-both or another arm")
    return arm


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
    name: str, profile: str, model: str | None, key: str | None, sends: list[str] | None, ask: Path | None
) -> tuple[partial, dict]:
    """What scores a pool, a function of pool, folder and run, and the facts that its scores depend on."""
    from ddpo_lib.base.files import file_hash
    from ddpo_lib.base.store import content_key
    from ddpo_lib.measures import user_rewards

    judged = {"--model": model, "--key-variable": key, "--sends": sends, "--ask": ask}
    if "://" in name:
        return _open_judge(name, profile, model, key, sends, ask)
    if given := [option for option, value in judged.items() if value is not None]:
        raise InputError(f"{', '.join(given)}: belong to a judge, whose --reward is a URL; got {name}")
    if Path(name).is_dir():
        reward = Path(name).resolve()
        version = content_key(*map(file_hash, sorted(file for file in reward.rglob("*") if file.is_file())))
        return partial(user_rewards.pool_by_saved, reward), {"kind": "saved", "version": version}
    if not FUNCTION.fullmatch(name):
        raise InputError(f"--reward {name}: no such folder; give MODULE:FUNCTION, a folder, or a URL with /v1")
    function = user_rewards.load_function(name)
    return partial(user_rewards.pool_by_function, function, name), {"kind": "function", "name": name}


def _open_judge(
    url: str, profile: str, model: str | None, key: str | None, sends: list[str] | None, ask: Path | None
) -> tuple[partial, dict]:
    from ddpo_lib.cli.commands import checked
    from ddpo_lib.measures import user_rewards
    from ddpo_lib.profiles.evaluation_settings import Baseline
    from ddpo_lib.profiles.profile import load_profile
    from ddpo_lib.sampling.engines import open_engine

    asked = {"engine": "server", "url": url, "model": model, "key": key, "sends": sends}
    judge = checked(Baseline, {field: value for field, value in asked.items() if value is not None})
    request = user_rewards.ASK if ask is None else ask.read_text(encoding="utf-8")
    if "{text}" not in request:
        raise InputError(f"{ask}: contains no {{text}}; write it where the text to rate belongs")
    settings = load_profile(profile)
    facts = {"kind": "judge", **open_engine(judge, settings.model).facts(), "ask": request}
    return partial(user_rewards.pool_by_judge, judge, request, settings), facts


def _check_settings(folder: Path, params: dict[str, dict]) -> None:
    """Refuse a folder that was begun with other settings; only the number of rounds may differ.

    Args:
        params: those of each step, by name.
    """
    from ddpo_lib.base.files import read_mapping, write_json
    from ddpo_lib.base.unfinished import differing

    first = {name: params[name] for name in ("prompts", "sft", "samples-1", "pool-1", "round-1")}
    now = {f"{name}, {key}": value for name, values in first.items() for key, value in values.items()}
    before = read_mapping(folder / SETTINGS)
    if before and (other := differing(before, json.loads(json.dumps(now)))):
        raise InputError(f"{folder}: was begun with another {other}; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, now)
