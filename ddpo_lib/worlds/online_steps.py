"""A profile -> the steps of its rows that learn online in the main world (`online_rows`), and of their tables."""

from functools import partial

from ddpo_lib.base.run_folder import Step
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.world_settings import MAIN_WORLD
from ddpo_lib.worlds import online_grid, online_rows

PARTS = 4  # processes among which the seeds are divided


def make_steps(profile: Profile) -> list[Step]:
    """The steps of the section `online_world`; none if the profile has no such section."""
    plan, worlds = profile.online_world, profile.worlds
    if plan is None:
        return []
    common = plan.model_dump(exclude={"seeds", "rows"}) | {"preference": worlds.preference.model_dump()}
    common |= {"gap": profile.data.gap}
    steps, made = [], [{} for _ in range(min(PARTS, plan.seeds))]
    for seed in range(plan.seeds):
        start = f"world-{MAIN_WORLD}-{seed}"
        for name, row in plan.rows.items():
            artifact = f"online-world-{name}-{seed}"
            make = partial(online_rows.make_row, profile, row, seed, start)
            steps.append(Step(artifact, make, (start,), common | {"row": row.model_dump()}))
            made[seed % len(made)][name, seed] = artifact
    parts = [f"world-online-part{i}" for i in range(len(made))]
    for part, rows in zip(parts, made, strict=True):
        after = sorted(
            {f"worlds-part{seed % min(PARTS, worlds.seeds)}" for _, seed in rows}
        )  # they make the rows' start
        steps.append(Step(part, partial(online_grid.gather, rows), tuple(rows.values()), job=True, after=(*after,)))
    join = partial(online_grid.join, profile, parts)
    params = {"online_world": plan.model_dump(), **online_grid.shared(profile)}
    return [*steps, Step("world-online", join, tuple(parts), params, job=True)]
