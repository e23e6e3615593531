"""Which code an artifact depends on: what a function reaches, and what an edit of the library makes stale."""

import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml

from ddpo_lib.base import code_keys
from ddpo_lib.base.code_keys import code_key
from ddpo_lib.base.errors import InputError
from ddpo_lib.base.run_folder import Run
from ddpo_lib.profiles.profile import load_profile
from ddpo_lib.runs.pipeline import open_run

LOW = '"""What it is."""\n\n\ndef one(x):\n    """One more."""\n    return x + 1\n\n\ndef two():\n    return 2\n'
START = "from ddpo_lib.low import one\n\n\ndef start():\n    return one(1)\n"


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Writes a library of the test's own and returns its function `high.start`: `library(high=..., low=...)`."""
    made = []

    def write(**modules):
        folder = tmp_path / str(len(made)) / "ddpo_lib"
        made.append(folder)
        for name, source in {"__init__": "", **modules}.items():
            file = folder.joinpath(*name.split("__in__")).with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
        monkeypatch.setattr(code_keys, "LIBRARY", folder)
        names = {}
        exec(compile("def start(): pass", str(folder / "high.py"), "exec"), names)
        return names["start"]

    return write


# What counts as code


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("What it is.", "What it was."),
        ("One more.", "Adds one.\n\n    Says more."),
        ('    """One more."""\n', ""),
        ("return x", "# why\n    return x"),
        ("x + 1", "(x  +  1)"),
        ("one(x)", "one(x: int) -> int"),
        ("return 2", "return 3"),  # of a function that nothing here calls
    ],
)
def test_words_annotations_and_what_is_not_reached_do_not_count(library, old, new):
    before = code_key(library(high=START, low=LOW))
    assert LOW.replace(old, new) != LOW
    assert code_key(library(high=START, low=LOW.replace(old, new))) == before


@pytest.mark.parametrize(
    ("line", "reworded"),
    [
        ("raise ValueError(f'{x} is bad')", "raise ValueError(f'{x}: expected a number') from None"),
        ("log.info('made %s', x)", "log.warning('made it')"),
    ],
)
def test_the_words_of_errors_and_log_lines_do_not_count(library, line, reworded):
    low = "import logging\n\nlog = logging.getLogger(__name__)\n\n\ndef one(x):\n    if x < (y := 0):\n        {}\n"
    keys = [code_key(library(high=START, low=low.format(said))) for said in (line, reworded, "return 0")]
    assert keys[0] == keys[1] != keys[2]


GUARDED = """
class SmallError(ValueError):
    pass


def two(x):
    return {limit}


def one(x):
    {guard}
    return x + 1
"""
GUARD = "if x < two(x):\n        raise ValueError(f'{x} is too small')"


@pytest.mark.parametrize(
    ("guard", "counts"),
    [
        (GUARD, False),
        (GUARD.replace("x <", "x <="), False),
        (GUARD.replace("ValueError", "TypeError"), False),
        (GUARD.replace("two(x)", "(y := two(x))"), True),
        (f"{GUARD}\n        x = 0", True),
        (GUARD.replace("raise", "x = 0\n        raise"), True),
        (f"{GUARD}\n    else:\n        x = 0", True),
        (f"{GUARD}\n    elif x > 9:\n        raise ValueError('too large')", True),
        (GUARD.replace("ValueError", "SmallError"), True),  # code may catch it and go on
        ("try:\n        if x < two(x):\n            raise ValueError\n    except ValueError:\n        x = 0", True),
        ("two(x)", True),  # a call of a function that may raise
    ],
)
def test_a_guard_and_what_only_it_reaches_do_not_count(library, guard, counts):
    low = GUARDED.replace("{limit}", "0").replace("{guard}", guard)
    found = code_key(library(high=START, low=low))
    assert (found != code_key(library(high=START, low=LOW))) == counts
    assert (found != code_key(library(high=START, low=low.replace("return 0", "return 1")))) == counts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x + 1", "x + 2"),
        ("return x + 1", "return 'a string that counts'"),
        ("one(x)", "one(x, y=0)"),
        ("return x + 1", "return two()"),
        ("def one", "@two\ndef one"),
    ],
)
def test_what_code_does_counts(library, old, new):
    before = code_key(library(high=START, low=LOW))
    assert code_key(library(high=START, low=LOW.replace(old, new, 1))) != before


@pytest.mark.parametrize("constants", ["None 0", "0 ''", "'' False", "False []", "1 1.0", "'1' 1"])
def test_constants_of_another_kind_are_other_code(library, constants):
    keys = {code_key(library(high=f"def start():\n    return f({value})\n"))["code"] for value in constants.split()}
    assert len(keys) == 2


WAYS = [
    START,
    "from ddpo_lib import low\n\n\ndef start():\n    return low.one(1)\n",
    "from ddpo_lib import low as deep\n\n\ndef start():\n    return deep.one(1)\n",
    "def start():\n    from ddpo_lib.low import one as other\n    return other(1)\n",
    "import ddpo_lib.low\n\n\ndef start():\n    return ddpo_lib.low.one(1)\n",
    "from .low import one\n\n\ndef start():\n    return one(1)\n",
    "from . import low\n\n\ndef start():\n    return low.one(1)\n",
    "from ddpo_lib.middle import one\n\n\ndef start():\n    return one(1)\n",
]


def test_a_name_that_the_library_imports_when_it_is_used_leads_to_its_definition(library):
    lazy = {"low": LOW, "__init__": '_MODULES = {"one": "low"}\n'}
    high = START.replace("ddpo_lib.low", "ddpo_lib")
    assert code_key(library(high=high, **lazy)) == code_key(library(high=START, low=LOW))


def test_the_way_of_an_import_and_the_place_of_a_module_do_not_count(library):
    middle = "from ddpo_lib.low import one\n"
    keys = [code_key(library(high=high, low=LOW, middle=middle)) for high in WAYS]
    deep = START.replace("ddpo_lib.low", "ddpo_lib.room.lower")
    keys.append(code_key(library(high=deep, room__in__lower=LOW, room__in____init__='"""A room."""\n')))
    assert keys == keys[:1] * len(keys)


@pytest.mark.parametrize("high", WAYS)
def test_what_is_imported_counts_however_it_is_imported(library, high):
    middle = "from ddpo_lib.low import one\n"
    before = code_key(library(high=high, low=LOW, middle=middle))
    assert code_key(library(high=high, low=LOW.replace("+ 1", "+ 2"), middle=middle)) != before


def test_two_functions_of_one_name_are_told_apart(library):
    low = {"low": LOW, "deep": LOW.replace("+ 1", "* 2")}

    def key(first, second, said="one(other(1))"):
        imports = f"from ddpo_lib.{first} import one\nfrom ddpo_lib.{second} import one as other\n"
        return code_key(library(high=f"{imports}\n\ndef start():\n    return {said}\n", **low))

    assert key("low", "deep") != key("deep", "low")
    assert key("low", "deep") == key("deep", "low", said="other(one(1))")


def test_modules_that_import_each_other_and_functions_that_call_each_other_have_a_key(library):
    high = "from ddpo_lib import low\n\n\ndef start(n):\n    return low.one(n)\n"
    low = "from ddpo_lib import high\n\n\ndef one(n):\n    return n and high.start(n - 1)\n"
    before = code_key(library(high=high, low=low))
    assert code_key(library(high=high, low=low.replace("n - 1", "n - 2"))) != before


@pytest.mark.parametrize(
    "high",
    [
        "from ddpo_lib.low import three\n\n\ndef start():\n    pass\n",
        "from ddpo_lib.lower import one\n\n\ndef start():\n    pass\n",
        "from ddpo_lib import lower\n\n\ndef start():\n    pass\n",
        "def start():\n    import ddpo_lib.lower\n",
        "def start():\n    from .lower import one\n",
        "from ddpo_lib import low\n\n\ndef start():\n    low.three()\n",
    ],
)
def test_an_import_that_leads_nowhere_is_an_error_that_names_the_file(library, high):
    start = library(high=high, low=LOW)
    with pytest.raises(InputError, match=r"high\.py: imports ddpo_lib\.low(er|\.three)"):
        code_key(start)


def test_a_module_that_is_passed_about_counts_whole(library):
    high = "from ddpo_lib import low\n\n\ndef start():\n    return dir(low)\n"
    before = code_key(library(high=high, low=LOW))
    assert code_key(library(high=high, low=LOW.replace("return 2", "return 3"))) != before


def test_what_runs_at_an_import_counts_with_whatever_is_reached_there(library):
    before = code_key(library(high=START, low=LOW))
    assert code_key(library(high=START, low=f"{LOW}\n\nprint('imported')\n")) != before


def test_a_module_that_is_unused_is_left_out(library):
    start = library(high=START, low=LOW)
    before, without = code_key(start), code_key(start, unused=("low",))
    start = library(high=START, low=LOW.replace("+ 1", "+ 2"))
    assert code_key(start) != before
    assert code_key(start, unused=("low",)) == without


def test_a_class_of_a_counted_field_that_lies_in_an_unused_module_ends_the_search(library):
    """Its method is used by name, and its module does not count; the search once looked for it for ever."""
    high = (
        "from ddpo_lib.low import Held\n\n\nclass Holder:\n    held: Held\n\n    def take(self):\n        "
        "return self.held.give()\n\n\ndef start(holder: Holder):\n    return holder.take()\n"
    )
    low = "class Held:\n    def give(self):\n        return 1\n"
    start = library(high=high, low=low)
    before, without = code_key(start), code_key(start, unused=("low",))
    start = library(high=high, low=low.replace("return 1", "return 2"))
    assert code_key(start) != before
    assert code_key(start, unused=("low",)) == without


TYPED = "from ddpo_lib.kinds import Box\n\n\ndef start(box: Box):\n    return box.{}()\n"
KINDS = """
class Size:
    def area(self):
        return 1

    def other(self):
        return 1


class Box:
    size: Size

    def volume(self):
        return self.size.area()

    def check(self):
        return 3
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("self.size.area()", "2 * self.size.area()", True),
        ("return 1\n\n    def other", "return 2\n\n    def other", True),  # a method of a field's type
        ("return 3", "return 4", False),
        ("size: Size\n", "size: Size\n    name: str\n", False),
    ],
)
def test_of_an_arguments_type_the_methods_that_are_used_count(library, old, new, counts):
    before = code_key(library(high=TYPED.format("volume"), kinds=KINDS))
    assert KINDS.replace(old, new, 1) != KINDS
    assert (code_key(library(high=TYPED.format("volume"), kinds=KINDS.replace(old, new, 1))) != before) == counts


def test_a_file_beside_a_module_counts_where_its_constant_is_reached(library):
    low = """
from pathlib import Path

TABLE = Path(__file__).with_name("table.py")
OTHER = Path(__file__).parent / "o.py"


def one(x):
    return TABLE.read_text()
"""
    found = code_key(library(high=START, low=low, table="1", o="1"))
    assert list(found["files"]) == ["table.py"]
    assert code_key(library(high=START, low=low, table="1", o="2")) == found
    assert code_key(library(high=START, low=low, table="2", o="1")) != found


def test_a_constant_that_hides_which_file_it_reads_is_an_error(library):
    low = "NAME = 'x'\nTABLE = open(__file__ + NAME)\n\n\ndef one(x):\n    return TABLE\n"
    with pytest.raises(InputError, match=r"low\.py: TABLE reads __file__; make it a path of plain strings"):
        code_key(library(high=START, low=low))


def test_the_minor_versions_of_what_is_used_count(library, monkeypatch):
    low = "import numpy as np\nimport pandas as pd\n\n\ndef one(x):\n    return np.abs(x)\n"
    start = library(high=START, low=low)
    found = code_key(start)
    assert found["packages"] == {"numpy": code_keys._minor("numpy")}
    monkeypatch.setattr(code_keys, "_minor", lambda package: "99.1")
    assert code_key(start)["packages"] == {"numpy": "99.1"}


def test_a_notebooks_cells_count_and_its_words_do_not(library, tmp_path):
    def key(code, words="Words.", low=LOW):
        notebook = tmp_path / f"page-{len(list(tmp_path.glob('page*')))}.md"
        notebook.write_text(f"{words} It's.\n\n```{{code-cell}} python\n:tags: [hide-input]\n{code}\n```\n")
        return code_key(library(high="def start():\n    pass\n", low=low), notebook=notebook)

    used = "from ddpo_lib.low import one\none(1)"
    before = key(used)
    assert key(used, words="Other words.") == before
    assert key(used, low=LOW.replace("return 2", "return 3")) == before
    assert key(used, low=LOW.replace("+ 1", "+ 2")) != before
    assert key(used.replace("1)", "2)")) != before


# What an edit of this library makes stale

COPY = Path(code_keys.__file__).parents[1]


def kinds(names) -> set[str]:
    """Names of artifacts without arms, seeds and numbers; chapters as one kind."""
    return {re.match(r"(online-world|world-online|world-rewards|\w+)(-part)?", name)[0] for name in names}


@pytest.fixture(scope="module")
def embedded() -> Run:
    return open_run("embedded")


@pytest.fixture(scope="module")
def before(embedded) -> dict[str, dict]:
    return {name: embedded.code(name) for name in embedded.steps}


LOSSES, MARGIN = "training/losses.py", "    margin = beta * ("
TRAINED = {"arm", "round", "row", "online-world", "domain", "program", "chapter"}
SAMPLED = {"samples", "sweep", "pool"}
SMALL = {"world", "row", "worlds", "online-world", "reward", "domain", "program"}
REWARDED = {"quality", "graders", "ranking", "pool", "evaluation", "sharpness", "fronts", "online"}
WRITTEN = {"world", "row", "worlds", "online-world", "world-online", "reward", "world-rewards", "chapter"}
COUNTED = {"program", "vectors", "maps", "quality", "graders", "ranking", "pool", "round"}
COUNTED |= {"evaluation", "sharpness", "fronts", "online", "row", "online-world", "reward", "world-rewards", "domain"}


@pytest.mark.parametrize(
    ("file", "old", "new", "stale"),
    [
        (LOSSES, "def ddpo_loss(", "def ddpo_loss(unused=None, *, ", TRAINED),
        (LOSSES, MARGIN, f"    if beta > 9:\n        raise ValueError(beta)\n{MARGIN}", set()),
        (LOSSES, MARGIN, f"    if (high := beta) > 9:\n        raise ValueError(high)\n{MARGIN}", TRAINED),
        (LOSSES, MARGIN, f"    if beta > 9:\n        beta = 9\n        raise ValueError(beta)\n{MARGIN}", TRAINED),
        ("training/trainer.py", "class DeviationTrainer(", "class DeviationTrainer(object, ", TRAINED - {"chapter"}),
        ("profiles/settings.py", "def picks_by_probability(self) -> bool:\n", None, TRAINED - {"domain", "program"}),
        (
            "profiles/evaluation_settings.py",
            "class Evaluation(Section):",
            "class Evaluation(Section):\n    more: int = 0\n",
            {"chapter"},
        ),
        ("measures/stand_in.py", "np.log1p(len(words))", "float(len(words))", REWARDED),
        ("measures/reward_model.py", "END = ", "END = 0 or ", set()),  # which this profile does not use
        ("sampling/draws.py", "BITS = ", "BITS = 0 or ", SAMPLED | SMALL),
        ("sampling/server.py", "RETRIES = ", "RETRIES = 0 or ", {"samples"}),  # of baselines, which a server may answer
        ("data/corpus.jsonl", "\n", "\n\n", COUNTED | {"corpus", "chapter"}),
        ("worlds/modeworld.yaml", "prompts:\n", "prompts: # templates\n", WRITTEN),
        ("profiles/wording.py", "def interval(", "def interval(unused=None, *, ", {"chapter"}),
        ("interactive/interactive.css", "{", " {", {"book"}),
        ("interactive/laboratory.js", "{", " {", {"book", "chapter"}),
        ("base/errors.py", "class InputError(ValueError)", "class InputError(RuntimeError)", set()),
        ("base/run_folder.py", "def path(self, name: str)", "def path(self, name: str, unused=None)", set()),
    ],
)
def test_an_edit_makes_stale_exactly_what_depends_on_it(embedded, before, tmp_path, monkeypatch, file, old, new, stale):
    shutil.copytree(COPY, tmp_path / "ddpo_lib", ignore=shutil.ignore_patterns("__pycache__"))
    edited = tmp_path / "ddpo_lib" / file
    source = edited.read_text(encoding="utf-8")
    assert old in source
    edited.write_text(source.replace(old, f"{old}        hash(self)\n" if new is None else new, 1), encoding="utf-8")
    monkeypatch.setattr(code_keys, "LIBRARY", tmp_path / "ddpo_lib")
    assert kinds(name for name in embedded.steps if embedded.code(name) != before[name]) == stale


def test_another_place_of_the_checkout_has_the_same_keys(embedded, before, tmp_path, monkeypatch):
    shutil.copytree(COPY, tmp_path / "ddpo_lib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_keys, "LIBRARY", tmp_path / "ddpo_lib")
    assert {name: embedded.code(name) for name in embedded.steps} == before


@pytest.mark.parametrize(
    ("section", "knobs", "stale"),
    [
        ("evaluation", {"temperatures": [1.4]}, {"sweep"}),
        ("evaluation", {"gold_draws": 21}, {"evaluation"}),
        ("evaluation", {"bootstrap": 2001}, {"findings", "fronts"}),
        ("evaluation", {"sweep_prompts": 5}, {"sweep"}),
        ("preference", {"beta": 0.2}, {"arm", "round"}),
        (
            "data",
            {"gap": 6.0},
            {"pairs", "findings", "arm", "row", "online-world", "world-online", "domain", "program"},
        ),
        ("sampling", {"samples": 5}, {"samples", "sweep", "pool", "sharpness", "ranking"}),
    ],
)
def test_a_knob_makes_stale_exactly_what_reads_it(embedded, tmp_path, section, knobs, stale):
    """The parameters of steps; what is made from them follows by the keys of inputs."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"extends": "embedded", "name": "embedded", section: knobs}))
    ours, theirs = embedded.steps, open_run(str(file)).steps
    changed = {name for name in ours if not name.startswith("chapter") and ours[name].params != theirs[name].params}
    assert kinds(changed) == stale
    assert load_profile(str(file)) != load_profile("embedded")


def test_a_partial_has_the_key_of_what_it_calls_with_its_arguments_types(library):
    start = library(high=START, low=LOW)
    assert code_key(partial(start, 1, x=2)) == code_key(start)
