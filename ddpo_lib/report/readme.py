"""README's numbers and figure: a finished run, the kept grid and what was measured -> marked blocks, and their source.

A block stands in README.md between `<!-- name -->` and `<!-- /name -->`. `results/readme.json` holds what the run
said, so that a test can write every block again and compare.
"""

import hashlib
import json
import re
import textwrap
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.run_folder import Run
from ddpo_lib.evaluation.compare_arms import HEADLINE
from ddpo_lib.evaluation.published import published
from ddpo_lib.profiles.profile import Profile, load_profile
from ddpo_lib.report import figures
from ddpo_lib.worlds.grids import Grid, decide_rows, read_grid

PROFILE = "embedded"  # README tells of its run
ARM, AGAINST = "ddpo-both", "dpo"  # the paper's main claims are on their difference
SOURCES = ("evaluation", "quality")  # artifacts of the run
MANIFEST = Path("results") / "readme.json"
TIMINGS = Path("results") / "timings.json"
BENCHMARKS = Path("benchmarks") / "RESULTS.md"
FIGURE = Path("book") / "_static" / "result.svg"
WIDTH = 100
SHOWN = [  # rows of RESULTS.md: beginnings of "what" and "against", and a word of "asked"
    ("a DDPO step", "stock TRL", "tokens/s"),
    ("a DDPO step", "stock TRL", "memory"),
    ("the reference's work", "one arm's", ""),
    ("weights of 421,330", "one prompt at a time: full distance matrix, reduced at once", "3x"),
    ("embedding the", "sentence-transformers", "texts/s"),
]


def write(run: Run, project: Path) -> Path:
    """Write README's blocks, the figure, and `results/readme.json`, which says what they were made from.

    Args:
        run: of the profile `PROFILE`, finished.
        project: the checkout.

    Raises:
        InputError: an artifact of the run is missing or stale, or README lacks a block's markers.
    """
    stale = [name for name in SOURCES if not run.is_fresh(name)]
    if stale:
        raise InputError(f"{run.folder}: {' and '.join(stale)} not made by this checkout; run `make book` first")
    facts = read_facts(run)
    file = project / "README.md"
    texts = blocks(facts, project)
    file.write_text(fill(file.read_text(encoding="utf-8"), texts), encoding="utf-8")
    draw(facts, project / FIGURE)
    made = run.manifest("evaluation")
    content = {
        "keys": {name: run.key(name) for name in SOURCES},
        **{field: made[field] for field in ("made", "commit", "code", "hardware", "versions")},
        "figure": file_hash(project / FIGURE),
        "facts": facts,
        "blocks": texts,
    }
    write_json(project / MANIFEST, content)
    return project / MANIFEST


def read_facts(run: Run) -> dict:
    """What README tells of a run: verdicts on the main claims, the trained arms' differences, how they were made."""
    profile = load_profile(PROFILE)
    results, reward = run.json("evaluation", "results.json"), run.json("quality", "report.json")
    arms = [arm for arm in ("sft", *profile.arms) if arm in results["differences"]]
    claims = {c["measure"]: c for c in results["claims"] if (c["arm"], c["against"]) == (ARM, AGAINST)}
    return {
        "model": profile.model.name,
        "prompts": results["differences"][ARM]["semantic"]["prompts"],
        "samples": profile.sampling.samples,
        "seeds": results["seeds"][ARM],
        "confidence": profile.evaluation.confidence,
        "quality": figures.quality_name(reward),
        "claims": {m: {key: claims[m][key] for key in ("difference", "verdict")} for m in HEADLINE},
        "against": {arm: results["against"][arm] for arm in arms},
        "differences": {arm: {m: results["differences"][arm][m] for m in HEADLINE} for arm in arms},
    }


def blocks(facts: dict, project: Path) -> dict[str, str]:
    """The text of every block, by name."""
    timed = project / TIMINGS
    if not timed.exists():
        raise InputError(f"{timed}: no such file; `ddpo timings FOLDER` measures a fresh clone and writes it")
    return {
        "picture": picture(facts),
        "result": result(facts),
        "world": world(read_grid(project / "results" / "worlds"), load_profile(PROFILE)),
        "cost": cost(json.loads(timed.read_text(encoding="utf-8"))),
        "speed": speed((project / BENCHMARKS).read_text(encoding="utf-8")),
    }


def fill(text: str, made: dict[str, str]) -> str:
    """A README with its blocks written anew.

    Raises:
        InputError: it lacks a block's markers, or has a block that nothing makes.
    """
    there = set(read_blocks(text))
    if there != set(made):
        raise InputError(f"README.md: expected the blocks {', '.join(sorted(made))}, got {', '.join(sorted(there))}")
    for name, content in made.items():
        text = re.sub(_marked(name), lambda found, content=content: f"{found[1]}\n{content}\n{found[3]}", text)
    return text


def read_blocks(text: str) -> dict[str, str]:
    """The blocks of a README as they stand there, by name."""
    names = re.findall(r"<!-- (\w+) -->", text)
    return {name: found[2] for name in names if (found := re.search(_marked(name), text))}


def _marked(name: str) -> re.Pattern:
    return re.compile(rf"(<!-- {name} -->)\n(.*?)\n?(<!-- /{name} -->)", re.S)


def picture(facts: dict) -> str:
    """The figure, with words for who does not see it."""
    arms = ", ".join(_compared(arm, facts) for arm in facts["differences"])
    prompts = figures.count(facts["prompts"], "held-out prompt")
    alt = f"Differences in diversity and quality: {arms}, with {facts['confidence']:.0%} intervals over up to {prompts}"
    return f"![{alt}]({FIGURE.as_posix()})"


def result(facts: dict) -> str:
    """What the run says of the paper's three main claims, in sentences."""
    claims = facts["claims"]
    names = {"semantic": "semantic diversity", "style": "style diversity", "quality": "quality"}
    values = [f"{figures.interval(claims[m]['difference'], sign=True)} in {names[m]}" for m in names]
    by_verdict: dict[str, list[str]] = {}
    for measure, name in names.items():
        by_verdict.setdefault(claims[measure]["verdict"], []).append(name)
    if list(by_verdict) == ["not enough data"] and all(_holds_zero(claim["difference"]) for claim in claims.values()):
        told = "Every interval includes zero, so the run neither supports nor refutes the paper's claims"
    else:
        verdicts = "; ".join(f"{v} for {_listed(of)}" for v, of in by_verdict.items())
        told = f"The verdicts on the paper's claims are: {verdicts}"
    return _wrapped(
        f"In the last run of `make book` ({facts['model']}, {figures.count(facts['prompts'], 'held-out prompt')}, "
        f"{figures.count(facts['samples'], 'sample')} per prompt, {figures.count(facts['seeds'], 'training seed')} per "
        f"method), {figures.name(ARM)} minus {figures.name(AGAINST)} is {values[0]}, {values[1]} and {values[2]} "
        f"({facts['quality']}), with {facts['confidence']:.0%} intervals. {told}."
    )


def world(grid: Grid, profile: Profile) -> str:
    """What the kept grid of small models says of the claims, in sentences."""
    table, settings = grid.table, {"confidence": profile.evaluation.confidence}
    claims = decide_rows(table, published()["worlds"], **settings)
    moves = ("ddpo-semantic", AGAINST, "rare_good")
    (change,) = (c["difference"] for c in claims if (c["row"], c["against"], c["measure"]) == moves)
    before = table[table["row"] == AGAINST]["rare_good"].mean()
    points = {end: None if change[end] is None else 100 * change[end] for end in ("mean", "low", "high")}
    moved = "does not measurably change" if _holds_zero(change) else "raises" if change["mean"] > 0 else "lowers"
    verdicts = Counter(claim["verdict"] for claim in claims)
    failed = [
        f"“{claim['claim']}” ({figures.interval(claim['difference'], 2, sign=True)})"
        for claim in claims
        if claim["verdict"] == "not reproduced"
    ]
    return _wrapped(
        f"In a synthetic world whose plots are known ({figures.count(table['seed'].nunique(), 'seed')} per "
        f"method), weighting by meaning {moved} the share of rare plots among good stories. The change is "
        f"{figures.interval(points, 1, sign=True)} percentage points, from {before:.1%} with plain DPO. Of "
        f"{figures.count(len(claims), 'claim')} tested there, the models support {verdicts['reproduced']}, leave "
        f"{verdicts['not enough data']} open and contradict {len(failed)}{': ' * bool(failed)}{_listed(failed)}."
    )


def cost(timings: dict) -> str:
    """Time, memory and disk of `make book` and `make test`, as `timings.time_clone` measures them.

    The row of the tests is left out if they were not measured.
    """
    setup, book, again = (timings[name] for name in ("setup", "book", "again"))
    parts = f"{_clock(book['seconds'])}, plus {_clock(setup['seconds'])} of set-up"
    disk = f"environment {setup['disk_gb']:.1f} GB, run and pages {book['disk_gb']:.2f} GB"
    hardware = timings["hardware"]
    rows = [
        "| command in a fresh clone | time | memory of the largest process | disk |",
        "|---|---|---|---|",
        f"| `make book` | {parts} | {book['peak_memory_gb']:.1f} GB | {disk} |",
        f"| `make book` again, without changes | {_clock(again['seconds'])} | | |",
    ]
    if tests := timings.get("tests"):
        rows.append(f"| `make test`, {tests['number']:,} tests | {_clock(tests['seconds'])} | | |")
    made = (
        f"Measured on {timings['made']} at commit {timings['commit']}: {hardware['processor']}, "
        f"{hardware['cores']} cores, {hardware['memory_gb']:.0f} GB, {hardware['system']}, Python {timings['python']}."
    )
    return "\n".join([*rows, "", _wrapped(made)])


def speed(text: str) -> str:
    """The rows of `benchmarks/RESULTS.md` that README shows.

    Raises:
        InputError: a row is not there.
    """
    rows = _rows(text)
    made, machine = re.findall(r"^- (.+)", text, re.M)[:2]
    hardware = re.sub(r", load .*", "", machine)
    lines = [f"| measured on {made[:10]} ({hardware}) | compared with | result |", "|---|---|---|"]
    before = None
    for what, against, asked in SHOWN:
        row = next((r for r in rows if r[0].startswith(what) and r[1].startswith(against) and asked in r[2]), None)
        if row is None:
            raise InputError(
                f"{BENCHMARKS}: no row {what!r} against {against!r}; change SHOWN of ddpo_lib/report/readme.py"
            )
        lines.append(f"| {'the same' if row[0] == before else row[0]} | {row[1]} | {row[3]} |")
        before = row[0]
    return "\n".join(lines)


def _rows(text: str) -> list[list[str]]:
    """Cells of the tables' rows; a row without a first cell goes on with the one above."""
    rows: list[list[str]] = []
    for line in re.findall(r"^\| (?!what \|)(.*) \|$|^\|  \| (.*) \|$", text, re.M):
        cells = [cell.strip() for cell in (line[0] or f" | {line[1]}").split(" | ")]
        rows.append([cells[0] or rows[-1][0], *cells[1:]])
    return rows


def _listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`; nothing for no words."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _compared(arm: str, facts: dict) -> str:
    return f"{figures.name(arm)} minus {figures.name(facts['against'][arm])}"


def draw(facts: dict, file: Path) -> None:
    """The figure: each arm minus the one that it is compared with, on the paper's three axes."""
    figures.use_style()
    arms = list(facts["differences"])
    figure, axes = plt.subplots(1, len(HEADLINE), figsize=(9.0, 1.0 + 0.4 * len(arms)), sharey=True)
    titles = {"semantic": "semantic diversity", "style": "style diversity", "quality": facts["quality"]}
    for panel, measure in zip(axes, ("semantic", "style", "quality"), strict=True):
        for place, arm in enumerate(arms):
            value = facts["differences"][arm][measure]
            panel.plot(figures.ends(value), [place] * 2, color=figures.colour(arm), lw=2)
            panel.scatter(value["mean"], place, color=figures.colour(arm), marker=figures.mark(arm), s=45, zorder=3)
        panel.axvline(0, color=figures.colour("gold"), lw=1)
        panel.set_title(titles[measure])
        panel.set_xlabel("difference  (better →)" if measure == "quality" else "difference  (more diverse →)")
        panel.margins(y=0.2)
    axes[0].set_yticks(range(len(arms)), [_compared(arm, facts) for arm in arms])
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(file, format="svg", facecolor="white", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def file_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _clock(seconds: float) -> str:
    """`33 min 20 s`, `4 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _holds_zero(difference: dict) -> bool:
    """Whether an interval tells no direction."""
    return difference["low"] is None or difference["low"] <= 0 <= difference["high"]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
