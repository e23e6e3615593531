"""Every knob of a run in one typed, frozen object, read from YAML and checked once.

A profile is a file of `ddpo_lib/profiles/`, or any YAML file of that form. `extends: NAME` starts from another
profile and changes what it names. Mappings are merged, except `arms`, `online` and `others`; these and all other values
are replaced. A profile that names another model does not take over the revision of the one before. A relative path in a
profile begins at the folder of the file that contains it.
"""

import os
import re
from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError, model_validator

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.domain_settings import Domains, Programs
from ddpo_lib.profiles.evaluation_settings import Baseline, Evaluation, Quality
from ddpo_lib.profiles.online_settings import OnlineWorld
from ddpo_lib.profiles.reward_settings import Rewards
from ddpo_lib.profiles.settings import (
    Arm,
    Data,
    Model,
    Online,
    Optimiser,
    Positive,
    Preference,
    Sampling,
    Section,
    Spaces,
    check_for_vllm,
)
from ddpo_lib.profiles.world_settings import Worlds
from ddpo_lib.profiles.yaml_text import PlainYaml


class Profile(Section):
    name: str
    what: str  # one line for --help and the book
    seed: int
    seeds: Positive = 1  # trainings of every arm: from `seed`, `seed` + 1, ...
    data: Data
    spaces: Spaces
    model: Model
    sft: Optimiser
    preference: Preference
    arms: dict[str, Arm]  # empty: nothing is trained, and chapter 1 is the only one
    online: dict[str, Online] = {}  # noqa: RUF012, pydantic copies it; arms that learn from their own samples
    baselines: dict[str, Baseline] = {}  # noqa: RUF012, likewise; compared with the arms
    sampling: Sampling
    quality: Quality
    evaluation: Evaluation
    worlds: Worlds
    online_world: OnlineWorld | None = None  # None: no rows of small models that learn online
    rewards: Rewards | None = None  # small models of the main world that learn from numbers; None: none
    domains: Domains | None = None  # None: no small models on tasks whose answers are checked
    programs: Programs | None = None  # None: no small models that write programs

    @model_validator(mode="after")
    def _comparable(self):
        arms = ("sft", *self.arms)
        if self.arms and self.evaluation.against not in arms:
            raise ValueError(f"evaluation.against: {self.evaluation.against} is no arm; there are {', '.join(arms)}")
        if self.evaluation.against in self.arms and not self.arms[self.evaluation.against].swept:
            raise ValueError(f"arms.{self.evaluation.against}.swept: must be true; other fronts are compared with its")
        online = {f"online.{name}": rounds.arm for name, rounds in self.online.items()}
        for name, arm in {**{f"arms.{name}": arm for name, arm in self.arms.items()}, **online}.items():
            if unknown := arm.spaces() - self.spaces.choices().keys():
                raise ValueError(f"{name}: {unknown.pop()} is none of the spaces {', '.join(self.spaces.choices())}")
        if taken := {"gold", *arms} & set(self.online):
            raise ValueError(f"online: {taken.pop()} is the name of an arm; choose another name")
        if taken := {"gold", *arms, *self.online} & set(self.baselines):
            raise ValueError(f"baselines: {taken.pop()} is the name of an arm; choose another name")
        for name, arm in self.arms.items():
            if arm.against is not None and (arm.against == name or arm.against not in arms):
                raise ValueError(f"arms.{name}.against: {arm.against} is no other arm; there are {', '.join(arms)}")
        if self.arms and self.sampling.engine == "vllm":
            check_for_vllm(self.model, adapter=self.model.lora_r is not None)
        if any(baseline.engine == "vllm" for baseline in self.baselines.values()):
            check_for_vllm(self.model, adapter=False)
        if self.sampling.temperature in self.evaluation.temperatures:
            raise ValueError(
                f"evaluation.temperatures: {self.sampling.temperature} is `sampling.temperature`; leave it out"
            )
        if self.online_world and self.online_world.seeds > self.worlds.seeds:
            raise ValueError(f"online_world.seeds: at most {self.worlds.seeds}, as many as `worlds` has")
        return self


SUFFIXES = (".yaml", ".yml")
# what names an artifact's folder, a step on a command line, or a file in an artifact
NAME = re.compile(r"\w[\w .+-]*")
LONGEST = 100  # bytes of a name; a file system allows 255 for a folder, whose name has more parts
# fields that may hold the path of a file or folder; * stands for any name
FILES = (("data", "source"), ("data", "prompts"))
FOLDERS = (
    ("model", "name"),
    ("quality", "base"),
    ("baselines", "*", "model"),
    ("spaces", "*", "model"),
    ("spaces", "others", "*", "model"),
)

MODELS = ("name", "model", "base")  # fields that name a model, beside which `revision` stands


def swept(profile: Profile) -> tuple[str, ...]:
    """The arms that are sampled at other temperatures too, sft first; empty if the profile has no temperatures."""
    arms = [name for name, arm in profile.arms.items() if arm.swept]
    return ("sft", *arms) if arms and profile.evaluation.temperatures else ()


def seeds_of(profile: Profile, name: str) -> int:
    """Number of trainings, one per seed, of an arm or of "sft"."""
    most = profile.arms[name].seeds if name in profile.arms else None
    return min(most or profile.seeds, profile.seeds)


def prompts_of(profile: Profile, name: str) -> int | None:
    """The most held-out prompts that "sft", an arm or a baseline is sampled for; None: all.

    The name "sweep" asks for the number at the other temperatures.
    """
    if name in ("sft", "sweep"):
        return profile.evaluation.sft_prompts if name == "sft" else profile.evaluation.sweep_prompts
    sampled = {**profile.arms, **{name: online.arm for name, online in profile.online.items()}, **profile.baselines}
    return sampled[name].prompts


def twins(profile: Profile) -> dict[str, str | None]:
    """For each arm, baseline and "gold" the arm that it is compared with; None if the profile has no such arm.

    An arm's `against` comes first. Otherwise a weighted arm is compared with the arm that has the same settings and no
    weights, an arm with another rule of pairs (DivPO, ReDiPO) or another loss (`policy_beta`) with the same arm without
    it, and DPO and ORPO with sft. The twin of a weighted arm may differ in `best_first` and that of an arm with another
    rule in `equal_steps`, because these are part of what is tested. Baselines and gold are compared with
    `evaluation.against`.
    """
    against = {name: arm.against or _twin(arm, profile.arms) for name, arm in profile.arms.items()}
    others = dict.fromkeys(("gold", *profile.baselines), profile.evaluation.against)
    return {"sft": None, **against, **others} if profile.arms else {}


def _twin(arm: Arm, arms: dict[str, Arm]) -> str | None:
    """The first arm that differs only in weights, rule or loss, or else the first that also differs in `lenient`."""
    if not arm.weights and _is_plain(arm):
        return "sft"
    free = {"swept", "seeds", "prompts", "against"}  # change nothing in a training
    special, lenient = (
        ({"weights", "scale", "floor", "power", "rescale", "weight_of"}, "best_first")
        if arm.weights
        else ({"divpo", "redipo", "policy_beta"}, "equal_steps")
    )
    for ignored in (free | special, free | special | {lenient}):
        wanted = arm.model_dump(exclude=ignored)
        for name, other in arms.items():
            bare = not other.weights and (bool(arm.weights) or _is_plain(other))
            if bare and other.model_dump(exclude=ignored) == wanted:
                return name
    return None


def _is_plain(arm: Arm) -> bool:
    """Whether its pairs follow the gap rule, and its loss is that of the paper."""
    return not (arm.divpo or arm.redipo or arm.policy_beta)


def names() -> list[str]:
    """The profiles that come with the package."""
    return sorted(file.stem for file in _folder().iterdir() if file.suffix == ".yaml")


def load_profile(name: str | Path) -> Profile:
    """Read and check a profile.

    Args:
        name: a profile of the package, or the path of a YAML file.

    Raises:
        InputError: no such profile, not YAML, an unknown knob, or a value that is not allowed; names file and field.
    """
    file, content = _resolve(str(name))
    try:
        profile = Profile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        knob = ".".join(map(str, first["loc"])) or "(top level)"
        if first["type"] == "extra_forbidden":
            raise InputError(f"{file}, field `{knob}`: unknown knob; compare ddpo_lib/profiles/embedded.yaml") from None
        got = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f", got {first['input']!r}"
        raise InputError(f"{file}, field `{knob}`: {first['msg']}{got}") from None
    _check_names(file, profile)
    return profile


def absolute(name: str | Path) -> str:
    """A profile by a name that means the same in every folder: the absolute path of a YAML file, or the name itself."""
    return str(Path(name).absolute() if Path(name).suffix in SUFFIXES else name)


def _check_names(file: Path, profile: Profile) -> None:
    """Refuse names that would lead out of the run folder, or that no folder can have."""
    spaces, worlds = profile.spaces.others, profile.worlds
    named = {"name": [profile.name], "arms": profile.arms, "online": profile.online, "baselines": profile.baselines}
    named |= {"spaces.others": spaces, "worlds.kinds": worlds.kinds, "worlds.rows": worlds.rows}
    optional = {name: getattr(profile, name) for name in ("online_world", "rewards", "domains", "programs")}
    named |= {f"{name}.rows": section.rows for name, section in optional.items() if section}
    for field, names in named.items():
        for name in names:
            if not NAME.fullmatch(name) or len(name.encode()) > LONGEST:
                raise InputError(
                    f"{file}, field `{field}`: {name!r} cannot name a folder; use letters, digits, blanks and _ . + -, "
                    f"begin with a letter or a digit, and use at most {LONGEST} bytes"
                )


def _resolve(name: str, extended_by: tuple[Path, ...] = ()) -> tuple[Path, dict]:
    """A profile's file and its content, with what it extends merged in.

    `extends` looks for a YAML file in the folder of the profile that extends it.
    """
    where = f"{extended_by[-1]}, field `extends`" if extended_by else "profile"
    if Path(name).suffix in SUFFIXES:
        file = extended_by[-1].parent / name if extended_by else Path(name)
    else:
        file = Path(str(_folder() / f"{name}.yaml"))
    if not _is_path(name):
        raise InputError(f"{where}: a name that no file can have ({name[:40]!r} ...); name a profile or a YAML file")
    if not file.is_file():
        raise InputError(f"{where} {name}: no such profile; there are {', '.join(names())}, or give a YAML file")
    if file in extended_by:
        raise InputError(f"{where}: {name} extends itself; name another profile")
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), PlainYaml)
    except RecursionError:
        raise InputError(f"{file}: not a profile: its lists or mappings are nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # ValueError: not UTF-8, or a date that is none
        raise InputError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a mapping of knobs, got {type(content).__name__}")
    base = content.pop("extends", None)
    content = _with_absolute_paths(content, file)
    if base is None:
        return file, content
    return file, _merge(_resolve(str(base), (*extended_by, file))[1], content)


def _with_absolute_paths(value, file: Path, field: tuple[str, ...] = ()):
    """A profile's content in which paths that begin at the folder of its file are absolute.

    Raises:
        InputError: a path that leads to a file or folder from the current folder only; other processes of a run start
            elsewhere.
    """
    if isinstance(value, dict):
        return {key: _with_absolute_paths(inner, file, (*field, key)) for key, inner in value.items()}
    is_file = field in FILES and value != "package"
    is_folder = any(_matches(field, pattern) for pattern in FOLDERS) and "/" in str(value)
    if not isinstance(value, str) or not (is_file or is_folder) or Path(value).is_absolute():
        return value
    if not _is_path(value):
        raise InputError(
            f"{file}, field `{'.'.join(map(str, field))}`: a path that no file can have ({value[:40]!r} ...)"
        )
    place, is_there = file.parent.resolve() / value, Path.is_file if is_file else Path.is_dir
    if not is_there(place) and is_there(Path(value)) and file.parent != Path(str(_folder())):
        raise InputError(
            f"{file}, field `{'.'.join(map(str, field))}`: there is no {place}; a relative path in a profile "
            f"begins at the folder of the profile, so write {os.path.relpath(value, file.parent)} or an absolute path"
        )
    return str(place) if is_there(place) else value


def _is_path(name: str) -> bool:
    """Whether the system can look for such a path."""
    try:
        parts = [os.fsencode(part) for part in Path(name).parts]
    except UnicodeEncodeError:  # half of a character
        return False
    return "\0" not in name and sum(map(len, parts)) < 3000 and all(len(part) < 250 for part in parts)


def _matches(field: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(field) == len(pattern) and all(part in ("*", key) for key, part in zip(field, pattern, strict=True))


def _merge(base: dict, change: dict) -> dict:
    merged = dict(base)
    other_model = any(change.get(key, base.get(key)) != base.get(key) for key in MODELS)
    if "revision" in base and other_model:  # a revision, and trust in it, belong to one model
        merged = {key: value for key, value in base.items() if key not in ("revision", "trust_remote_code")}
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and key not in ("arms", "online", "others")
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _folder():
    return resources.files("ddpo_lib") / "profiles"
