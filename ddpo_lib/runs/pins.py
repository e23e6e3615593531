"""The hub's names in a profile -> commits. A run resolves each of them once, and keeps to it.

The name of a hub model or data set stands for whatever its owner uploaded last. A run therefore writes the commits that
it resolved into `versions.json` in its folder, and reads them from there ever after. Its jobs load these commits, on
other machines too. To move a run to newer ones, delete the file, or name a `revision` in the profile.
"""

import json
import logging
import os
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import write_json
from ddpo_lib.base.locks import lease
from ddpo_lib.data.formats import is_hub_name
from ddpo_lib.models.models import WHEELS
from ddpo_lib.models.versions import COMMIT, Kind, find_commit, known_commit
from ddpo_lib.profiles.profile import Profile
from ddpo_lib.spaces.embed import COUNTED

log = logging.getLogger(__name__)

FILE = "versions.json"


def pin(profile: Profile, source: str, folder: Path, *, ask: bool = True) -> tuple[Profile, str]:
    """A profile and a corpus in which a commit stands for every revision of the hub.

    Args:
        profile, source: of the run.
        folder: of the run; its `versions.json` is read, and written if something is resolved.
        ask: whether the hub is asked for what is neither in that file nor in the hub's cache on this machine. Without
            it, nothing is written.

    Returns:
        The profile and the source. A name stays as it is if its commit cannot be found; a step that loads it fails.
    """
    pins = _Pins(folder, ask)
    spaces, quality = profile.spaces, profile.quality
    fixed = profile.model_copy(
        update={
            "model": pins.model(profile.model),
            "quality": pins.model(quality, "base") if quality.kind == "reward-model" else quality,
            "spaces": spaces.model_copy(
                update={
                    "semantic": pins.model(spaces.semantic, "model"),
                    "style": pins.model(spaces.style, "model"),
                    "others": {name: pins.model(space, "model") for name, space in spaces.others.items()},
                }
            ),
            "baselines": {
                name: baseline if baseline.engine == "server" else pins.model(baseline, "model")
                for name, baseline in profile.baselines.items()
            },
        }
    )
    if is_hub_name(source):
        name, _, revision = source.partition("@")
        source = f"{name}@{commit}" if (commit := pins.commit(name, revision or None, "dataset")) else source
    pins.save()
    return fixed, source


def stay_offline(profile: Profile, source: str) -> None:
    """Tell the libraries below not to ask the hub, if a profile and its corpus name nothing there.

    PEFT asks it for an adapter's base whenever the adapter is saved, also for an embedded model. This process and those
    that it starts are told by HF_HUB_OFFLINE, unless the user has set it.
    """
    quality = profile.quality
    named = [profile.model.name, *(space.model for space in profile.spaces.choices().values())]
    named += [quality.base] if quality.kind == "reward-model" else []
    named += [b.model for b in profile.baselines.values() if b.engine != "server"]
    if not is_hub_name(source) and all(_is_here(name) for name in named):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _is_here(name: str | None) -> bool:
    """Whether a model is in the package, counted, or a folder; None is the profile's own."""
    return name is None or name in WHEELS or name in COUNTED or Path(name).exists()


class _Pins:
    """The commits that a run has resolved."""

    def __init__(self, folder: Path, ask: bool):
        self.file, self.ask = folder / FILE, ask
        self.known = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
        self.new: dict[str, str] = {}

    def model(self, section, field: str = "name"):
        """A section of a profile that names a model in `field`, with a commit as its `revision`."""
        name = getattr(section, field)
        if _is_here(name):
            return section
        commit = self.commit(name, section.revision, "model")
        return section.model_copy(update={"revision": commit}) if commit else section

    def commit(self, name: str, revision: str | None, kind: Kind) -> str | None:
        if COMMIT.fullmatch(revision or ""):
            return revision
        key = f"{kind} {name}@{revision or 'main'}"
        if key not in {**self.known, **self.new}:
            try:
                found = (find_commit if self.ask else known_commit)(name, revision, kind)
            except InputError as error:
                log.warning("%s", error)
                found = None
            if found is None:
                return None
            self.new[key] = found
        return {**self.known, **self.new}[key]

    def save(self) -> None:
        if not self.new or not self.ask:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with lease(Path(f"{self.file}.lock")):
            others = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}
            aside = self.file.with_suffix(".partial")
            write_json(aside, self.new | others)  # what another process resolved first stays
            aside.replace(self.file)
