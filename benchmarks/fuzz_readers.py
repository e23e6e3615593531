"""What reads a file that a user brings, or that a kill or a failing disk may damage, with files to begin from.

A reader either reads a file or raises `InputError`; any other error is a fault. `mutate` changes a file as damage and
strange tools do.
"""

import io
import json
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from ddpo_lib.base.errors import InputError
from ddpo_lib.people.answers import COLUMNS

GROUPED = {
    "prompt": "Sea",
    "responses": [{"text": "Blue.", "score": 12}, {"text": "Deep.", "score": None, "source": "a"}],
}
RAW = {"post_title": "[WP] Sea", "post_text": "", "comment_texts": ["Blue.", "[removed]"], "comment_scores": [3, 1]}
TOKENS = [  # what damage and strange tools leave in a file
    *(
        b"null",
        b"true",
        b"NaN",
        b"1e999",
        b"-1",
        b"0",
        b"1e-999",
        b"9" * 5000,
        b"[]",
        b"{}",
        b"[" * 3000,
        b'{"a":' * 3000,
    ),
    *(
        b'"',
        b"'",
        b"\\",
        b"\n",
        b"\r\n",
        b"\r",
        b"\t",
        b"\x00",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"\xef\xbb\xbf",
    ),
    *(
        b"\xe2\x80\xa8",
        b"\x1e",
        b",",
        b": ",
        b"- ",
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!python/object:os.system ",
        b"2026-11-29",
    ),
    *(
        b"? ",
        b"| ",
        b"> ",
        b"%",
        b"@",
        b"#",
        b"!!binary ",
        b"!!set ",
        b"~",
        b"1_000",
        b"0x1F",
        b"12:30:45",
        b".inf",
        b".nan",
    ),
    *(
        b'"text"',
        b'"score"',
        b'"prompt"',
        b'"responses"',
        b'"source"',
        b'"finished"',
        b'"post_title"',
        b'"comment_texts"',
    ),
    *(
        b'"round"',
        b'"completions"',
        b'"files"',
        b'"arms"',
        b'"items"',
        b'"user_id"',
        b'"key"',
        b"PAR1",
        b"\x80\x04",
        b"PK",
    ),
]


@dataclass(frozen=True)
class Reader:
    """What reads files of one kind.

    Attributes:
        seeds: the content of files that can be read.
        read: reads a file.
        name: of the file.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    name: str


def mutate(content: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """A few changes: something inserted, cut, overwritten, repeated, or taken from another file of the kind."""
    made = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        at, length = rng.randrange(len(made) + 1), rng.choice([1, 2, 4, 12, 60])
        change = rng.randrange(6)
        if change == 0:
            made[at:at] = rng.choice(TOKENS)
        elif change == 1:
            del made[at : at + length]
        elif change == 2:
            made[at : at + length] = rng.choice(TOKENS)
        elif change == 3:
            made[at : at + 1] = bytes([rng.randrange(256)])
        elif change == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            made[at:at] = other[start : start + length]
        else:
            del made[at:]
    return bytes(made)


def attempt(reader: Reader, content: bytes) -> str | None:
    """Read a file with this content; where and what a fault was, or None if it was read or refused as documented."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / reader.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        try:
            reader.read(file)
        except InputError as error:
            return None if str(error) else "an InputError without a word"
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "ddpo_lib" in frame.filename or frame is frames[0]][-1]
            return f"{Path(own.filename).name}:{own.lineno} {type(error).__name__}: {str(error)[:200]}"
    return None


def _lines(*records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def _parquet(table: pd.DataFrame, **attrs) -> bytes:
    table.attrs = attrs
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


def _corpus(file: Path) -> object:
    from ddpo_lib.data.corpus import read_corpus

    return read_corpus(file)


def _prompts(file: Path) -> object:
    from ddpo_lib.data.corpus import read_prompts

    return read_prompts(file, held_out=0.4, seed=0)


def _profile(file: Path) -> object:
    from ddpo_lib.profiles.profile import load_profile

    return load_profile(str(file))


def _answers(file: Path) -> object:
    """Potato's file of an annotator, with a sound key beside it."""
    from ddpo_lib.people.answers import read_answers

    study = file.parents[3]
    if not (study / "key.json").exists():
        (study / "key.json").write_bytes(KEY)
    return read_answers(study)


def _key(file: Path) -> object:
    from ddpo_lib.people.answers import read_answers, read_items

    if not (file.parent / "stories.jsonl").exists():
        (file.parent / "stories.jsonl").write_bytes(STORIES)
    read_answers(file.parent)
    return read_items(file.parent)


def _stories(file: Path) -> object:
    from ddpo_lib.people.answers import read_items

    if not (file.parent / "key.json").exists():
        (file.parent / "key.json").write_bytes(KEY)
    return read_items(file.parent)


def _journal(file: Path) -> object:
    from ddpo_lib.sampling.journal import Journal

    with Journal(file, {"seed": 0}) as journal:
        return journal.round(0)


def _checkpoint(file: Path) -> object:
    """A mark and a state that name each other's sizes, whatever the state is."""
    from ddpo_lib.training.checkpoints import FILE, last_whole

    sizes = {"files": {file.name: file.stat().st_size}}
    (file.parent / FILE).write_text(json.dumps(sizes))
    return last_whole(file.parents[1])


def _mark(file: Path) -> object:
    from ddpo_lib.training.checkpoints import last_whole

    return last_whole(file.parents[1])


def _weights(file: Path) -> object:
    from ddpo_lib.deviation.weights_table import read_weights

    return read_weights(file, "weight_both")


def _shard(file: Path) -> object:
    from ddpo_lib.deviation.weight_shards import merge

    return merge([file], file.with_name("merged.parquet"))


def _judged(file: Path) -> object:
    from ddpo_lib.people.judge import read_judged

    return read_judged(file)


def _manifest(file: Path) -> object:
    from ddpo_lib.base.run_folder import Run

    return Run(file.parents[1], {}).manifest(file.parent.name).get("key")


def _seen(file: Path) -> object:
    from ddpo_lib.data.seen_prompts import read

    return read(file.parent)


def _begun(file: Path) -> object:
    from ddpo_lib.base.unfinished import continue_or_begin

    return continue_or_begin(file.parent, {"seed": 0})


ITEM = {
    "prompt_id": "p1",
    "prompt": "Sea",
    "attention": False,
    "first_side": "left",
    "stories": [{"arm": arm, "sample": s} for arm in ("a", "b") for s in range(4)],
}
KEY = json.dumps({"arms": ["a", "b"], "items": {"item1": ITEM, "item2": ITEM | {"attention": True}}}).encode()
STORIES = _lines(
    *(
        {"prompt_id": "p1", "prompt": "Sea", "arm": arm, "sample": s, "text": "Blue.", "shown": "Blue."}
        for arm in ("a", "b")
        for s in range(4)
    )
)
STATE = json.dumps(
    {
        "user_id": "ann",
        "instance_id_to_label_to_value": {
            "item1": [[{"schema": "quality", "name": "3"}, "3"], [{"schema": "diversity", "name": "Set A"}, "Set A"]]
        },
        "instance_id_to_behavioral_data": {"item1": {"total_time_ms": 1200, "session_end": 1.7e9}},
    }
).encode()
ANSWER = {"round": 0, "prompt": 1, "completions": [{"text": "Blue.", "tokens": 2, "reason": "stop"}]}
TABLE = pd.DataFrame(
    {
        "prompt_id": ["p00000", "p00000", "p00001", "p00001"],
        "response_id": ["a", "b", "c", "d"],
        "prompt": ["Sea", "Sea", "Sky", "Sky"],
        "text": ["Blue.", "Deep.", "High.", "Grey."],
        "score": [1.0, 2.0, None, 4.0],
        "source": [""] * 4,
        "split": ["train", "train", "test", "test"],
        "weight_both": [0.5, 1.5, 1.0, 1.0],
    }
)
JUDGED = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)
ODD = {  # columns as other tools leave them
    "prompt": [1, 2, 3, 4],
    "text": [["Blue."], [], None, ["a", "b"]],
    "score": ["1", "x", None, ""],
    "prompt_id": pd.Categorical(["a", "a", "b", "b"]),
    "split": pd.to_datetime(["2026-11-29"] * 4),
    "weight_both": [{"a": 1}] * 4,
    "response_id": [None] * 4,
}
YAML = b"extends: smoke\nname: mine\nwhat: a change\ndata: {gap: 3.0}\narms: {dpo: {loss: dpo, start: sft}}\n"
CSV = b"prompt,text,score\nSea,Blue.,1\nSea,Deep.,2\n"
CORPORA = (_lines(GROUPED, GROUPED), _lines(RAW), json.dumps([GROUPED, RAW]).encode(), CSV)
TRAINER_STATE = {"global_step": 3, "max_steps": 9, "best_model_checkpoint": None, "stateful_callbacks": {}}
GROUPS = pd.DataFrame({"prompt": ["Sea", "Sky"], "responses": [GROUPED["responses"]] * 2})
READERS = {
    "corpus, JSON and CSV": Reader(CORPORA, _corpus, "corpus.jsonl"),
    "prompts": Reader((*CORPORA, _lines({"prompt": "Sea"})), _prompts, "prompts.jsonl"),
    "corpus, Parquet": Reader((_parquet(GROUPS), _parquet(TABLE)), _corpus, "corpus.parquet"),
    "profile": Reader((YAML, b"extends: embedded\nname: a\nwhat: b\nseeds: 2\n"), _profile, "mine.yaml"),
    "Potato's answers": Reader((STATE,), _answers, "study/annotation_output/ann/user_state.json"),
    "key of a study": Reader((KEY,), _key, "key.json"),
    "stories of a study": Reader((STORIES,), _stories, "stories.jsonl"),
    "answers of a judge": Reader(
        (_parquet(JUDGED, judge={"name": "x"}, counts={"asked": 2}),), _judged, "judge.parquet"
    ),
    "journal": Reader((_lines({"seed": 0}, ANSWER, ANSWER | {"prompt": 2}),), _journal, "journal.jsonl"),
    "checkpoint's state": Reader((json.dumps(TRAINER_STATE).encode(),), _checkpoint, "checkpoint-3/trainer_state.json"),
    "checkpoint's mark": Reader(
        (b'{"files": {"checkpoint.json": 9}, "tokens": 3}',), _mark, "checkpoint-3/checkpoint.json"
    ),
    "unfinished work": Reader((b'{"seed": 0, "data": "abc"}',), _begun, "checkpoints/begun.json"),
    "table of weights": Reader(
        (_parquet(TABLE), *(_parquet(TABLE.assign(**{name: odd})) for name, odd in ODD.items())), _weights, "w.parquet"
    ),
    "shard of weights": Reader((_parquet(TABLE, shard={"k": 1, "n": 1, "of": ["x"]}),), _shard, "part.parquet"),
    "manifest": Reader((b'{"name": "sft", "key": "abc", "seconds": 1.5}',), _manifest, "sft/manifest.json"),
    "list of seen prompts": Reader((b'["abc", "def"]',), _seen, "seen_prompts.json"),
}
