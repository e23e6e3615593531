"""Arms that learn from their own samples, in rounds of sampling, scoring, picking and training (as online DivPO).

A round is two artifacts. The pool contains samples of the current model for some of the training prompts, scored by the
teacher. The second artifact is the model trained on pairs from the pool. Training starts from the model that was
sampled, which is also the frozen reference, unless the arm's `reference` is fixed: then it is SFT in every round.

Two rewards are fitted, each on half of the training prompts. The teacher's scores pick the pairs. The grader has seen
none of the teacher's prompts and measures the quality of the trained arms. `ddpo online` runs the same rounds on a
user's prompts, with a reward of the user's.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.base.store import content_key
from ddpo_lib.measures.from_profile import fit_reward, load_reward, space
from ddpo_lib.models.versions import exact_version, hash_folder
from ddpo_lib.pairs.rounds import draw_prompts, whole
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.settings import Online

if TYPE_CHECKING:
    from ddpo_lib.measures.quality import (
        Reward,  # imports scipy.stats, which takes longer than all other imports of a process
    )

TEACHER, GRADER = "teacher", "grader"  # folders of the artifact `graders`
GAP = 0  # between the scores of a pair; the profile's gap is in upvotes, and a reward's scores are not


def make_graders(profile: Profile, folder: Path, run: Run) -> None:
    """The teacher and the grader, each in a folder, with its report."""
    for name, part in zip((TEACHER, GRADER), halve(run.table("corpus", "corpus.parquet"), profile.seed), strict=True):
        (folder / name).mkdir(exist_ok=True)
        _, _, report = fit_reward(profile, part, folder / name)
        write_json(folder / f"{name}.json", report)


def halve(corpus: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two corpora, each with a random half of the training prompts; held-out prompts are in both.

    Raises:
        InputError: there are fewer than two training prompts.
    """
    train = corpus[corpus["split"] == "train"]
    prompts = np.random.default_rng(seed).permutation(np.sort(train["prompt_id"].unique()))
    if len(prompts) < 2:
        raise InputError(
            f"online: a teacher and a grader need a training prompt each, and there are {len(prompts)}; give more"
        )
    parts = prompts[: len(prompts) // 2], prompts[len(prompts) // 2 :]
    others = corpus["split"] != "train"
    return tuple(corpus[others | corpus["prompt_id"].isin(part)] for part in parts)


def make_pool(profile: Profile, online: Online, number: int, start: str, folder: Path, run: Run) -> None:
    """Write the samples of a round and their scores to `pool.parquet`, a table as from `corpus.read_corpus`.

    Args:
        number: of the round, from 1.
        start: the artifact whose model is sampled.
    """
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.journal import remove_journal

    prompts = draw_prompts(run.table("corpus", "corpus.parquet"), online.prompts, number, profile.seed)
    engine = open_trained(profile.model, run.path(start) / "trained", profile.sampling.engine)
    limits = {"samples": online.samples, "max_new_tokens": online.max_new_tokens}
    journal = folder / "journal.jsonl"
    samples = generate(
        engine, prompts, profile.sampling.model_copy(update=limits), profile.seed + number, journal=journal
    )
    del engine  # the reward needs memory too
    score_pool(samples, load_reward(profile, run.path("graders") / TEACHER)).to_parquet(folder / "pool.parquet")
    remove_journal(journal)


def make_round(profile: Profile, online: Online, number: int, start: str, pool: str, folder: Path, run: Run) -> None:
    """Pick pairs from the pool of a round and train on them, starting from the model that was sampled for the pool.

    `picked.parquet` contains the samples that can be picked, with `surprisal` if the arm uses it. `pairs.parquet`
    contains the pairs.
    """
    from ddpo_lib.measures.surprisal import mean_surprisal
    from ddpo_lib.pairs.arms import training_pairs
    from ddpo_lib.spaces.embed import embed
    from ddpo_lib.training.train import train_preferences

    sampled, trained, arm = run.table(pool, "pool.parquet"), run.path(start) / "trained", online.arm
    picked = whole(sampled)
    if len(picked) and arm.picks_by_probability():
        picked["surprisal"] = mean_surprisal(picked, profile.model, trained)
    picked.to_parquet(folder / "picked.parquet")
    vectors = {name: embed(picked["text"].tolist(), space(profile, name)) for name in arm.spaces() if len(picked)}
    surprisal = picked["surprisal"].to_numpy() if "surprisal" in picked else None
    try:
        if picked.empty:
            raise InputError("no sample is left for pairs")
        pairs = training_pairs(picked, vectors, arm, GAP, profile.seed + number, surprisal)
    except InputError as error:
        raise InputError(
            f"online, {pool}: {len(picked)} of {len(sampled)} samples are finished and not blank; {error}. In the "
            "profile, raise the arm's `samples` or `max_new_tokens` under `online`"
        ) from None
    pairs.to_parquet(folder / "pairs.parquet")
    write_json(folder / "dropped.json", pairs.attrs.get("dropped", []))
    settings = profile.model, profile.preference, profile.data.max_tokens, profile.seed + number
    fixed = run.path("sft") / "trained" if online.reference == "fixed" else None
    train_preferences(pairs, arm, trained, *settings, folder, reference=fixed)


def make_results(profile: Profile, folder: Path, run: Run) -> None:
    """Write the results of the online arms and of the arms that they are compared with.

    `by_prompt.parquet`: the measures by held-out prompt, with quality by the grader. `samples.json`: the descriptions
    of the samples. `rounds.parquet`: the counts and seconds of each round.
    """
    from ddpo_lib.evaluation.compare_arms import describe_samples, score_by_prompt

    samples = {name: run.table(f"samples-{name}", "samples.parquet") for name in (*offline(profile), *profile.online)}
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    options = {"baseline": "sft", "to_match": list(samples)}
    by_prompt, _ = score_by_prompt(samples, load_reward(profile, run.path("graders") / GRADER), spaces, **options)
    by_prompt.to_parquet(folder / "by_prompt.parquet")
    write_json(folder / "samples.json", {name: describe_samples(table) for name, table in samples.items()})
    rows = [
        {"arm": name, **describe_round(run, name, number)}
        for name, online in profile.online.items()
        for number in range(1, online.rounds + 1)
    ]
    pd.DataFrame(rows).to_parquet(folder / "rounds.parquet")


def offline(profile: Profile) -> tuple[str, ...]:
    """The arms with which online arms are compared: the model that they start from, and DivPO on the corpus."""
    return ("sft", *(name for name in ("divpo",) if name in profile.arms))


def describe_round(run: Run, name: str, number: int) -> dict:
    """Counts of a round, and the seconds of its two artifacts, from their manifests."""
    pool, trained = f"pool-{name}-{number}", f"round-{name}-{number}"
    sampled, pairs = run.table(pool, "pool.parquet"), run.table(trained, "pairs.parquet")
    log = run.json(trained, "log.json")
    return {
        "round": number,
        "prompts": sampled["prompt_id"].nunique(),
        "samples": len(sampled),
        "whole": len(whole(sampled)),
        "tokens": int(sampled["tokens"].sum()),
        "score": float(sampled["score"].mean()),
        "pairs": len(pairs),
        "steps": max(entry["step"] for entry in log),
        "seconds_to_sample": run.manifest(pool)["seconds"],
        "seconds_to_train": run.manifest(trained)["seconds"],
    }


def score_pool(samples: pd.DataFrame, reward: "Reward") -> pd.DataFrame:
    """Samples of `generate.generate` as a corpus: `prompt_id prompt response_id text score`, and `tokens finished`."""
    pool = samples[["prompt_id", "prompt", "text", "tokens", "finished"]].copy()
    pool["response_id"] = samples["prompt_id"] + "-" + samples["sample"].astype(str).str.zfill(4)
    return pool.assign(score=reward.score(pool["prompt"].tolist(), pool["text"].tolist()))


# `ddpo online`


def make_own_steps(
    profile: Profile, online: Online, start: Path, scoring: partial, facts: dict, prompts: pd.DataFrame
) -> list[Step]:
    """The steps of rounds on a user's own prompts, with a reward of the user's.

    Args:
        profile: its seed is that of the rounds.
        start: folder of the model that the first round samples.
        scoring: writes a `pool.parquet`; called with the artifact of samples, the folder to fill and the run.
        facts: what the scores depend on, besides the code of `scoring`.
        prompts: `prompt_id prompt split`.
    """
    model = profile.model.model_dump() | {"version": exact_version(profile.model.name, profile.model.revision)}
    own, arm = online.model_dump(exclude={"rounds", "arm"}), online.arm.model_dump()
    spaces = {name: profile.spaces.choices()[name].model_dump() for name in sorted(online.arm.spaces())}
    steps = [
        Step("prompts", partial(_write_prompts, prompts), (), {"prompts": content_key(*prompts["prompt"])}),
        Step("sft", partial(_copy_model, start), (), {"version": hash_folder(start)}),
    ]
    before = "sft"
    for number in range(1, online.rounds + 1):
        drawn, pool, trained = (f"{kind}-{number}" for kind in ("samples", "pool", "round"))
        common = {"model": model, "seed": profile.seed, "plan": own}
        make = partial(sample_round, profile, online, number, before)
        params = common | {"sampling": profile.sampling.model_dump()}
        steps.append(Step(drawn, make, ("prompts", before), params))
        scored = partial(scoring.func, *scoring.args, drawn)
        steps.append(Step(pool, scored, (drawn,), {"reward": facts}))
        make = partial(make_round, profile, online, number, before, pool)
        params = common | {"arm": arm, "preference": profile.preference.model_dump(), "spaces": spaces}
        params |= {"max_tokens": profile.data.max_tokens}
        steps.append(Step(trained, make, (pool, *dict.fromkeys((before, "sft"))), params))
        before = trained
    return steps


def _write_prompts(prompts: pd.DataFrame, folder: Path, run: Run) -> None:
    prompts.to_parquet(folder / "prompts.parquet")


def _copy_model(start: Path, folder: Path, run: Run) -> None:
    shutil.rmtree(folder / "trained", ignore_errors=True)  # a kill may have left a part of it
    shutil.copytree(start, folder / "trained")


def sample_round(profile: Profile, online: Online, number: int, start: str, folder: Path, run: Run) -> None:
    """Sample the model for the prompts of a round: `samples.parquet`, from `generate.generate`."""
    from ddpo_lib.sampling.engines import open_trained
    from ddpo_lib.sampling.generate import generate
    from ddpo_lib.sampling.journal import remove_journal

    prompts = draw_prompts(run.table("prompts", "prompts.parquet"), online.prompts, number, profile.seed)
    engine = open_trained(profile.model, run.path(start) / "trained", profile.sampling.engine)
    limits = {"samples": online.samples, "max_new_tokens": online.max_new_tokens}
    journal = folder / "journal.jsonl"
    drawn = profile.sampling.model_copy(update=limits)
    made = generate(engine, prompts, drawn, profile.seed + number, journal=journal)
    made.to_parquet(folder / "samples.parquet")
    remove_journal(journal)
