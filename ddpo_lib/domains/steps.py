"""A profile's sections `domains` and `programs` -> the steps of their artifacts."""

from functools import partial
from types import ModuleType

from ddpo_lib.base.run_folder import Step
from ddpo_lib.domains import learners, program_learners, tables
from ddpo_lib.profiles.domain_settings import CheckedDomain, Domains, Programs

PARTS = 4  # processes among which the seeds are divided
ARITHMETIC, PROGRAM = "domain-arithmetic", "program"  # how the names of artifacts begin
BASE, PROGRAM_BASE = f"{ARITHMETIC}-base", f"{PROGRAM}-base"  # the artifacts that all seeds start from
CHECKS = "domain-checks"  # programs and poems, which nothing is trained on
GRID, PROGRAM_GRID = "domains", "programs"  # the artifacts that join all rows
TASKS = {"arithmetic", "held_out", "tasks", "responses", "wrong", "zipf"}  # settings of the tasks and their answers


def domain_steps(settings: Domains | None, gap: float) -> list[Step]:
    """The steps of small models on arithmetic, and of what checkers say of programs and poems.

    Args:
        settings: the section; without it there are no steps.
        gap: of the rule for pairs, in points of the score.
    """
    if settings is None:
        return []
    steps, inputs = _training_steps(learners, settings, gap, ARITHMETIC, GRID)
    join = partial(tables.join, settings, list(inputs[:-2]), *inputs[-2:], CHECKS)
    last = Step(GRID, join, (*inputs, CHECKS), {"domains": settings.model_dump()}, job=True)
    return [*steps, Step(CHECKS, tables.make_checks), last]


def program_steps(settings: Programs | None, gap: float) -> list[Step]:
    """The steps of small models that write programs, as `domain_steps`."""
    if settings is None:
        return []
    steps, inputs = _training_steps(program_learners, settings, gap, PROGRAM, PROGRAM_GRID)
    join = partial(tables.join_programs, settings, list(inputs[:-2]), *inputs[-2:])
    return [*steps, Step(PROGRAM_GRID, join, inputs, {"programs": settings.model_dump()}, job=True)]


def _training_steps(
    makers: ModuleType, settings: CheckedDomain, gap: float, name: str, grid: str
) -> tuple[list[Step], tuple[str, ...]]:
    """The steps that train and sample, and what joins them reads: tables of rows, the common start, the first seed.

    Args:
        makers: the module with `make_base`, `make_start` and `make_row`.
        settings, gap: as in `domain_steps`.
        name: how the names of the artifacts begin.
        grid: the artifact that joins them.
    """
    base, tasks = f"{name}-base", settings.model_dump(include=TASKS)
    shape = settings.model_dump(include={"layers", "width", "pretraining", "samples"})
    # the held-out tasks of all seeds are left out of pretraining
    params = tasks | shape | {"seeds": settings.seeds}
    steps = [Step(base, partial(makers.make_base, settings), (), params, job=True)]
    made: list[dict] = [{} for _ in range(min(PARTS, settings.seeds))]
    for seed in range(settings.seeds):
        start, of_seed = f"{name}-{seed}", made[seed % len(made)]
        params = tasks | {"sft": settings.sft.model_dump(), "samples": settings.samples, "seed": seed}
        steps.append(Step(start, partial(makers.make_start, settings, seed, base), (base,), params))
        of_seed[tables.SFT, seed] = start
        for row_name, row in settings.rows.items():
            artifact = f"{start}-{row_name}"
            params = {"row": row.model_dump(), "preference": settings.preference.model_dump(), "gap": gap, "seed": seed}
            make = partial(makers.make_row, settings, row, gap, seed, start)
            steps.append(Step(artifact, make, (start,), params | {"samples": settings.samples}))
            of_seed[row_name, seed] = artifact
    parts = [f"{grid}-part{i}" for i in range(len(made))]
    steps += [
        Step(part, partial(tables.gather, rows), tuple(rows.values()), job=True)
        for part, rows in zip(parts, made, strict=True)
    ]
    return steps, (*parts, base, f"{name}-0")
