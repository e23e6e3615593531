"""Checkpoints: which are whole, which arm they belong to, and which is the last one that a training can resume from.

`checkpoint.json` in a checkpoint's folder is written when all its other files are on disk. It lists them with their
sizes, so a checkpoint that a kill, a full disk or a power failure left incomplete is known and passed over.
"""

import json
import logging
import os
import re
import shutil
from pathlib import Path

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import read_mapping, sync

log = logging.getLogger(__name__)

FILE = "checkpoint.json"


class WholeCheckpoints:
    """For a trainer of transformers: marks checkpoints as whole, and resumes only from whole ones.

    An older checkpoint is removed when the new one is whole. Which one is older is decided by steps; transformers
    decides by the clock and removes the new one if the clock was set back.
    """

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        """As transformers' `train`; `resume_from_checkpoint=True` resumes from the last whole checkpoint.

        Raises:
            ValueError: the checkpoint to resume from belongs to another arm.
        """
        folder = Path(self.args.output_dir)
        if resume_from_checkpoint is True and any(folder.glob("checkpoint-*")):
            resume_from_checkpoint = last_whole(folder)
        if resume_from_checkpoint and resume_from_checkpoint is not True:
            mark = read_mapping(Path(resume_from_checkpoint) / FILE)
            if arm := self._arm():
                _check_arm(Path(resume_from_checkpoint), mark.get("arm"), arm)
            self._total_train_tokens = mark.get("tokens", 0)  # TRL begins at 0 again
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial))
        place = folder / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(place, ignore_errors=True)  # an earlier call may have left it incomplete
        self.accelerator.wait_for_everyone()
        most, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = most
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            _mark(place, {"tokens": getattr(self, "_total_train_tokens", 0), "arm": self._arm()})
            best = self.state.best_model_checkpoint
            _remove_all_but(most, place, folder / Path(best).name if best else place)

    def _arm(self) -> dict | None:
        """What distinguishes this training from others on the same data, None: nothing; see `_check_arm`."""
        return None


def last_whole(folder: Path) -> Path | None:
    """The last whole checkpoint of a folder; None if there is none. Others are passed over, and a line says why.

    A checkpoint at which training stopped early is passed over too: transformers would take another step. From the one
    before it, training stops at the same step again.
    """
    for place in _newest_first(folder):
        reason = _unfit(place)
        if reason is None:
            return place
        log.warning("%s: %s; it is passed over", place, reason)
    return None


def _check_arm(checkpoint: Path, there: dict | None, arm: dict) -> None:
    """Raise a ValueError that names the first setting, or the first weight, that differs from the checkpoint's arm."""
    if there is None:
        raise ValueError(f"resume_from_checkpoint: {checkpoint} holds no arm; no DeviationTrainer wrote it")
    for name, value in arm.items():
        if name not in there or there[name] != value:
            difference = _difference(there.get(name), value)
            raise ValueError(f"resume_from_checkpoint: {checkpoint} is of another arm: {name} {difference}")


def _mark(place: Path, facts: dict) -> None:
    sync(place)
    files = sorted(file for file in place.rglob("*") if file.is_file())
    sizes = {str(file.relative_to(place)): file.stat().st_size for file in files}
    aside = place / f"{FILE}.partial"
    aside.write_text(json.dumps({"files": sizes, **facts}), encoding="utf-8")
    aside.replace(place / FILE)


def _remove_all_but(most: int | None, new: Path, best: Path) -> None:
    """Keep `most` checkpoints (None: all), the new one and the best one among them; none of a later step is kept."""
    kept = {new, best}
    others = [place for place in _newest_first(new.parent) if place not in kept]
    earlier = [place for place in others if _step(place) < _step(new)]
    spared = earlier if most is None else earlier[: max(0, most - len(kept))]
    for place in others:
        if place not in spared:
            shutil.rmtree(place, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    found = [place for place in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", place.name)]
    return sorted(found, key=_step, reverse=True)


def _step(place: Path) -> int:
    return int(place.name.removeprefix("checkpoint-"))


def _unfit(place: Path) -> str | None:
    """Why training cannot resume from a checkpoint as if it had not been interrupted; None if it can."""
    if torn := _torn(place):
        return torn
    state = read_mapping(place / "trainer_state.json")
    if not _is_state(state):
        raise InputError(f"{place}: trainer_state.json is not as a trainer writes it; remove this folder")
    if best := state.get("best_model_checkpoint"):
        beside = place.parent / Path(best).name
        if Path(best).resolve() != beside.resolve() or _torn(beside):
            return f"the best checkpoint so far, {best}, is not there"
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    if control.get("should_training_stop") and state["global_step"] < state["max_steps"]:
        return "training stopped early here"
    return None


def _torn(place: Path) -> str | None:
    files = read_mapping(place / FILE).get("files")
    if files is None:
        return f"is incomplete (no {FILE})"
    if not _are_sizes(files):
        raise InputError(f"{place}: {FILE} is not as a trainer writes it; remove this folder")
    for name, size in files.items():
        found = (place / name).stat().st_size if (place / name).is_file() else None
        if found != size:
            return f"is incomplete ({name} has {found} of {size} bytes)" if found is not None else f"has no {name}"
    return None


def _are_sizes(files) -> bool:
    return isinstance(files, dict) and all(map(_is_path, files))


def _is_path(name: str) -> bool:
    """Whether a system can look for such a path."""
    try:
        parts = [os.fsencode(part) for part in Path(name).parts]
    except UnicodeEncodeError:
        return False
    return "\0" not in name and len(os.fsencode(name)) < 1000 and all(len(part) < 256 for part in parts)


def _is_state(state: dict) -> bool:
    """Whether a trainer's state has the fields that are read here, each of its kind."""
    best, callbacks = state.get("best_model_checkpoint"), state.get("stateful_callbacks", {})
    control = callbacks.get("TrainerControl", {}) if isinstance(callbacks, dict) else None
    mapped = isinstance(control, dict) and isinstance(control.get("args", {}), dict)
    counted = all(type(state.get(name)) is int for name in ("global_step", "max_steps"))
    return mapped and counted and (best is None or (isinstance(best, str) and _is_path(best)))


def _difference(there, here) -> str:
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        row = next(row for row, (one, other) in enumerate(zip(there, here, strict=True)) if one != other)
        return f"of row {row} is {there[row]} there and {here[row]} here"
    there, here = (f"a list of {len(value)}" if isinstance(value, list) else value for value in (there, here))
    return f"is {there} there and {here} here"
