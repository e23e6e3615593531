"""What `ddpo train` and `generate` do: tables of weights and prompts -> adapters and samples, files of the user's own.

Prompts are split as the table of weights has them (`weights_table`). The prompts that a model has seen
are listed in its folder (`seen_prompts`).
"""

import json
import logging
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import sync
from ddpo_lib.base.unfinished import held, write_whole
from ddpo_lib.data import seen_prompts
from ddpo_lib.data.corpus import EMPTY, read_prompts
from ddpo_lib.deviation.equal_weights import describe_equal
from ddpo_lib.deviation.weights_table import SPACES, read_weights, table_of_weights
from ddpo_lib.models import models
from ddpo_lib.models.adapters import check_base, check_template
from ddpo_lib.pairs.rules import make_pairs
from ddpo_lib.profiles.evaluation_settings import Baseline
from ddpo_lib.profiles.profile import Profile, load_profile
from ddpo_lib.profiles.settings import Arm, Model, Sampling, Section
from ddpo_lib.runs.pins import stay_offline
from ddpo_lib.sampling.completions import UNANSWERED

log = logging.getLogger(__name__)

NO_ANSWER = {"refused": "refused", "only_thoughts": "only thoughts"}  # fields of samples, in words


def train(source: Path, out: Path, name: str, start: Path | None, profile_name: str) -> str:
    """Train one arm on the training prompts of a table from `ddpo weights`; returns a sentence about the result.

    An interrupted training is continued if everything that it depends on is the same, and else begun anew. With several
    processes (`accelerate launch`), all of them call this function, and the main one moves the adapter to `out`.

    Raises:
        InputError: `out` exists or another process writes it, `start` is no trained model, or the table has nothing to
            train on.
    """
    profile = load_profile(profile_name)
    stay_offline(profile, str(source))
    arm, column = parse_arm(name, start)
    if start is not None and not models.is_trained(start):
        raise InputError(f"{start}: holds no trained model; give a folder that `ddpo train` wrote")
    aside = out.with_name(f".{out.name}.partial")
    with held(out) if os.environ.get("RANK", "0") == "0" else nullcontext():
        if out.exists():
            shutil.rmtree(aside, ignore_errors=True)  # of a training that was killed when it was done
            raise InputError(f"{out}: exists already; name a new folder")
        trained_on = _train_into(aside, source, arm, column, start, profile)
        from accelerate import PartialState  # takes seconds, which a wrong argument need not

        processes = PartialState()
        if processes.is_main_process:
            (aside / "log.json").replace(aside / "trained" / "log.json")
            sync(aside / "trained")
            (aside / "trained").replace(out)
            shutil.rmtree(aside)
        processes.destroy_process_group()
    return f"{out}: {name} trained on {trained_on}"


def _train_into(
    aside: Path, source: Path, arm: Arm | None, column: str | None, start: Path | None, profile: Profile
) -> str:
    """Train in a folder; returns what it was trained on, in words."""
    from ddpo_lib.training.train import train_preferences, train_sft

    table = _fit(_training_rows(source, read_weights(source, column), start), profile)
    aside.mkdir(parents=True, exist_ok=True)
    if arm is None:
        train_sft(table, profile.model, profile.sft, profile.data.max_tokens, profile.seed, aside)
        trained_on = f"{len(table)} responses"
    else:
        pairs = make_pairs(table, profile.data.gap, profile.data.pair_seed)
        if column:
            pairs["weight"] = table.set_index("response_id")[column].loc[pairs["chosen_id"]].to_numpy()
            if equal := describe_equal(table[column].to_numpy(), table.groupby("prompt_id").ngroup().to_numpy()):
                log.warning("%s: %s", source, equal)
        settings = profile.model, profile.preference, profile.data.max_tokens, profile.seed
        train_preferences(pairs, arm, start, *settings, aside)
        trained_on = f"{len(pairs)} pairs"
    return f"{trained_on} of {table['prompt_id'].nunique()} training prompts"


def generate(
    prompts: str,
    out: Path,
    adapter: Path | None,
    asked: dict,
    samples: int | None,
    temperature: float | None,
    tokens: int | None,
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
            limit; `refused` or `only_thoughts` is true where there is no answer. Until `out` is written, answers are
            kept in a journal beside it, so the same command continues after an interruption.
        adapter: folder that `train` wrote; None: `asked` says which model is sampled.
        asked: fields of `settings.Baseline` that the user gave; without `engine`, an adapter is sampled by the
            profile's, and a model by transformers.
        samples: samples per prompt; None: the profile's number.
        temperature: sampling temperature; None: the profile's.
        tokens: most new tokens per sample, thoughts included; None: the profile's.
        profile_name: the profile with all other settings.
        seed: seed of the draws.
        split: "test" for held-out prompts, "train" for the others, or "all".
        held_out, split_seed: share and seed of the split of a corpus; a table of weights is already split.

    Raises:
        InputError: the split has no prompt, a held-out prompt that the adapter has seen in training, or no answer; the
            adapter was trained on another model or with another template than the profile's.
    """
    from ddpo_lib.sampling.engines import open_engine
    from ddpo_lib.sampling.generate import generate as sample
    from ddpo_lib.sampling.journal import remove_journal

    if samples is not None and samples < 1:
        raise InputError(f"samples: expected 1 or more, got {samples}")
    profile = load_profile(profile_name)
    baseline = checked(Baseline, asked)
    given = {"temperature": temperature, "max_new_tokens": tokens}
    drawn = profile.sampling.model_dump() | {name: value for name, value in given.items() if value is not None}
    sampling = checked(Sampling, drawn).model_copy(update={"samples": samples} if samples else {})
    if adapter is not None:
        check_base(adapter, profile.model.name, profile.model.revision)
        check_template(adapter, profile.model.template)
    table, split = _prompts_to_sample(prompts, split, held_out, split_seed, trained=adapter is not None)
    journal = out.with_name(f".{out.name}.journal")
    if adapter is None:
        engine, talk = open_engine(baseline, profile.model), {"how": baseline.how, "instruction": baseline.instruction}
        name = Path(baseline.model or profile.model.name).name + ("" if baseline.how == "plain" else f"-{baseline.how}")
    else:
        table = _mark_seen(table, adapter, prompts, split)
        chosen = asked.get("engine", profile.sampling.engine)
        engine, talk = _open_adapter(adapter, chosen, set(asked) - {"engine"}, profile.model), {}
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
                **{name: True for name in UNANSWERED if getattr(row, name)},
            }
            for row in group.itertuples()
        ]
        lines.append(json.dumps(line, ensure_ascii=False))
    if not lines:
        raise InputError(f"{name}: gave no answer in the form that --how {baseline.how} asks for; try --how plain")
    write_whole(out, lambda aside: aside.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    remove_journal(journal)
    kind = {"test": "held-out prompts", "train": "training prompts", "all": "prompts"}[split]
    counts = made.attrs["answers"]
    missing = [f"{counts[name]} {words}" for name, words in NO_ANSWER.items() if counts[name]]
    without = f"; {' and '.join(missing)}, which no measure counts" if missing else ""
    return f"{out}: {len(made)} samples for {made['prompt_id'].nunique()} of {len(table)} {kind}{without}"


def _prompts_to_sample(
    source: str, split: str, held_out: float, split_seed: int, *, trained: bool
) -> tuple[pd.DataFrame, str]:
    """One row per prompt of the split, `prompt_id prompt`, and the split. If a corpus has no held-out prompt, a model
    that was not `trained` here is sampled for all prompts, since it has seen none of them."""
    if split not in ("all", "train", "test"):
        raise InputError(f"--split {split}: expected all, train or test")
    table = table_of_weights(source)
    is_corpus = table is None
    if is_corpus:
        table = read_prompts(source, held_out=held_out, seed=split_seed)
    table = table.drop_duplicates("prompt_id")
    if split == "test" and is_corpus and not trained and "test" not in set(table["split"]):
        log.info("%s: no prompt is held out; nothing is trained on them, so all %d are sampled", source, len(table))
        split = "all"
    chosen = table if split == "all" else table[table["split"] == split]
    if chosen.empty:
        kind = "held out" if split == "test" else "in the training split"
        raise InputError(
            f"{source}: none of {len(table)} prompts is {kind}. A prompt's own text decides: give more prompts, or "
            "give `ddpo weights` and this command another --held-out or --split-seed; --split all samples every prompt"
        )
    return chosen[["prompt_id", "prompt"]].reset_index(drop=True), split


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


def parse_arm(name: str, start: Path | None) -> tuple[Arm | None, str | None]:
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
