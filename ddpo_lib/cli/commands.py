"""What `ddpo weights`, `train`, `generate` and `evaluate` do with a user's own files, outside a run folder.

All of them split prompts in the same way. `weights` writes each prompt's side into its table, and the others read it
there. If they get a corpus, they split it by `corpus.side`, with the same defaults. The prompts that a model has seen
are listed in its folder (`seen_prompts`).
"""

import json
import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from pydantic import ValidationError

from ddpo_lib.base.errors import InputError
from ddpo_lib.data import seen_prompts
from ddpo_lib.data.corpus import EMPTY, is_blank, read_corpus, read_prompts
from ddpo_lib.deviation.distances import mean_distance
from ddpo_lib.deviation.weighting import weights as deviation_weights
from ddpo_lib.models import models
from ddpo_lib.pairs.rules import make_pairs
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.profiles.settings import Arm, Baseline, Model, Profile, Sampling, Section
from ddpo_lib.spaces.embed import embed

log = logging.getLogger(__name__)

SPACES = {"semantic": ["semantic"], "style": ["style"], "both": ["semantic", "style"]}


def weights(
    source: str,
    semantic: str,
    style: str,
    scale: str,
    floor: float,
    shard: str | None,
    held_out: float,
    split_seed: int,
) -> pd.DataFrame:
    """The corpus with each response's side, distances and weights; with a shard "k/n", only the prompts of that part.

    Weights compare the responses to one prompt, so they do not depend on the split.
    """
    from accelerate import PartialState

    part = _parse_shard(shard)
    table = read_corpus(source, held_out=held_out, seed=split_seed, shard=part)
    groups = table["prompt_id"].astype("category").cat.codes.to_numpy()
    for name, model in (("semantic", semantic), ("style", style)):
        table[name] = mean_distance(embed(table["text"].tolist(), model), groups) if len(table) else 0.0
    for name, spaces in SPACES.items():
        distances = [table[s].to_numpy() for s in spaces]
        try:
            table[f"weight_{name}"] = deviation_weights(distances, groups, scale=scale, floor=floor)
        except ValueError as error:
            raise InputError(str(error)) from None
    if part:  # for `merge`, which needs each shard of one corpus once
        options = [source, semantic, style, scale, floor, held_out, split_seed]
        table.attrs["shard"] = {"k": part[0], "n": part[1], "of": options}
    elif held_out and not table["split"].eq("test").any():
        log.warning("%s: no prompt is held out; give another --held-out or --split-seed", source)
    PartialState().destroy_process_group()
    return table


def describe_weights(out: Path, table: pd.DataFrame) -> str:
    """A sentence: how many responses and prompts a table of weights has, and how many prompts are held out."""
    held_out = table.loc[table["split"] == "test", "prompt_id"].nunique()
    return f"{out}: {len(table)} responses to {table['prompt_id'].nunique()} prompts, {held_out} of them held out"


def train(source: Path, out: Path, name: str, start: Path | None, profile_name: str) -> str:
    """Train one arm on the training prompts of a table from `ddpo weights`; returns a sentence about the result.

    With several processes (`accelerate launch`), all of them call this function, and the main one moves the adapter to
    `out`.

    Raises:
        InputError: `out` exists, `start` is no trained model, or the table has nothing to train on.
    """
    from accelerate import PartialState

    from ddpo_lib.training.train import train_preferences, train_sft

    profile = load_profile(profile_name)
    arm, column = _arm(name, start)
    if out.exists():
        raise InputError(f"{out}: exists already; name a new folder")
    if start is not None and not models.is_trained(start):
        raise InputError(f"{start}: holds no trained model; give a folder that `ddpo train` wrote")
    table = _fit(_training_rows(source, _read_weights(source, column), start), profile)
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
    return f"{out}: {name} trained on {trained_on} of {table['prompt_id'].nunique()} training prompts"


def generate(
    prompts: str,
    out: Path,
    adapter: Path | None,
    asked: dict,
    samples: int | None,
    temperature: float | None,
    profile_name: str,
    seed: int,
    split: str,
    held_out: float,
    split_seed: int,
) -> str:
    """Sample responses to the prompts of a corpus; returns a sentence about the result.

    Args:
        prompts: a table from `ddpo weights`, or a corpus. Responses are not needed; a prompt without any is held out.
        out: prompt-grouped JSONL. For a trained model, a line says whether the model has `seen` the prompt in training,
            if that is known. A response has its number of `tokens` and whether it is `finished`, that is, not cut at a
            limit. Until `out` is written, answers are kept in a journal beside it, so the same command continues after
            an interruption.
        adapter: folder that `train` wrote; None: `asked` says which model is sampled.
        asked: fields of `settings.Baseline` that the user gave.
        samples: samples per prompt; None: the profile's number.
        temperature: sampling temperature; None: the profile's.
        profile_name: the profile with all other settings.
        seed: seed of the draws.
        split: "test" for held-out prompts, "train" for the others, or "all".
        held_out, split_seed: share and seed of the split of a corpus; a table of weights is already split.

    Raises:
        InputError: the split has no prompt, a held-out prompt that the adapter has seen in training, or no answer.
    """
    from ddpo_lib.sampling.engines import open_engine
    from ddpo_lib.sampling.generate import generate as sample

    if samples is not None and samples < 1:
        raise InputError(f"samples: expected 1 or more, got {samples}")
    profile = load_profile(profile_name)
    baseline = checked(Baseline, asked)
    hotter = profile.sampling.model_dump() | ({} if temperature is None else {"temperature": temperature})
    sampling = checked(Sampling, hotter).model_copy(update={"samples": samples} if samples else {})
    table = _prompts_to_sample(prompts, split, held_out, split_seed)
    journal = out.with_name(f".{out.name}.journal")
    if adapter is None:
        engine, talk = open_engine(baseline, profile.model), {"how": baseline.how, "instruction": baseline.instruction}
        name = Path(baseline.model or profile.model.name).name + ("" if baseline.how == "plain" else f"-{baseline.how}")
    else:
        table = _mark_seen(table, adapter, prompts, split)
        engine, talk = _open_adapter(adapter, baseline.engine, set(asked) - {"engine"}, profile.model), {}
        name = adapter.name
    made = sample(engine, table, sampling, seed, journal=journal, **talk)
    seen = dict(zip(table["prompt_id"], table["seen"], strict=True)) if "seen" in table else {}
    lines = []
    for prompt_id, group in made.groupby("prompt_id", sort=True):
        line = {"prompt": group["prompt"].iloc[0]} | ({"seen": seen[prompt_id]} if seen else {})
        line["responses"] = [
            {
                "text": row.text if row.text.strip() else EMPTY,
                "score": None,
                "source": name,
                "tokens": None if pd.isna(row.tokens) else int(row.tokens),
                "finished": bool(row.finished),
            }
            for row in group.itertuples()
        ]
        lines.append(json.dumps(line, ensure_ascii=False))
    if not lines:
        raise InputError(f"{name}: gave no answer in the form that --how {baseline.how} asks for; try --how plain")
    aside = out.with_name(f".{out.name}.partial")
    aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    aside.replace(out)
    journal.unlink()
    kind = {"test": "held-out prompts", "train": "training prompts", "all": "prompts"}[split]
    return f"{out}: {len(made)} samples for {made['prompt_id'].nunique()} of {len(table)} {kind}"


def _prompts_to_sample(source: str, split: str, held_out: float, split_seed: int) -> pd.DataFrame:
    """One row per prompt of the split, `prompt_id prompt`."""
    if split not in ("all", "train", "test"):
        raise InputError(f"--split {split}: expected all, train or test")
    table = _table_of_weights(source)
    if table is None:
        table = read_prompts(source, held_out=held_out, seed=split_seed)
    table = table.drop_duplicates("prompt_id")
    chosen = table if split == "all" else table[table["split"] == split]
    if chosen.empty:
        kind = "held out" if split == "test" else "in the training split"
        raise InputError(
            f"{source}: none of {len(table)} prompts is {kind}. A prompt's own text decides: give more prompts, or "
            "give `ddpo weights` and this command another --held-out or --split-seed; --split all samples every prompt"
        )
    return chosen[["prompt_id", "prompt"]].reset_index(drop=True)


def _mark_seen(table: pd.DataFrame, adapter: Path, source: str, split: str) -> pd.DataFrame:
    """The prompts with `seen`, whether the adapter was trained on them; without that column if it is not known."""
    known = seen_prompts.read(adapter)
    if known is None:
        if models.is_trained(adapter):
            log.warning("%s: no %s, so its training prompts are not known", adapter, seen_prompts.FILE)
        return table
    seen = [seen_prompts.fingerprint(prompt) in known for prompt in table["prompt"]]
    if split == "test" and any(seen):
        raise InputError(
            f"{adapter}: was trained on {sum(seen)} of the {len(seen)} held-out prompts of {source}, and its samples "
            "for them say nothing about new prompts. Give the table of weights that it was trained on, or the "
            "--held-out and --split-seed of that table; --split all samples every prompt and marks those that were seen"
        )
    return table.assign(seen=seen)


def _open_adapter(adapter: Path, engine: str, unused: set[str], model: Model):
    """The profile's model with an adapter. `unused` names options that do not apply, since an adapter sets them."""
    from ddpo_lib.sampling.engines import open_trained

    if not models.is_trained(adapter):
        raise InputError(f"{adapter}: holds no trained model; give a folder that `ddpo train` wrote")
    if unused:
        raise InputError(
            f"{adapter}: an adapter sets its model and its template; leave out {', '.join(sorted(unused))}"
        )
    return open_trained(model, adapter, engine)


def checked(kind: type[Section], fields: dict) -> Section:
    """A section of a profile, made from the values that the user gave."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}") from None


def evaluate(
    sources: list[str],
    scored: str | None,
    profile_name: str,
    held_out: float,
    split_seed: int,
) -> dict:
    """Every measure for every file of samples, with intervals. The other files are compared with the first one.

    Args:
        sources: files that `generate` wrote, or others of that form.
        scored: a table from `ddpo weights`, or a corpus; the reward is fitted on its training prompts. None: the corpus
            of the package, split as in the profile.
        profile_name: the profile with the reward and the spaces.
        held_out, split_seed: share and seed of the split of `scored` if it is a corpus.

    Returns:
        The result of `compare_arms.summarise`, with `matched`, `finished`, `baseline`, `quality` (the reward's report)
        and the values that all arms share. `prompts` says how many prompts are `evaluated`, how many are
        `seen_by_models` in training, by arm (None: not known), and how many are `seen_by_reward`. `samples` has for
        each arm the result of `compare_arms.describe_samples`; its `finished_known` is the number of samples of which
        it is known whether they were cut. `not_comparable` says for an arm why no difference from the baseline is
        shown.

    Raises:
        InputError: a file without samples to compare, two files with one name, or scores that no reward can be fitted
            on.
    """
    from ddpo_lib.evaluation.compare_arms import (
        LENGTHS,
        correct_over_arms,
        describe_samples,
        score_by_prompt,
        summarise,
        why_not_comparable,
    )
    from ddpo_lib.measures.from_profile import fit_reward, space

    profile = load_profile(profile_name)
    corpus = _read_scored(scored, profile, held_out, split_seed)
    try:
        with TemporaryDirectory() as folder:
            reward, _, report = fit_reward(profile, corpus, Path(folder))
            learned = seen_prompts.read(Path(folder))
    except InputError as error:
        raise InputError(f"{scored or 'the corpus of the package'}: {error}") from None
    tables = {}
    for source in sources:
        table = read_corpus(source, held_out=0.0, keep_repeats=True, flags=("seen", "finished"))
        if table.groupby("prompt_id").size().max() < 2:
            raise InputError(f"{source}: no prompt has two samples; diversity needs two samples per prompt")
        arm = Path(source).stem
        if arm in tables:
            raise InputError(f"{source}: another file is called {arm} too; rename one, since arms are named by files")
        text = ["" if is_blank(text) else text for text in table["text"]]
        if not any(text):
            raise InputError(f"{source}: every sample is blank; leave the file out")
        tables[arm] = table.assign(prompt_id=table["prompt"], text=text)
    settings, baseline = profile.evaluation, Path(sources[0]).stem
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    by_prompt, shared = score_by_prompt(tables, reward, spaces, baseline=baseline, to_match=list(tables))
    against = {arm: baseline for arm in tables if arm != baseline}
    whole, matched, finished = (
        summarise(by_prompt[by_prompt["length"] == length], against=against, confidence=settings.confidence)
        for length in LENGTHS
    )
    correct_over_arms(whole["differences"])
    samples = {arm: describe_samples(table) for arm, table in tables.items()}
    about = {"prompts": count_seen(tables, learned), "samples": samples}
    about["not_comparable"] = {arm: why for arm in tables if (why := why_not_comparable(samples, arm, baseline))}
    return {
        **whole,
        "matched": matched,
        "finished": finished,
        "baseline": baseline,
        "quality": report,
        **about,
        **shared,
    }


def _read_scored(scored: str | None, profile: Profile, held_out: float, split_seed: int) -> pd.DataFrame:
    if scored is None:
        return read_corpus(held_out=profile.data.held_out, seed=profile.data.split_seed)
    table = _table_of_weights(scored)
    return read_corpus(scored, held_out=held_out, seed=split_seed) if table is None else table


def count_seen(tables: dict[str, pd.DataFrame], learned: set[str]) -> dict:
    """How many of the evaluated prompts the models and the reward have learned from.

    Args:
        tables: by arm, one row per sample with `prompt` and `seen`: True, False, or None if it is not known.
        learned: fingerprints of the prompts that the reward was fitted on.

    Returns:
        `evaluated`, the number of distinct prompts of all arms; `seen_by_models`, a number by arm, None if it is not
        known for some prompt; `seen_by_reward`, a number.
    """
    by_arm = {arm: table.drop_duplicates("prompt") for arm, table in tables.items()}
    prompts = {prompt for table in by_arm.values() for prompt in table["prompt"]}
    return {
        "evaluated": len(prompts),
        "seen_by_models": {
            arm: None if table["seen"].isna().any() else int(table["seen"].sum()) for arm, table in by_arm.items()
        },
        "seen_by_reward": sum(seen_prompts.fingerprint(prompt) in learned for prompt in prompts),
    }


def describe_evaluation(result: dict) -> str:
    """What was seen in training, then the paper's three axes as tables for a terminal, and a line about the reward."""
    from ddpo_lib.base.wording import interval, p_value
    from ddpo_lib.evaluation.compare_arms import HEADLINE

    rows = [*_describe_seen(result["prompts"]), f"{'arm':<20}" + "".join(f"{measure:>26}" for measure in HEADLINE)]
    for arm, values in result["arms"].items():
        rows.append(f"{arm:<20}" + "".join(f"{interval(values[m]):>26}" for m in HEADLINE))
    if result["differences"]:
        rows.append(f"\nminus {result['baseline']}, over the prompts that both have; p after Holm over the arms")
        for arm, values in result["differences"].items():
            if arm in result["not_comparable"]:
                rows.append(f"{arm:<20}  not comparable: {result['not_comparable'][arm]}")
                continue
            cells = (f"{interval(values[m], sign=True)} p {p_value(values[m]['p_corrected'])}" for m in HEADLINE)
            prompts = f"{values[HEADLINE[0]]['prompts']} prompts"
            cut = _describe_cut(result["samples"], arm, result["baseline"])
            rows.append(f"{arm:<20}" + "".join(f"{cell:>36}" for cell in cells) + f"{prompts:>14}{cut}")
    return "\n".join([*rows, _worth(result["quality"])])


def _describe_seen(prompts: dict) -> list[str]:
    """A line with counts, and a warning if a model or the reward learned from an evaluated prompt."""
    by_arm = prompts["seen_by_models"]
    counts = (
        f"{seen} ({arm})" if seen is not None else f"unknown ({arm}: no field `seen`)" for arm, seen in by_arm.items()
    )
    first = f"{prompts['evaluated']} prompts; seen in training by the models: {', '.join(counts)}; "
    lines = [f"{first}seen by the reward: {prompts['seen_by_reward']}"]
    learned = [arm for arm, seen in by_arm.items() if seen] + ["the reward"] * bool(prompts["seen_by_reward"])
    if learned:
        lines.append(
            f"WARNING: {', '.join(learned)} learned from prompts evaluated here; this does not test new prompts"
        )
    return lines


def _describe_cut(samples: dict[str, dict], arm: str, baseline: str) -> str:
    from ddpo_lib.evaluation.compare_arms import cut_share

    one, other = (cut_share(samples[name]) for name in (arm, baseline))
    return "" if one is None or other is None else f"  cut: {one:.0%} and {other:.0%}"


def _worth(report: dict) -> str:
    """A sentence: what the reward is and how well it ranks responses."""
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
        raise InputError(f"--shard {shard}: expected K/N with 1 <= K <= N, such as 2/8")
    return int(k), int(n)


def _arm(name: str, start: Path | None) -> tuple[Arm | None, str | None]:
    """The arm of a name (None for SFT), and the column with its weights (None for an unweighted arm)."""
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
    for needed in ("prompt_id", "response_id", "prompt", "text", "score", "split", *([column] if column else [])):
        if needed not in table:
            raise InputError(f"{source}: no column `{needed}`; `ddpo weights IN {source}` writes it anew, with one")
    return table


def _table_of_weights(source: str) -> pd.DataFrame | None:
    """The table if `ddpo weights` wrote it; None for any other source, which `corpus` reads and reports errors of."""
    import pyarrow.parquet as pq

    path = Path(source)
    if path.suffix != ".parquet" or not path.is_file():
        return None
    try:
        columns = pq.read_schema(path).names
    except (OSError, ValueError):
        return None
    return _read_weights(path, None) if "response_id" in columns else None


def _training_rows(source: Path, table: pd.DataFrame, start: Path | None) -> pd.DataFrame:
    """The rows whose prompt is in the training split; logs a warning if `start` has seen a held-out prompt."""
    train, held_out = table[table["split"] == "train"], table.loc[table["split"] == "test", "prompt"].unique()
    if train.empty:
        raise InputError(
            f"{source}: none of {table['prompt_id'].nunique()} prompts is in the training split; give `ddpo weights` "
            "more prompts, a lower --held-out or another --split-seed"
        )
    known = (start and seen_prompts.read(start)) or set()
    seen = sum(seen_prompts.fingerprint(prompt) in known for prompt in held_out)
    if seen:
        log.warning("%s: was trained on %d of the %d held-out prompts of %s", start, seen, len(held_out), source)
    return train


def _fit(table: pd.DataFrame, profile: Profile) -> pd.DataFrame:
    """The table without responses over the profile's token limit; logs how many are left out."""
    count = models.token_counter(profile.model.name, profile.model.revision, profile.model.template)
    fits = [count(p, t) <= profile.data.max_tokens for p, t in zip(table["prompt"], table["text"], strict=True)]
    if not all(fits):
        log.info("left out: %d responses over %d tokens", len(fits) - sum(fits), profile.data.max_tokens)
    if not any(fits):
        raise InputError(
            f"every response is over {profile.data.max_tokens} tokens; raise data.max_tokens in the profile"
        )
    return table[fits]
