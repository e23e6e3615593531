"""Every knob of a run in one typed, frozen object, read from YAML and checked once.

A profile is a file of `ddpo_lib/profiles/`, or any YAML file of that form. `extends: NAME` starts from another
profile and changes what it names. Mappings are merged, except `arms`, `online` and `others`; these and all other values
are replaced.
"""

from importlib import resources
from pathlib import Path

import yaml
from pydantic import ValidationError, model_validator

from ddpo_lib.base.errors import InputError
from ddpo_lib.profiles.settings import (
    Arm,
    Baseline,
    Data,
    Evaluation,
    Model,
    Online,
    Optimiser,
    Positive,
    Preference,
    Quality,
    Sampling,
    Section,
    Spaces,
)
from ddpo_lib.profiles.world_settings import Worlds


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
        if self.sampling.temperature in self.evaluation.temperatures:
            raise ValueError(
                f"evaluation.temperatures: {self.sampling.temperature} is `sampling.temperature`; leave it out"
            )
        return self


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
    weights, a DivPO arm with the same arm under the gap rule, and DPO and ORPO with sft. The twin of a weighted arm may
    differ in `best_first` and that of a DivPO arm in `equal_steps`, because these are part of what is tested. Baselines
    and gold are compared with `evaluation.against`.
    """
    against = {name: arm.against or _twin(arm, profile.arms) for name, arm in profile.arms.items()}
    others = dict.fromkeys(("gold", *profile.baselines), profile.evaluation.against)
    return {"sft": None, **against, **others} if profile.arms else {}


def _twin(arm: Arm, arms: dict[str, Arm]) -> str | None:
    """The first arm that differs only in weights or DivPO's rule, or else the first that also differs in `lenient`."""
    if not arm.weights and not arm.divpo:
        return "sft"
    free = {"swept", "seeds", "prompts", "against"}  # change nothing in a training
    special, lenient = (
        ({"weights", "scale", "floor", "power", "rescale"}, "best_first") if arm.weights else ({"divpo"}, "equal_steps")
    )
    for ignored in (free | special, free | special | {lenient}):
        wanted = arm.model_dump(exclude=ignored)
        for name, other in arms.items():
            bare = not other.weights and (bool(arm.weights) or not other.divpo)
            if bare and other.model_dump(exclude=ignored) == wanted:
                return name
    return None


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
        return Profile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        knob = ".".join(map(str, first["loc"])) or "(top level)"
        if first["type"] == "extra_forbidden":
            raise InputError(f"{file}, field `{knob}`: unknown knob; compare ddpo_lib/profiles/embedded.yaml") from None
        got = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f", got {first['input']!r}"
        raise InputError(f"{file}, field `{knob}`: {first['msg']}{got}") from None


def _resolve(name: str, extended_by: tuple[Path, ...] = ()) -> tuple[Path, dict]:
    """A profile's file and its content, with what it extends merged in.

    `extends` looks for a YAML file in the folder of the profile that extends it.
    """
    where = f"{extended_by[-1]}, field `extends`" if extended_by else "profile"
    if Path(name).suffix in (".yaml", ".yml"):
        file = extended_by[-1].parent / name if extended_by else Path(name)
    else:
        file = Path(str(_folder() / f"{name}.yaml"))
    if not file.exists():
        raise InputError(f"{where} {name}: no such profile; there are {', '.join(names())}, or give a YAML file")
    if file in extended_by:
        raise InputError(f"{where}: {name} extends itself; name another profile")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a mapping of knobs, got {type(content).__name__}")
    base = content.pop("extends", None)
    if base is None:
        return file, content
    return file, _merge(_resolve(str(base), (*extended_by, file))[1], content)


def _merge(base: dict, change: dict) -> dict:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and key not in ("arms", "online", "others")
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _folder():
    return resources.files("ddpo_lib") / "profiles"
