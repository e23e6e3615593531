"""Every knob, command, option, path and name in backquotes of README, the pages and the chapters is there."""

import ast
import importlib
import inspect
import pydoc
import re
import shlex
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import typer
import yaml
from pydantic import BaseModel

from ddpo_lib.cli import main
from ddpo_lib.profiles.profile import Profile, names
from ddpo_lib.runs.pipeline import open_run
from ddpo_lib.worlds.modeworld import World

PROJECT = Path(__file__).parents[1]
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [*sorted((PROJECT / "book").glob("*.md")), *sorted((PROJECT / "notebooks").glob("*.md"))]
PLACES = [
    "",
    "book",
    "notebooks",
    "ddpo_lib/profiles",
    "workflow/accelerate",
    "ddpo_lib/people/study",
]  # paths start there
MADE = ["runs", "results/gpu", "book/_build/html", "annotations", "key.json", "manifest.json"]  # not in a fresh clone
ELSEWHERE = {  # of other programs, of the shell, and of a user's own
    *("sbatch", "sacct", "slurmctld", "slurmd", "munged", "slurm-status-command: squeue", "pip install deepspeed"),
    *(
        "mean [low, high]",
        "~/.cache",
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "HOST",
        "type=bool",
        "--num_processes",
        "transformers serve",
    ),
    *(
        "pip install .",
        "pip install '.[train]'",
        "pip install 'ddpo-lib[annotate]'",
        "generation_config.json",
        "do_sample",
        "DPOTrainer",
        "make",
    ),
    *(
        "GRPOTrainer",
        "RLOOTrainer",
        "steps_per_generation",
        "normalize_then_sum",
    ),
    *("tools", "chat_template_kwargs", "sync_ref_model", "trainer.evaluate(other)", '"query: "'),
    *("study/key.json", "study/study/", "study/stories.jsonl", "study/study/consent.json", "study/judge-NAME.parquet"),
    *("workflow/profiles/NAME/config.yaml", '--config options="--semantic NAME"', "-p profile my.yaml"),
    *(
        "notebooks/09-name.md",
        "marks",
        '"marks": counted.marks_vectors',
        'found["openings"] = word_measures.distinct_openings(texts, groups)',
        "mine.jsonl",
        '"finished": false',
        '{"prompt": "..."}',
        '{"prompt": ..., "seen": false, "responses": [...]}',
    ),
    *('DPOConfig("out")', "ValueError", "datasets", "inputs_embeds", "log_softmax", "logsumexp", "target_modules"),
    *("logits - logsumexp", "to_pylist", "use_cache=False", "vendi.score_X(vectors, q)", "--config runs=..."),
    *("euclaise/WritingPrompts_preferences", '{"prompt": "Sea", "responses": [{"text": "Blue.", "score": 12}, ...]}'),
}
# what `ddpo annotate analyse` prints
PRINTED = ("time:", "attention checks:", "left side, a tie as half", "detects half of it", "agreement")
LIBRARIES = r"^(jupytext|papermill|accelerate|snakemake|python -m)( |$)"


def prose(file: Path) -> str:
    """A page without code cells and fenced blocks."""
    return re.sub(r"^(```|:::).*?^\1", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)


def quoted(text: str) -> list[str]:
    """What stands in backquotes, but for roles such as {doc}`use`."""
    text = re.sub(r"\{[\w:]+\}`[^`]*`", "", text)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def shell_lines(file: Path) -> list[str]:
    """The commands of a page's fenced blocks of shell, without their comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", file.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in re.sub(r"(^| )#.*", "", line).split("&&") if part.strip()]


@cache
def knobs() -> set[str]:
    """The fields of a profile at any depth, those of a world, and `extends`."""
    found, todo = {"extends", *inspect.signature(World).parameters}, [Profile]
    while todo:
        model = todo.pop()
        if isinstance(model, type) and issubclass(model, BaseModel):
            found |= set(model.model_fields)
            todo += [field.annotation for field in model.model_fields.values()]
        todo += get_args(model)
    return found


@cache
def command_tree() -> dict:
    """By name, the commands of `ddpo`."""
    group = typer.main.get_command(main.app)
    return {**group.commands, **group.commands["annotate"].commands}


@cache
def options() -> set[str]:
    return {name for command in command_tree().values() for parameter in command.params for name in parameter.opts}


@cache
def library() -> tuple[set[str], set[str], set[str]]:
    """Modules of the library, names that they define or take as arguments, and strings that they hold."""
    modules, defined, strings = set(), set(), set()
    for file in (PROJECT / "ddpo_lib").rglob("*.py"):
        modules.add(file.parent.name if file.stem.startswith("__") else file.stem)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.arg):
                defined.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                defined.add(node.target.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings |= {node.value, *([] if " " in node.value else node.value.split("."))}
    return modules, defined, strings


@cache
def tests() -> set[str]:
    texts = [file.read_text(encoding="utf-8") for file in (PROJECT / "tests").rglob("test_*.py")]
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.M)}


@cache
def steps() -> set[str]:
    """Artifacts, arms, rows of the grid of small models, and profiles."""
    made = {step for profile in ("embedded", "full", "smoke") for step in open_run(profile).steps}
    return made | {re.sub(r"^arm-|^row-|-0$", "", step) for step in made} | set(names())


def is_command(words: list[str]) -> bool:
    """`ddpo ...`, with the command and the options that it has; what else it is given may be anything."""
    if words[1:2] == ["annotate"] and len(words) > 2:
        words = words[1:]
    if words[1:] in ([], ["--help"], ["COMMAND", "--help"], ["annotate"]):
        return True
    command = command_tree().get(words[1])
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"} if command else set()
    return command is not None and all(word in known for word in words[2:] if word.startswith("--"))


def is_make(words: list[str]) -> bool:
    """`make ...`, with targets and variables of the Makefile."""
    makefile = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.M)) | {"ENV"}
    return all(word.split("=")[0] in variables if "=" in word else word in targets for word in words[1:])


def is_path(span: str) -> bool:
    return any((PROJECT / place / span).exists() for place in PLACES) or any(
        span.rstrip("/").startswith(made) for made in MADE
    )


def dotted(named: list[str]) -> list[str]:
    """The whole names that the short name of a module, or of a thing in it, may stand for."""
    places = [place for end in ("", ".py") for place in (PROJECT / "ddpo_lib").rglob(f"{named[0]}{end}")]
    return [".".join([*place.relative_to(PROJECT).with_suffix("").parts, *named[1:]]) for place in places]


def is_python(span: str) -> bool:
    """A name of the library, dotted or called, with arguments that it takes."""
    found = re.fullmatch(r"(?:ddpo_lib\.)?([\w.]+?)(?:\((.*)\))?", span)
    if found is None:
        return False
    named, arguments = found[1].split("."), re.findall(r"(\w+)=", found[2] or "")
    modules, defined, _ = library()
    if named[0] in modules and len(named) > 1:
        things = [thing for thing in map(pydoc.locate, dotted(named)) if thing is not None]
        return any(all(name in inspect.signature(thing).parameters for name in arguments) for thing in things)
    return len(named) == 1 and named[0] in defined | modules and all(name in defined for name in arguments)


def is_setting(span: str) -> bool:
    """`knob`, `section.knob`, or YAML of a profile; an arm or a space there has a name of the user's own."""
    if re.fullmatch(r"[\w.]+|(\w+: ?)+", span):  # `spaces: others:` too
        return all(part in knobs() for part in re.findall(r"\w+", span))
    content = yaml.safe_load(span)
    if not isinstance(content, dict):
        return False
    inner = [value if isinstance(value, dict) else {key: value} for key, value in content.items()]
    return all(key in knobs() for mapping in inner for key in mapping)


def resolves(span: str) -> bool:
    """Whether what stands in backquotes is there."""
    if span in ELSEWHERE or span.startswith(PRINTED) or span.split("=")[0] in ELSEWHERE:
        return True
    words = span.split()
    if span.startswith("test_"):
        return span in tests()
    if words[0] == "ddpo":
        return is_command(words)
    if words[0] == "make":
        return is_make(words)
    if words[0].startswith("--"):
        return all(word in options() for word in words if word.startswith("--"))
    if re.match(LIBRARIES, span):
        return all(is_path(word) for word in words if re.search(r"/.*\.(yaml|md)$", word))
    if assigned := re.fullmatch(r'(\w+)=[\w".]+', span):  # an argument
        return assigned[1] in library()[1]
    if span.startswith("import "):
        return words[1] == "ddpo_lib"
    try:
        setting = is_setting(span)
    except yaml.YAMLError:
        setting = False
    return setting or is_path(span) or is_python(span) or span in steps() | library()[2] | set(command_tree())


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_what_stands_in_backquotes_is_there(file):
    unknown = sorted({span for span in quoted(prose(file)) if not resolves(span)})
    assert not unknown, f"{file.name}: no knob, command, path or name of that kind (a typing error?): {unknown}"


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_the_commands_of_a_page_are_there(file):
    for line in shell_lines(file):
        words = shlex.split(line)
        if "ddpo_lib.cli" in words:
            words = ["ddpo", *words[words.index("ddpo_lib.cli") + 1 :]]
        if words[0] == "ddpo":
            assert is_command(words), f"{file.name}: {line}"
        elif words[0] == "make":
            assert is_make(words), f"{file.name}: {line}"
        elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
            assert importlib.util.find_spec(words[2]), f"{file.name}: {line}"


def test_the_links_of_readme_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)]+)\)", (PROJECT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 5
    for link in links:
        assert (PROJECT / link).exists(), link


@pytest.mark.parametrize(
    "span",
    [
        *("ddpo wieghts", "ddpo weights --flor 0.1", "make bok", "make book PROFIL=x", "--semantics", "lora_rr: null"),
        *("ddpo_lib/profiles/embeded.yaml", "deviation.wieghts", "deviation.weights(..., flor=0.1)", "losses.ddpo"),
        *(
            "ddpo-bth",
            "evaluation.matchd",
            "dorpo_varient=1",
            "accelerate launch --config_file workflow/accelerate/d.yaml",
        ),
    ],
)
def test_a_typing_error_is_found(span):
    assert not resolves(span)


def test_the_words_of_a_sentence_are_read_and_roles_are_not():
    assert quoted("see {doc}`use` and {ref}`zero <zero>`, then `make\nbook`") == ["make book"]
