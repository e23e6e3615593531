"""A run folder -> which artifacts are made, stale or missing, and what of a stale artifact's key differs.

The reasons name packages, parameters, artifacts and files of the library. They contain no text of a parameter and no
path, since these may tell who uses the library.
"""

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run, Step, hash_parts
from ddpo_lib.cli.anonymous import describe_file

STATES = ("made", "stale", "missing", "unknown")


@dataclass(frozen=True)
class State:
    """An artifact's state, one of `STATES`, and the reasons if it is stale or unknown."""

    name: str
    state: str
    reasons: tuple[str, ...] = ()


def read_states(run: Run) -> list[State]:
    """The state of each artifact of a run, in the order of its steps. Nothing is made.

    An artifact is "unknown" if its key cannot be computed: a package or a file that it depends on is missing.
    """
    return [_state(run, name) for name in run.steps]


def why_stale(run: Run, name: str) -> list[str]:
    """What of an artifact's key differs from what its manifest says, one reason per kind of difference.

    Raises:
        KeyError: the manifest does not say what the key was made of.
    """
    step, made, code = run.steps[name], run.manifest(name), run.code(name)
    inputs = {needed: run.key(needed) for needed in step.inputs}
    params = json.loads(json.dumps(step.all_params()))
    reasons = []
    if made["code"]["code"] != code["code"]:
        reasons.append("code")
    if packages := _changes(made["code"]["packages"], code["packages"]):
        reasons.append(f"packages: {', '.join(packages)}")
    files = _differing(made["code"]["files"], code["files"])
    as_made = hash_parts(name, made["params"], made["inputs"], made["code"], step.files)
    if as_made != made["key"]:  # the key has more than these parts: the files that the step reads
        files.append(_describe_files(step))
    if files:
        reasons.append(f"files: {', '.join(files)}")
    if changed := _changes(_flat(made["params"]), _flat(params)):
        reasons.append(f"parameters: {', '.join(changed)}")
    if changed := _differing(made["inputs"], inputs):
        reasons.append(f"inputs: {', '.join(changed)}")
    return reasons


def _state(run: Run, name: str) -> State:
    made = run.manifest(name)
    if not made:
        unreadable = (run.folder / name / "manifest.json").exists()
        return State(name, "missing", ("its manifest cannot be read",) if unreadable else ())
    try:
        if run.is_fresh(name):
            return State(name, "made")
        return State(name, "stale", tuple(why_stale(run, name)))
    except PackageNotFoundError as error:
        return State(name, "unknown", (f"{error.name} is not installed",))
    except OSError:
        return State(name, "unknown", ("a file that it reads is missing",))
    except InputError:
        return State(name, "unknown", ("its code cannot be read",))
    except (KeyError, TypeError, AttributeError):
        return State(name, "stale", ("its manifest does not say what it was made of",))


def _differing(made: dict, now: dict) -> list[str]:
    """The keys whose values differ or that only one of the mappings contains."""
    return sorted(name for name in made.keys() | now.keys() if made.get(name) != now.get(name))


def _changes(made: dict, now: dict) -> list[str]:
    """The differing keys, with old and new value if these tell nothing but a number or a version."""
    return [f"{name}{_values(made, now, name)}" for name in _differing(made, now)]


def _values(made: dict, now: dict, name: str) -> str:
    if name not in made or name not in now:
        return " is new" if name in now else " is gone"
    values = made[name], now[name]
    return " {} (now {})".format(*values) if all(map(_is_plain, values)) else ""


def _is_plain(value) -> bool:
    """Whether a value is a number, a truth value, null, or a version such as 2.13."""
    return not isinstance(value, str | list) or (isinstance(value, str) and value.replace(".", "").isdecimal())


def _flat(params: dict, before: str = "") -> dict:
    """Nested parameters by dotted names, as in `sampling.samples`."""
    flat = {}
    for name, value in params.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat


def _describe_files(step: Step) -> str:
    """The files that a step reads, by kind and size; which of them has changed is not stored."""
    if len(step.files) == 1:
        return describe_file(step.files[0])
    kinds = sorted({path.suffix or "no suffix" for path in step.files})
    return (
        f"one or more of the {len(step.files)} that it reads ({', '.join(kinds)})"
        if step.files
        else "it reads none now"
    )
