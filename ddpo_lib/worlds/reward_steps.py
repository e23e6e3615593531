"""A profile's section `rewards` -> the steps of its grid; a profile without the section has none."""

from functools import partial

from ddpo_lib.base.run_folder import Step
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.profiles.world_settings import MAIN_WORLD
from ddpo_lib.worlds import reward_grid, reward_rows

GRID = "world-rewards"  # the artifact that joins all rows


def make_steps(p: Profile, parts: int) -> list[Step]:
    """The steps of the grid of rewards. A process works through the rows of several seeds, one after another.

    Args:
        parts: the most processes among which the seeds are divided.
    """
    if p.rewards is None:
        return []
    settings, steps = p.rewards, []
    shared = settings.model_dump(exclude={"rows", "seeds"})
    shared |= {"prompts": p.worlds.preference_prompts, "measured": p.worlds.samples}
    starts = {seed: f"world-{MAIN_WORLD}-{seed}" for seed in range(min(settings.seeds, p.worlds.seeds))}
    made: list[dict] = [{} for _ in range(min(parts, len(starts)))]
    for seed, start in starts.items():
        for name, row in settings.rows.items():
            artifact, make = f"reward-{name}-{seed}", partial(reward_rows.make_reward_row, p, row, seed, start)
            steps.append(Step(artifact, make, (start,), shared | {"row": row.model_dump()}))
            made[seed % len(made)][name, seed] = artifact
    names = [f"{GRID}-part{i}" for i in range(len(made))]
    for part, rows in zip(names, made, strict=True):
        after = sorted({f"worlds-part{seed % min(parts, p.worlds.seeds)}" for _, seed in rows})  # they make the start
        steps.append(Step(part, partial(reward_grid.gather, rows), tuple(rows.values()), job=True, after=(*after,)))
    params = {"rewards": settings.model_dump(), "main": p.worlds.kinds[MAIN_WORLD]}
    join = partial(reward_grid.join, p, names, starts)
    return [*steps, Step(GRID, join, (*names, *starts.values()), params, job=True)]
