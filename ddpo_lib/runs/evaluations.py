"""How the results of a run are made: what its corpus and its samples say, from the files of earlier artifacts.

As in `artifacts`, large libraries are imported inside the functions.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.measures.from_profile import fit_reward, load_reward, space
from ddpo_lib.profiles.profile import Profile, seeds_of, swept, twins
from ddpo_lib.runs.artifacts import held_out_prompts, seeded


def make_findings(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.evaluation.findings import collect_findings

    vectors = {name: np.load(run.path("vectors") / f"{name}.npy") for name in profile.spaces.choices()}
    settings = profile.evaluation
    options = {"draws": settings.bootstrap, "confidence": settings.confidence, "seed": profile.seed}
    corpus = run.table("corpus", "corpus.parquet")
    if corpus.groupby("prompt_id").size().max() < 2:
        source = run.steps["corpus"].params["source"]
        raise InputError(f"{source}: no prompt has two responses, and deviation needs two; give prompts with several")
    write_json(folder / "findings.json", collect_findings(corpus, vectors, gap=profile.data.gap, **options))


def make_maps(profile: Profile, arms: tuple[str, ...], folder: Path, run: Run) -> None:
    from ddpo_lib.data.corpus import EMPTY
    from ddpo_lib.report.explore import draw_prompts, make_points
    from ddpo_lib.report.layout import FEWEST
    from ddpo_lib.sampling.completions import answered
    from ddpo_lib.spaces.embed import embed

    corpus = run.table("corpus", "corpus.parquet")
    if len(corpus) < FEWEST:
        source = run.steps["corpus"].params["source"]
        raise InputError(
            f"{source}: a map needs {FEWEST} responses or more, but only {len(corpus)} are left after cleaning"
        )
    rows = draw_prompts(corpus, seed=profile.seed)
    spaces = profile.spaces.choices()
    vectors = {name: np.load(run.path("vectors") / f"{name}.npy")[rows] for name in spaces}
    samples = {arm: answered(run.table(f"samples-{arm}", "samples.parquet")) for arm in arms}
    for made in samples.values():
        made["text"] = made["text"].replace("", EMPTY)
    made_vectors = {
        arm: {name: embed(made["text"].tolist(), space(profile, name)) for name in spaces}
        for arm, made in samples.items()
    }
    points = make_points(corpus.iloc[rows].reset_index(drop=True), vectors, samples, made_vectors, profile.seed)
    points.to_parquet(folder / "points.parquet")


def make_ranking(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.data.corpus import read_corpus
    from ddpo_lib.evaluation.ranking import rank_sources

    data, settings = profile.data, profile.evaluation
    # a corpus of several sources may have no scores, so the reward is fitted on the package's own; the result says so
    reward, _, report = fit_reward(profile, read_corpus(held_out=data.held_out, seed=data.split_seed), folder)
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    options = {"confidence": settings.confidence, "seed": profile.seed}
    corpus = run.table("corpus", "corpus.parquet")
    ranked = rank_sources(corpus, reward, spaces, size=profile.sampling.samples, **options)
    write_json(folder / "ranking.json", {**ranked, "quality": report})


def make_evaluation(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.data import seen_prompts
    from ddpo_lib.evaluation.by_prompt import draw_sets
    from ddpo_lib.evaluation.compare_arms import GOLD, LENGTHS, describe_samples, score_by_prompt, summarise
    from ddpo_lib.evaluation.verdicts import decide_arms
    from ddpo_lib.measures.probes import probe

    corpus, settings, size = run.table("corpus", "corpus.parquet"), profile.evaluation, profile.sampling.samples
    arms, people = ["sft", *profile.arms], corpus[corpus["split"] == "test"]
    samples = {
        arm: pd.concat(
            [
                run.table(seeded(f"samples-{arm}", s), "samples.parquet").assign(seed=s)
                for s in range(seeds_of(profile, arm))
            ],
            ignore_index=True,
        )
        for arm in arms
    }
    samples |= {name: run.table(f"samples-{name}", "samples.parquet") for name in profile.baselines}
    tables = {GOLD: draw_sets(people, size, settings.gold_draws, profile.seed), **samples}
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    reward = load_reward(profile, run.path("quality"))
    by_prompt, shared = score_by_prompt(tables, reward, spaces, baseline=settings.against, to_match=[GOLD, *arms])
    by_prompt.to_parquet(folder / "by_prompt.parquet")
    compared = {"against": twins(profile), "confidence": settings.confidence}
    whole, matched, finished = (summarise(by_prompt[by_prompt["length"] == length], **compared) for length in LENGTHS)
    about = {arm: describe_samples(table) for arm, table in samples.items()}
    firsts = {arm: table[table["seed"] == 0] if "seed" in table else table for arm, table in samples.items()}
    firsts[GOLD] = people
    probes = {
        arm: probe(reward, table, confidence=settings.confidence, seed=profile.seed) for arm, table in firsts.items()
    }
    facts = {
        "matched": matched,
        "finished": finished,
        "samples": about,
        "seeds": {arm: seeds_of(profile, arm) for arm in arms},
        "smaller_gold_sets": int((people.groupby("prompt_id").size() < size).sum()),  # sets smaller than a model's
        "probes": probes,
    }
    results = whole | facts | shared
    # how many evaluation prompts the arms or the reward were trained on; the number must be 0
    # it is unknown if a model stayed on another machine; that is no reason to train it again
    models = {arm: run.folder / ("sft" if arm == "sft" else f"arm-{arm}") / "trained" for arm in arms}
    asked = {arm: samples[arm]["prompt"].unique() for arm in arms}
    results["seen"] = {arm: seen_prompts.count(models[arm], asked[arm]) for arm in arms}
    results["seen"]["reward"] = seen_prompts.count(run.path("quality"), pd.unique(np.concatenate(list(asked.values()))))
    results["claims"] = decide_arms(results, run.json("quality", "report.json"))
    write_json(folder / "results.json", results)


def make_fronts(profile: Profile, folder: Path, run: Run) -> None:
    from ddpo_lib.evaluation.compare_arms import score_sets, summarise_sweep

    prompts, parts = held_out_prompts(profile, "sweep", run)["prompt_id"], []
    for arm in swept(profile):
        once = run.table(f"samples-{arm}", "samples.parquet").assign(temperature=profile.sampling.temperature)
        once = once[once["prompt_id"].isin(prompts)]
        parts.append(pd.concat([once, run.table(f"sweep-{arm}", "samples.parquet")]).assign(arm=arm))
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    keys, reward = ["arm", "temperature", "prompt_id"], load_reward(profile, run.path("quality"))
    samples, settings = pd.concat(parts, ignore_index=True), profile.evaluation
    by_prompt = score_sets(samples, keys, reward, spaces)
    by_prompt.to_parquet(folder / "by_prompt.parquet")
    found = summarise_sweep(
        by_prompt,
        baseline=settings.against,
        temperature=profile.sampling.temperature,
        draws=settings.bootstrap,
        confidence=settings.confidence,
        seed=profile.seed,
    )
    # shares of samples that the token limit cut; samples at higher temperatures are longer
    found["cut"] = {
        arm: [{"temperature": t, "share": float((~part["finished"]).mean())} for t, part in of.groupby("temperature")]
        for arm, of in samples.groupby("arm", sort=False)
    }
    write_json(folder / "fronts.json", found)


def make_sharpness(profile: Profile, folder: Path, run: Run) -> None:
    """Write `by_set.parquet`, the headline measures of the arms that claims compare, by seed, prompt and number of
    samples, and `costs.json`, the seconds that these arms took."""
    from ddpo_lib.evaluation.compare_arms import score_sets
    from ddpo_lib.evaluation.published import claims_of

    claims = claims_of(twins(profile))
    arms = sorted({claim[side] for claim in claims for side in ("arm", "against")})
    samples = pd.concat(
        [
            run.table(seeded(f"samples-{arm}", seed), "samples.parquet").assign(arm=arm, seed=seed)
            for arm in arms
            for seed in range(seeds_of(profile, arm))
        ],
        ignore_index=True,
    )
    sizes = sorted({size for size in (2, 4, 8, 16) if size < profile.sampling.samples} | {profile.sampling.samples})
    parts = [samples[samples["sample"] < size].assign(samples=size) for size in sizes]
    spaces = {name: space(profile, name) for name in ("semantic", "style")}
    keys, reward = ["arm", "seed", "prompt_id", "samples"], load_reward(profile, run.path("quality"))
    by_set = score_sets(pd.concat(parts, ignore_index=True), keys, reward, spaces)
    by_set.to_parquet(folder / "by_set.parquet")
    seconds = {
        step: run.manifest(step)["seconds"]
        for arm in ("sft", *arms)
        for seed in range(seeds_of(profile, arm))
        for step in (seeded("sft" if arm == "sft" else f"arm-{arm}", seed), seeded(f"samples-{arm}", seed))
    }
    write_json(folder / "costs.json", seconds)
