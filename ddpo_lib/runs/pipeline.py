"""A profile and a corpus -> a run: the steps of its artifacts (`steps`) and those of the book."""

import hashlib
import json
import os
import re
from functools import cache, partial
from pathlib import Path

from ddpo_lib.base.code_keys import LIBRARY
from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run, Step
from ddpo_lib.data.corpus import PACKAGE_CORPUS
from ddpo_lib.data.files import NO_FILE
from ddpo_lib.data.formats import is_hub_name
from ddpo_lib.profiles.profile import SUFFIXES, Profile, absolute, load_profile
from ddpo_lib.report.book import benchmark_files
from ddpo_lib.report.kept_run import MARK, lay_out
from ddpo_lib.runs import artifacts
from ddpo_lib.runs.pins import pin
from ddpo_lib.runs.steps import make_steps
from ddpo_lib.worlds import small_models

PROJECT = Path(__file__).parents[2]  # in a checkout it contains notebooks/ and book/
CHAPTERS = {  # notebook -> the artifacts that it reads besides the corpus
    "00a-welcome": ("vectors", "evaluation", "quality"),
    "00b-read-and-run": (
        *("evaluation", "fronts", "findings", "maps", "online", "worlds", "world-rewards", "world-online", "domains"),
        "programs",
    ),
    "00c-method": ("vectors", "pairs"),
    "00d-data": ("vectors", "pairs", "quality"),
    "01-deviation-analysis": ("vectors", "findings", "maps"),
    "02-training": ("evaluation", "fronts", "quality", "pairs"),
    "02b-measures": ("evaluation", "quality"),
    "02a-sharpness": ("evaluation", "sharpness"),
    "02c-why-it-works": ("worlds", "vectors", "evaluation"),  # of the evaluation it reads only the settings
    "02d-rewards": ("world-rewards",),
    "02e-online": ("worlds", "world-online"),
    "02f-beyond-stories": ("domains", "programs"),
    "02g-open-questions": ("worlds", "world-online", "world-rewards", "domains", "programs"),
    "03-ablations": ("worlds", "vectors", "evaluation"),
    "04-divpo": ("vectors", "pairs", "evaluation", "quality", "worlds", "online"),
    "04a-neighbours": ("worlds",),
    "05-human-eval": ("evaluation",),
    "06-released-code": ("vectors", "pairs"),
    "07-inside": (),
    "08-yours-beside-ours": ("evaluation",),
}
ANNOTATED = "05-human-eval"  # the chapter that reads people's answers on a run's stories
BESIDE = "08-yours-beside-ours"  # the chapter that reads the kept run
INSIDE = "07-inside"  # the chapter that reads the library's source
KEPT = {  # a folder of results/ -> the profile, artifact and corpus from which it is made
    "deviation-captions": ("deviation", "findings", "newyorker_captions.jsonl"),
    "deviation-hanna": ("deviation", "findings", "hanna.jsonl"),
    "deviation-triplets": ("deviation", "findings", "creativity_triplets.jsonl"),
    "deviation-uses": ("deviation", "findings", "alternate_uses.jsonl"),
    "measures-hanna": ("deviation", "ranking", "hanna.jsonl"),
    "worlds": ("full", "worlds", None),
    "world-online": ("full", "world-online", None),
    "world-rewards": ("full", "world-rewards", None),
    "domains": ("full", "domains", None),
    "programs": ("full", "programs", None),
}
KEPT_RUN = "embedded"  # the profile whose whole run is kept in results/, without weights
ALONE = "01-deviation-analysis"  # the chapter that needs no training


def open_run(
    profile: str = "embedded", corpus: str | None = None, folder: str | Path = "runs", *, ask: bool = True
) -> Run:
    """The run of a profile on a corpus, with the artifacts that it has so far.

    Args:
        profile: a profile of the package, or a YAML file.
        corpus: a file or folder as `read_corpus` reads, or a hub data set; None for the profile's corpus, or else the
            package's.
        folder: the folder of all runs. A profile of the package on its own corpus has the run `folder/<profile>`. The
            name of any other run also has the corpus, if it is not the profile's, and a hash (`_name`).
        ask: whether the hub is asked for the commits of models and of a data set that no `revision` pins, at the first
            opening of a run; see `pins`.

    Raises:
        InputError: the profile is unknown or malformed, or the corpus file is missing.
    """
    settings = load_profile(profile)
    small_models.check_kinds(settings.worlds, f"profile {profile}")
    profile, source = absolute(profile), source_of(settings, corpus)
    hub = is_hub_name(source)
    other = source if corpus and source != source_of(settings, None) else None
    place = Path(folder).resolve() / _name(settings.name, profile, other, Path(folder).resolve())
    steps = make_steps(*pin(settings, source, place, ask=ask), hub)
    if (PROJECT / "notebooks").is_dir():
        steps |= _book_steps(settings, profile, source, set(steps), annotations(place), place / MARK)
    return Run(place, steps)


def _name(title: str, profile: str, other: str | None, runs: Path) -> str:
    """The name of a run's folder, the same for one profile and corpus and another for any other pair of them.

    A file of the user, which may share its name with other files, is told from them by a hash of its path. The path is
    seen from the folder of the runs, so a project that is moved keeps its runs.

    Args:
        title: the profile's `name`.
        profile: a profile of the package, or the absolute path of a YAML file.
        other: the corpus if it is not the profile's: a hub data set, or the absolute path of a file.
        runs: the folder of all runs.
    """
    own = profile if Path(profile).suffix in SUFFIXES else None
    if own is None and other is None:
        return title
    file = other and not is_hub_name(other)
    seen = [own and _seen_from(runs, own), _seen_from(runs, other) if file else other, bool(file)]
    corpus = other and re.sub(r"\W+", "-", Path(other).stem)[:40].strip("-")
    mark = hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:8]
    return "-".join(filter(None, (title, corpus, mark)))


def _seen_from(folder: Path, file: str) -> str:
    """The path of a file from a folder; a link to a file is a file of its own."""
    return os.path.relpath(Path(file).parent.resolve() / Path(file).name, folder)


def chapter_paths(profile: str, corpus: str | None, runs: str | Path | None) -> tuple[str, str | None, Path]:
    """The parameters of a chapter with absolute paths, whatever folder the chapter is started from.

    A relative path begins at the current folder. A profile or corpus that is not there is looked for in the checkout:
    the one that contains the current folder, or else this one.

    Args:
        profile, corpus: as in `open_run`.
        runs: the folder of all runs; None: `runs` in the checkout.
    """
    here = Path.cwd()
    inside = (place for place in (here, *here.parents) if all((place / n).is_dir() for n in ("notebooks", "ddpo_lib")))
    project = next(inside, PROJECT)

    def found(name: str) -> str:
        place = next((place / name for place in (here, project) if (place / name).exists()), None)
        return str(place) if place else name

    named = found(profile) if Path(profile).suffix in SUFFIXES else profile
    return named, corpus and found(corpus), here / runs if runs is not None else project / "runs"


def lay_out_kept_run(folder: Path) -> Run:
    """Lay out the maintainers' run in a folder of runs, and open it.

    Raises:
        InputError: the library is not in a checkout of the project; or as `kept_run.lay_out` says.
    """
    run = open_run(KEPT_RUN, folder=folder)
    if "book" not in run.steps:
        raise InputError("the pages are made in a checkout of the project, which contains the chapters; clone it")
    lay_out(PROJECT / "results" / KEPT_RUN, run)
    return open_run(KEPT_RUN, folder=folder)  # the pages now depend on whose run they show


def finished_runs(
    profile: str, corpus: str | None, runs: str | Path | None, kept: str | Path | None = None
) -> str | Path | None:
    """The folder of runs that a downloaded chapter reads: `runs`, or the maintainers' if it has no finished run.

    Args:
        profile, corpus, runs: parameters of a chapter, as in `chapter_paths`. Only the profile of the kept run on its
            own corpus is replaced.
        kept: where the maintainers' run is laid out; None: `runs/kept` in the checkout.

    Raises:
        InputError: as in `lay_out_kept_run`.
    """
    folder = chapter_paths(profile, corpus, runs)[2]
    if profile != KEPT_RUN or corpus or open_run(profile, folder=folder).is_fresh("evaluation"):
        return runs
    return lay_out_kept_run(Path(kept or PROJECT / "runs" / "kept")).folder.parent


@cache
def recipe(profile: str, artifact: str) -> str:
    """The key of an artifact of one of the package's profiles, from its code and settings alone, without a corpus."""
    return Run(Path("runs"), make_steps(load_profile(profile), "", True)).key(artifact)


def is_current(name: str) -> bool:
    """Whether the code and settings that made a folder of results/ are those of this checkout."""
    file = PROJECT / "results" / name / "manifest.json"
    profile, artifact, _ = KEPT[name]
    made = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return made.get("recipe") == recipe(profile, artifact)


def source_of(profile: Profile, corpus: str | None) -> str:
    """A run's corpus: a hub data set, or the absolute path of a file or folder. None gives the profile's, or else the
    package's.

    Raises:
        InputError: the file is missing.
    """
    source = str(corpus or profile.data.source or PACKAGE_CORPUS)
    if is_hub_name(source):
        return source
    if not Path(source).exists():
        raise InputError(f"{source}: {NO_FILE}")
    return str(Path(source).resolve())


def _book_steps(
    p: Profile, named: str, source: str, made: set[str], annotated: list[Path], mark: Path
) -> dict[str, Step]:
    """Executed chapters and the HTML; only in a checkout, which contains the notebooks. A chapter reads only artifacts
    in `made`, since a profile may lack some, such as those of online arms. `mark` says that the run is the kept one."""
    steps = []
    corpus = None if source == source_of(p, None) else source
    read = {ANNOTATED: annotated, INSIDE: sorted(LIBRARY.rglob("*.py"))}
    read[BESIDE] = [*(PROJECT / "results" / KEPT_RUN / "evaluation").glob("*.json"), *filter(Path.exists, [mark])]
    chapters, kept = CHAPTERS if p.arms else {ALONE: CHAPTERS[ALONE]}, _kept_results()
    for stem, inputs in chapters.items():
        notebook = PROJECT / "notebooks" / f"{stem}.md"
        params = {"profile": Path(named).name, "corpus": corpus and Path(corpus).name}
        make = partial(artifacts.make_chapter, notebook, named, corpus)
        name = f"chapter-{stem}"
        inputs = ("corpus", *(name for name in inputs if name in made))
        files = (notebook, *kept, *read.get(stem, ()))
        steps.append(Step(name, make, inputs, params, files, notebook, late_params=_outdated))
    if p.arms:
        pages = tuple(sorted(f for f in (PROJECT / "book").rglob("*") if f.is_file() and "_build" not in f.parts))
        files = (*pages, PROJECT / "_config.yml", PROJECT / "CITATION.cff", *benchmark_files(PROJECT))
        files = (*files, *filter(Path.exists, [mark]))
        executed = tuple(f"chapter-{stem}" for stem in CHAPTERS)
        steps.append(
            Step(
                "book",
                partial(artifacts.make_book, PROJECT, tuple(CHAPTERS)),
                executed,
                files=files,
                job=True,
            )
        )
    return {step.name: step for step in steps}


def _outdated() -> dict:
    """The stored results that other code made; pages show a warning for these."""
    return {"outdated": [name for name in KEPT if not is_current(name)]}


def annotations(place: Path) -> list[Path]:
    """The files of annotation studies in a run folder that the chapter reads: keys, and answers of people and judges.

    No step makes them. The logs and pages that Potato writes are not among them.
    """
    read = ("key.json", "study/annotation_output/*/user_state.json", "judge-*.parquet")
    return sorted(f for kind in read for f in (place / "annotations").glob(f"*/{kind}"))


def _kept_results() -> list[Path]:
    """Results that are stored with the project and that chapters read. Left out are those from which only README is
    made, and the kept run, which chapters read as a run."""
    found = sorted(f for f in (PROJECT / "results").glob("*/**/*") if f.suffix in (".json", ".parquet"))
    return [f for f in found if not f.is_relative_to(PROJECT / "results" / KEPT_RUN)]
