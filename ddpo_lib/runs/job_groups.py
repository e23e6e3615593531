"""Which steps of a run share a process, and in which order the processes start.

Every process of the workflow imports torch and libraries based on it, which takes seconds. So on a machine without
GPUs, steps share processes. The artifacts that several jobs read are one group. If there are at least twice as many
arms as cores, then SFT with its samples, the training and sampling of one arm over all seeds, and a few chapters are
groups too. With GPUs or on a cluster, each job is its own process. A group with a longer chain of groups behind it
starts earlier, where a group that trains an arm counts as several. Groups that can run at the same time share the
cores, so that no core is idle while there is work.
"""

import re
from dataclasses import dataclass

from ddpo_lib.base.run_folder import Run

FIRST = ("corpus", "pairs")
READ = (
    "vectors",
    "quality",
    "findings",
    "graders",
)  # several jobs read these; ungrouped, each would make or await them
CHAPTER = "chapter-"
CHAPTERS = 3  # chapters per process
TRAINING = 4  # a group that trains or samples an arm takes minutes, and counts as so many others


@dataclass(frozen=True)
class Group:
    """Steps that one process makes.

    Attributes:
        steps: in order; artifacts that only they need are made with them.
        needs: names of the groups that must finish before.
        priority: among the groups that are ready, the highest starts first.
        threads: its share of the cores.
    """

    steps: tuple[str, ...]
    needs: tuple[str, ...]
    priority: int
    threads: int


def make_groups(run: Run, cores: int, apart: bool) -> dict[str, Group]:
    """The groups of a run, each under the name of its first step.

    Args:
        run: each of its jobs is put into one group.
        cores: the number of cores that the groups share.
        apart: each job is its own group; it also makes the artifacts that it needs and no other job makes.
    """
    jobs = [name for name, step in run.steps.items() if step.job or (not apart and _is_shared(name))]
    waits = {job: run.needed_jobs(job, jobs) for job in jobs}
    members = {job: [job] for job in jobs} if apart else _members(waits, cores)
    group_of = {job: name for name, steps in members.items() for job in steps}
    needs = {name: {group_of[job] for step in steps for job in waits[step]} - {name} for name, steps in members.items()}
    depth = _longest_chains(needs)
    cost = {name: TRAINING if any(map(_arm, steps)) else 1 for name, steps in members.items()}
    behind = _longest_chains({name: {other for other in needs if name in needs[other]} for name in needs}, cost)
    order = sorted(members, key=lambda name: cost[name] + behind[name], reverse=True)
    at_once = list(depth.values())
    return {
        name: Group(
            tuple(steps),
            tuple(sorted(needs[name])),
            len(order) - order.index(name),
            max(1, cores // at_once.count(depth[name])),
        )
        for name, steps in members.items()
    }


def _is_shared(name: str) -> bool:
    return name in (*FIRST, *READ) or name.startswith(CHAPTER)


def _members(waits: dict[str, list[str]], cores: int) -> dict[str, list[str]]:
    """The jobs of each group, under the name of the first, given the jobs for which each waits."""
    few = len({_arm(job) for job in waits} - {None}) >= 2 * cores
    depth = _longest_chains(waits)
    chapters = sorted((job for job in waits if job.startswith(CHAPTER)), key=depth.__getitem__)
    found: dict[object, list[str]] = {}
    for job in waits:
        arm, seed = _arm(job), job.partition("-seed")[2]
        if job in FIRST:
            process = FIRST
        elif job in READ:
            process = READ
        elif arm == "sft":  # arms wait for the model, but not for its samples if there are enough cores
            process = arm, seed, few or job.startswith(arm)
        elif arm:
            process = arm, "" if few else seed
        elif few and job in chapters:
            process = CHAPTER, chapters.index(job) // CHAPTERS
        else:
            process = job
        found.setdefault(process, []).append(job)
    return {steps[0]: steps for steps in found.values()}


def _arm(job: str) -> str | None:
    """The arm or baseline that a job trains or samples."""
    found = re.fullmatch(r"(?:samples-|sweep-|(?=sft))(.+?)(?:-seed\d+)?", job)
    return found and found[1]


def _longest_chains(needs: dict[str, set[str] | list[str]], cost: dict[str, int] | None = None) -> dict[str, int]:
    """The length of the longest chain of others that must come before each; each of them counts 1, or its cost."""
    found: dict[str, int] = {}

    def length(name: str) -> int:
        if name not in found:
            found[name] = max(((cost[needed] if cost else 1) + length(needed) for needed in needs[name]), default=0)
        return found[name]

    return {name: length(name) for name in needs}
