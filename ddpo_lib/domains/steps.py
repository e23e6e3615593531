"""A profile's section `domains` -> the steps of its artifacts."""

from functools import partial

from ddpo_lib.base.run_folder import Step
from ddpo_lib.domains import learners, tables
from ddpo_lib.profiles.domain_settings import Domains

PARTS = 4  # processes among which the seeds are divided
BASE = "domain-arithmetic-base"  # the artifact that all seeds start from
CHECKS = "domain-checks"  # programs and poems, which nothing is trained on


def domain_steps(settings: Domains | None, gap: float) -> list[Step]:
    """The steps of small models on checked tasks; none without the section.

    Args:
        settings: the section.
        gap: of the rule for pairs, in points of the score.
    """
    if settings is None:
        return []
    d, tasks = settings, settings.model_dump(include={"arithmetic", "held_out", "tasks", "responses", "wrong", "zipf"})
    shape = settings.model_dump(include={"layers", "width", "pretraining", "samples"})
    # the held-out tasks of all seeds are left out of pretraining
    steps = [Step(BASE, partial(learners.make_base, d), (), tasks | shape | {"seeds": d.seeds}, job=True)]
    made: list[dict] = [{} for _ in range(min(PARTS, d.seeds))]
    for seed in range(d.seeds):
        start, of_seed = f"domain-arithmetic-{seed}", made[seed % len(made)]
        params = tasks | {"sft": d.sft.model_dump(), "samples": d.samples, "seed": seed}
        steps.append(Step(start, partial(learners.make_start, d, seed, BASE), (BASE,), params))
        of_seed[tables.SFT, seed] = start
        for name, row in d.rows.items():
            artifact = f"{start}-{name}"
            params = {"row": row.model_dump(), "preference": d.preference.model_dump(), "gap": gap, "seed": seed}
            make = partial(learners.make_row, d, row, gap, seed, start)
            steps.append(Step(artifact, make, (start,), params | {"samples": d.samples}))
            of_seed[name, seed] = artifact
    parts = [f"domains-part{i}" for i in range(len(made))]
    steps += [
        Step(part, partial(tables.gather, rows), tuple(rows.values()), job=True)
        for part, rows in zip(parts, made, strict=True)
    ]
    steps.append(Step(CHECKS, tables.make_checks))
    first = "domain-arithmetic-0"
    join, inputs = partial(tables.join, d, parts, BASE, first, CHECKS), (*parts, BASE, first, CHECKS)
    return [*steps, Step("domains", join, inputs, {"domains": d.model_dump()}, job=True)]
