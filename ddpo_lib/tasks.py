"""What `ddpo weights`, `train`, `generate` and `evaluate` do with files of the user's own, outside a run folder."""

import json
import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from pydantic import ValidationError

from ddpo_lib import models
from ddpo_lib.corpus import read_corpus
from ddpo_lib.deviation import mean_distance
from ddpo_lib.deviation import weights as deviation_weights
from ddpo_lib.embed import embed
from ddpo_lib.errors import InputError
from ddpo_lib.evaluation import HEADLINE, LENGTHS, score_by_prompt, summarise
from ddpo_lib.pairs import make_pairs
from ddpo_lib.profiles import Arm, Baseline, Model, Profile, Sampling, Section, load_profile

log = logging.getLogger(__name__)

SPACES = {"semantic": ["semantic"], "style": ["style"], "both": ["semantic", "style"]}


def weights(source: str, semantic: str, style: str, scale: str, floor: float, shard: str | None) -> pd.DataFrame:
    """The corpus with each response's distances and weights; of a shard "k/n", only the prompts of that part."""
    from accelerate import PartialState

    part = _parse_shard(shard)
    table = read_corpus(source, held_out=0.0, shard=part)
    groups = table["prompt_id"].astype("category").cat.codes.to_numpy()
    for name, model in (("semantic", semantic), ("style", style)):
        table[name] = mean_distance(embed(table["text"].tolist(), model), groups) if len(table) else 0.0
    for name, spaces in SPACES.items():
        distances = [table[s].to_numpy() for s in spaces]
        try:
            table[f"weight_{name}"] = deviation_weights(distances, groups, scale=scale, floor=floor)
        except ValueError as error:
            raise InputError(str(error)) from None
    if part:  # for `merge`, which wants each shard of one corpus once
        table.attrs["shard"] = {"k": part[0], "n": part[1], "of": [source, semantic, style, scale, floor]}
    PartialState().destroy_process_group()
    return table


def train(source: Path, out: Path, name: str, start: Path | None, profile_name: str) -> str:
    """Train one arm on what `ddpo weights` wrote; returns a sentence on the result.

    With several processes (`accelerate launch`) all of them call this; the main one puts the adapter in its place.
    """
    from accelerate import PartialState

    from ddpo_lib.training import train_preferences, train_sft

    profile = load_profile(profile_name)
    arm, column = _arm(name, start)
    if out.exists():
        raise InputError(f"{out}: exists already; name a new folder")
    if start is not None and not models.is_trained(start):
        raise InputError(f"{start}: holds no trained model; give a folder that `ddpo train` wrote")
    table = _fit(_read_weights(source, column), profile)
    aside = out.with_name(f".{out.name}.partial")
    aside.mkdir(parents=True, exist_ok=True)
    if arm is None:
        train_sft(table, profile.model, profile.sft, profile.data.max_tokens, profile.seed, aside)
        trained_on = f"{len(table)} responses"
    else:
        pairs = make_pairs(table, profile.data.gap, profile.data.pair_seed)
        if column:
            pairs["weight"] = table.set_index("response_id")[column].loc[pairs["chosen_id"]].to_numpy()
        settings = profile.model, profile.preference, profile.data.max_tokens, profile.seed
        train_preferences(pairs, arm, start, *settings, aside)
        trained_on = f"{len(pairs)} pairs"
    processes = PartialState()
    if processes.is_main_process:
        (aside / "log.json").replace(aside / "trained" / "log.json")
        (aside / "trained").replace(out)
        shutil.rmtree(aside)
    processes.destroy_process_group()
    return f"{out}: {name} trained on {trained_on}"


def generate(
    prompts: str,
    out: Path,
    adapter: Path | None,
    asked: dict,
    samples: int | None,
    temperature: float | None,
    profile_name: str,
    seed: int,
) -> str:
    """Sample for the prompts of a corpus; returns a sentence on the result.

    Args:
        prompts: a corpus; scores are not needed.
        out: prompt-grouped JSONL. Answers are kept in a journal beside it until it is written, so that the same
            command goes on where it was stopped.
        adapter: what `train` wrote; None: `asked` says what is sampled.
        asked: fields of `profiles.Baseline` that the user gave.
        samples: a prompt; None: as the profile has it.
        temperature: likewise.
        profile_name: has the rest.
        seed: of the draws.
    """
    from ddpo_lib.engines import open_engine
    from ddpo_lib.generate import generate as sample

    if samples is not None and samples < 1:
        raise InputError(f"samples: expected 1 or more, got {samples}")
    profile = load_profile(profile_name)
    baseline = checked(Baseline, asked)
    hotter = profile.sampling.model_dump() | ({} if temperature is None else {"temperature": temperature})
    sampling = checked(Sampling, hotter).model_copy(update={"samples": samples} if samples else {})
    table = read_corpus(prompts, held_out=0.0).drop_duplicates("prompt_id")[["prompt_id", "prompt"]]
    journal = out.with_name(f".{out.name}.journal")
    if adapter is None:
        engine, talk = open_engine(baseline, profile.model), {"how": baseline.how, "instruction": baseline.instruction}
        name = Path(baseline.model or profile.model.name).name + ("" if baseline.how == "plain" else f"-{baseline.how}")
    else:
        engine, talk = _open_adapter(adapter, baseline.engine, set(asked) - {"engine"}, profile.model), {}
        name = adapter.name
    made = sample(engine, table, sampling, seed, journal=journal, **talk)
    made["text"] = made["text"].where(made["text"] != "", "(empty)")
    lines = []
    for _, group in made.groupby("prompt_id", sort=True):
        responses = [{"text": text, "score": None, "source": name} for text in group["text"]]
        lines.append(json.dumps({"prompt": group["prompt"].iloc[0], "responses": responses}, ensure_ascii=False))
    if not lines:
        raise InputError(f"{name}: gave no answer in the form that --how {baseline.how} asks for; try --how plain")
    aside = out.with_name(f".{out.name}.partial")
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.replace(out)
    journal.unlink()
    return f"{out}: {len(made)} samples for {made['prompt_id'].nunique()} of {len(table)} prompts"


def _open_adapter(adapter: Path, engine: str, unused: set[str], model: Model):
    """The profile's model with an adapter, where nothing is asked for that an adapter has of its own."""
    from ddpo_lib.engines import open_trained

    if not models.is_trained(adapter):
        raise InputError(f"{adapter}: holds no trained model; give a folder that `ddpo train` wrote")
    if unused:
        raise InputError(f"{adapter}: an adapter has its model and its template; leave out {', '.join(sorted(unused))}")
    return open_trained(model, adapter, engine)


def checked(kind: type[Section], fields: dict) -> Section:
    """A section of a profile out of what the user gave."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from None


def evaluate(sources: list[str], scored: str | None, profile_name: str) -> dict:
    """Every measure of every file of samples, with intervals; the first is the one that the others are compared with.

    Returns:
        What `evaluation.summarise` gives, with `matched`, `baseline`, `quality` (the reward's report) and what the arms
        share.

    Raises:
        InputError: a file without samples to compare, or of the name of another; scores that teach nothing.
    """
    from ddpo_lib.chosen import fit_reward, space

    profile = load_profile(profile_name)
    corpus = read_corpus(*([scored] if scored else []), held_out=profile.data.held_out, seed=profile.data.split_seed)
    try:
        with TemporaryDirectory() as folder:
            reward, _, report = fit_reward(profile, corpus, Path(folder))
    except InputError as error:
        raise InputError(f"{scored or 'the corpus of the package'}: {error}") from None
    tables = {}
    for source in sources:
        table = read_corpus(source, held_out=0.0, keep_repeats=True)
        if table.groupby("prompt_id").size().max() < 2:
            raise InputError(f"{source}: no prompt has two samples; diversity needs two")
        arm = Path(source).stem
        if arm in tables:
            raise InputError(f"{source}: another file is called {arm} too; arms go by the names of their files")
        tables[arm] = table.assign(prompt_id=table["prompt"])
    settings, baseline = profile.evaluation, Path(sources[0]).stem
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    by_prompt, shared = score_by_prompt(tables, reward, spaces, baseline=baseline, to_match=list(tables))
    against = {arm: baseline for arm in tables if arm != baseline}
    whole, matched = (
        summarise(by_prompt[by_prompt["length"] == length], against=against, confidence=settings.confidence)
        for length in LENGTHS
    )
    return {**whole, "matched": matched, "baseline": baseline, "quality": report, **shared}


def describe_evaluation(result: dict) -> str:
    """The paper's three axes as tables for a terminal, with a line on the reward."""
    from ddpo_lib.figures import interval, p_value

    rows = [f"{'arm':<20}" + "".join(f"{measure:>26}" for measure in HEADLINE)]
    for arm, values in result["arms"].items():
        rows.append(f"{arm:<20}" + "".join(f"{interval(values[m]):>26}" for m in HEADLINE))
    if result["differences"]:
        rows.append(
            f"\nminus {result['baseline']}, over the prompts that both have; p is not corrected for the number of arms"
        )
        for arm, values in result["differences"].items():
            cells = (f"{interval(values[m], sign=True)} p {p_value(values[m]['p'])}" for m in HEADLINE)
            prompts = f"{values[HEADLINE[0]]['prompts']} prompts"
            rows.append(f"{arm:<20}" + "".join(f"{cell:>36}" for cell in cells) + f"{prompts:>14}")
    return "\n".join([*rows, _worth(result["quality"])])


def _worth(report: dict) -> str:
    """What the reward is and how well it ranks, in a sentence."""
    rho = report["within_prompt"]
    if rho is None:
        return f"quality is the {report['name']}, untested: no held-out prompt has two different scores"
    said = f"quality is the {report['name']}; its rank correlation with held-out scores within a prompt is "
    chance = "" if report["better_than_chance"] else ", no better than chance: it says nothing about quality"
    return f"{said}{rho['mean']:.2f}{chance}"


def _parse_shard(shard: str | None) -> tuple[int, int] | None:
    if shard is None:
        return None
    k, _, n = shard.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise InputError(f"--shard {shard}: expected K/N with 1 <= K <= N, as in 2/8")
    return int(k), int(n)


def _arm(name: str, start: Path | None) -> tuple[Arm | None, str | None]:
    """The arm that a name stands for, and the column with its weights; None for SFT."""
    if name == "sft":
        return None, None
    method, _, spaces = name.partition("-")
    plain, weighted = ("dpo", "orpo"), {"ddpo": "dpo", "dorpo": "orpo"}
    begin = "sft" if start else "base"
    if method in plain and not spaces:
        return Arm(loss=method, start=begin), None
    if method in weighted and spaces in SPACES:
        return Arm(loss=weighted[method], start=begin, weights=SPACES[spaces]), f"weight_{spaces}"
    raise InputError(f"arm {name}: unknown; there are sft, dpo, orpo, ddpo-SPACE and dorpo-SPACE with {list(SPACES)}")


def _read_weights(source: Path, column: str | None) -> pd.DataFrame:
    if not source.is_file():
        raise InputError(f"{source}: no such file; `ddpo weights IN {source}` makes it")
    try:
        table = pd.read_parquet(source)
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
    for needed in ("prompt_id", "response_id", "prompt", "text", "score", *([column] if column else [])):
        if needed not in table:
            raise InputError(f"{source}: no column `{needed}`; `ddpo weights` writes it")
    return table


def _fit(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """Without the responses that are over the profile's token limit; says how many."""
    count = models.token_counter(profile.model.name, profile.model.revision, profile.model.template)
    fits = [count(p, t) <= profile.data.max_tokens for p, t in zip(table["prompt"], table["text"], strict=True)]
    if not all(fits):
        log.info("left out: %d responses over %d tokens", len(fits) - sum(fits), profile.data.max_tokens)
    if not any(fits):
        raise InputError(
            f"every response is over {profile.data.max_tokens} tokens; raise data.max_tokens in the profile"
        )
    return table[fits]
