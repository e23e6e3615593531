"""What `ddpo evaluate` does: files of samples -> every measure with intervals, and its sentences for a terminal.

What the reward is fitted on is split as `ddpo weights` splits it (`weights_table`).
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.cli.commands import NO_ANSWER
from ddpo_lib.data import seen_prompts
from ddpo_lib.data.corpus import is_blank, read_corpus
from ddpo_lib.deviation.weights_table import table_of_weights
from ddpo_lib.profiles.profile import Profile, load_profile
from ddpo_lib.sampling.completions import UNANSWERED
from ddpo_lib.sampling.thoughts import split_thoughts

log = logging.getLogger(__name__)


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
        table = read_corpus(source, held_out=0.0, keep_repeats=True, flags=("seen", "finished", *UNANSWERED))
        if table.groupby("prompt_id").size().max() < 2:
            raise InputError(f"{source}: no prompt has two samples; diversity needs two samples per prompt")
        arm = Path(source).stem
        if arm in tables:
            raise InputError(f"{source}: another file is called {arm} too; rename one, since arms are named by files")
        text = _answers(source, table["text"])
        if not any(text):
            raise InputError(f"{source}: every sample is blank, refused or only thoughts; leave the file out")
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


def _answers(source: str, texts: Iterable[str]) -> list[str]:
    """The texts of samples without the thoughts before them; a blank one is empty."""
    split = [split_thoughts("" if is_blank(text) else text) for text in texts]
    if count := sum(bool(thoughts) for _, thoughts in split):
        log.warning("%s: %d of %d samples contain thoughts, which are taken off", source, count, len(split))
    return [answer for answer, _ in split]


def _read_scored(scored: str | None, profile: Profile, held_out: float, split_seed: int) -> pd.DataFrame:
    if scored is None:
        return read_corpus(held_out=profile.data.held_out, seed=profile.data.split_seed)
    table = table_of_weights(scored)
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
    from ddpo_lib.evaluation.compare_arms import HEADLINE
    from ddpo_lib.profiles.wording import interval, p_value

    rows = [*_describe_seen(result["prompts"]), *describe_unanswered(result["samples"])]
    rows.append(f"{'arm':<20}" + "".join(f"{measure:>26}" for measure in HEADLINE))
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
    if result["tokenizer"] == "unicode":
        rows.append("words are those of any script (tokenizer: unicode), not of rouge-score and sacrebleu")
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


def describe_unanswered(samples: dict[str, dict]) -> list[str]:
    """A line for each arm with samples that no measure counts."""
    lines = []
    for arm, about in samples.items():
        missing = [f"{about[name]} {words}" for name, words in NO_ANSWER.items() if about[name]]
        whole = about["samples"] + sum(about[name] for name in NO_ANSWER)
        lines += [f"{arm}: of {whole} samples {' and '.join(missing)}: not measured"] if missing else []
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
