"""The whole job with the `smoke` profile, by the commands that a user types, in a copy of the checkout."""

import base64
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from browser import Watched, drawn, hovered, shown
from conftest import share_made_once
from numbered import check_page
from pypdf import PdfReader
from readers import beyond_paper, contents, faults_of_book, hits, loaded, outline
from test_human_eval import SIZES, write_answers, write_run
from test_judge import Reader, longest_and_most_varied

from benchmarks import book_size
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.measures.table import MEASURES
from ddpo_lib.people.human_eval import prepare
from ddpo_lib.people.judge import judge_study
from ddpo_lib.profiles import wording
from ddpo_lib.runs.pipeline import CHAPTERS
from ddpo_lib.sampling.server import Server

PROJECT = Path(__file__).parents[1]
STEPS = ("sft", "dpo", "ddpo-both", "orpo", "dorpo-both")
SWEPT = ("sft", "dpo", "ddpo-both", "dorpo-both")
AGAIN = ("arm-dpo", "arm-ddpo-both", "samples-dpo", "samples-ddpo-both", "evaluation")  # made a second time


PRIVATE = {  # in the environment of each command; nothing that it writes may contain any of it
    "OPENAI_API_KEY": "sk-canary-0c1d",
    "HF_TOKEN": "hf_canaryAbCd",
    "AWS_SECRET_ACCESS_KEY": "canary/secret/7e",
    "USER": "canary-user",
    "LOGNAME": "canary-login",
    "HOSTNAME": "canary-host",
}
HOME = "canary-home"


def ddpo(place: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ddpo_lib.cli", *words]
    environment = {**os.environ, **PRIVATE, "HOME": str(place.parent / HOME), "PYTHONPATH": str(place)}
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("checkout")
    for name in ("ddpo_lib", "notebooks", "book", "benchmarks", "workflow", "results"):
        shutil.copytree(PROJECT / name, place / name, ignore=shutil.ignore_patterns("_build", "__pycache__"))
    for name in ("_config.yml", "CITATION.cff"):
        shutil.copy(PROJECT / name, place)
    share_made_once(place.parent / HOME / ".cache")
    return place


@pytest.fixture(scope="module")
def annotated(checkout) -> Path:
    """The run's studies: one that two people and a model answered, and one that nobody did."""
    studies = checkout / "runs" / "smoke" / "annotations"
    stories = write_run(checkout / "stories", 4)  # the run has two stories a prompt, a study wants four
    for name in ("answered", "prepared"):
        prepare(stories, ("ddpo-both", "dpo"), studies / name, **SIZES | {"prompts": 4, "items": 4})
    items = json.loads((studies / "answered" / "key.json").read_text())["items"]
    for annotator, more in (("ann", "Set A"), ("bob", "Hard to decide")):
        labels = {item: [("quality", "2"), ("diversity", more)] for item in items}
        write_answers(studies / "answered", annotator, labels)
    reader = Reader()
    reader.rule = longest_and_most_varied
    judge_study(studies / "answered", Server(reader.url, "reader"), name="reader", seed=0)
    reader.close()
    return studies


@pytest.fixture(scope="module")
def built(checkout, annotated) -> Path:
    done = ddpo(checkout, "run", "--profile", "smoke", "--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    page = Path(done.stdout.strip().splitlines()[-1])
    assert page == checkout / "book" / "_build" / "html" / "index.html"
    return page


def test_every_arm_is_trained_sampled_and_compared(built, checkout):
    run = checkout / "runs" / "smoke"
    results = json.loads((run / "evaluation" / "results.json").read_text())
    assert {"gold", *STEPS, "instruct", "instruct-iter"} <= set(results["arms"])
    assert set(results["samples"]) == {*STEPS, "instruct", "instruct-iter"}
    assert set(results["seen"].values()) == {0}  # nothing is evaluated on what it was trained on
    assert {(c["arm"], c["against"]) for c in results["claims"]} == {("ddpo-both", "dpo"), ("dorpo-both", "orpo")}
    for length in (results, results["matched"]):
        for arm in ("gold", *STEPS):
            for measure, value in length["arms"][arm].items():
                assert value["low"] <= value["mean"] <= value["high"], (arm, measure)
                assert value["prompts"] == (6 if arm == "gold" else 12)  # prompts without people's responses too
        assert set(length["arms"]["dpo"]) == set(MEASURES)
    fronts = json.loads((run / "fronts" / "fronts.json").read_text())
    for space in ("semantic", "style"):
        assert {arm: len(curve) for arm, curve in fronts["spaces"][space]["curves"].items()} == dict.fromkeys(SWEPT, 2)
    for arm in STEPS[1:]:
        log = json.loads((run / f"arm-{arm}" / "log.json").read_text())
        assert any("loss" in entry for entry in log)
        assert (run / f"arm-{arm}" / "trained" / "adapter_model.safetensors").stat().st_size > 10_000


def test_weights_reach_the_weighted_arms_alone(built, checkout):
    run = checkout / "runs" / "smoke"
    means = {}
    for arm in STEPS[1:]:
        log = json.loads((run / f"arm-{arm}" / "log.json").read_text())
        means[arm] = {entry["weight/mean"] for entry in log if "weight/mean" in entry}
    assert means["dpo"] == means["orpo"] == {1.0}
    assert len(means["ddpo-both"]) > 1
    assert len(means["dorpo-both"]) > 1


def content(path: Path) -> bytes:
    """A file's bytes, unpacked where they are packed."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return f"{table.schema.metadata} {table.to_pylist()}".encode()
    data = path.read_bytes()
    packed = re.findall(rb"base64[,>\"]+([A-Za-z0-9+/=]{40,})", data) if path.suffix in (".html", ".ipynb") else []
    unpacked = [base64.b64decode(part + b"=" * (-len(part) % 4)) for part in packed]
    unpacked += [gzip.decompress(part) for part in unpacked if part[:2] == b"\x1f\x8b"]
    return b"\n".join([gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data, *unpacked])


def test_nothing_that_was_written_contains_keys_tokens_users_or_homes(built, checkout):
    files = [path for root in ("runs", "book/_build") for path in (checkout / root).rglob("*") if path.is_file()]
    assert len(files) > 200
    found = {
        f"{path.relative_to(checkout)}: {word}"
        for path in files
        for word in (*PRIVATE.values(), HOME)
        if word.encode() in content(path)
    }
    assert found == set()


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.classes = [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.classes += (values.get("class") or "").split()
        if tag == "img":
            self.images.append(values)


def test_every_page_has_its_figures_with_words_and_no_traceback(built):
    pages = [page for page in built.parent.glob("*.html") if page.name not in ("genindex.html", "search.html")]
    assert {f"{stem}.html" for stem in CHAPTERS} <= {page.name for page in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        parsed = _Page()
        parsed.feed(text)
        assert "Traceback" not in text, page.name
        assert "system-message" not in parsed.classes, page.name
        for image in parsed.images:
            if "ddpo-figure" in (image.get("class") or ""):
                assert len(image["alt"]) > 40, page.name
    training = _Page()
    training.feed((built.parent / "02-training.html").read_text(encoding="utf-8"))
    assert sum("ddpo-figure" in (image.get("class") or "") for image in training.images) == 5


def test_every_figure_and_table_has_its_number_its_data_and_its_source(built, checkout):
    found = {stem: check_page(built.parent / f"{stem}.html") for stem in CHAPTERS}
    assert sum(map(len, found.values())) > 90
    run = checkout / "runs" / "smoke"
    results = json.loads((run / "evaluation" / "results.json").read_text())
    of_training = {one.anchor: one for one in found["02-training"]}
    drawn = of_training["figure-differences"].table()
    assert len(drawn) == 3 * len(STEPS[1:])
    tabled = of_training["table-differences"].table()
    change = results["differences"]["ddpo-both"]["semantic"]
    wanted = [change["mean"], change["low"], change["high"]]
    both = drawn[(drawn["arm"] == "DDPO-both") & (drawn["measure"] == "semantic")]
    assert both.iloc[0, 3:6].tolist() == wanted
    columns = ["semantic", "semantic, lower end", "semantic, upper end"]
    assert tabled.loc[tabled["arm"] == "DDPO-both", columns].iloc[0].tolist() == wanted
    entries = of_training["figure-all-logs"].table()
    for arm in STEPS[1:]:
        log = json.loads((run / f"arm-{arm}" / "log.json").read_text())
        losses = entries.loc[entries["arm"] == wording.name(arm), "loss"].tolist()
        assert losses == [entry["loss"] for entry in log if "loss" in entry]
    (of_map,) = (one for one in found["01-deviation-analysis"] if one.anchor == "figure-map")
    points = pd.read_parquet(run / "maps" / "points.parquet")
    deviation = points["deviation semantic"].round(4)  # as many digits as the map itself has
    assert of_map.table()["deviation semantic"].tolist() == deviation.tolist()
    assert not {"text", "prompt"} & set(of_map.table().columns)  # other people's words stay on the page


def test_every_page_ends_with_its_source_and_how_to_cite_it(built):
    for page in built.parent.glob("*.html"):
        if page.name != "index.html":  # which leads to the first page
            text = page.read_text(encoding="utf-8")
            assert text.count("The numbers are those of your run of ") == 1, page.name
            assert text.count("arXiv:2503.17126. The file CITATION.cff has both.") == 1, page.name


def test_the_chapter_on_people_has_their_answers_and_a_models_apart(built):
    page = " ".join((built.parent / "05-human-eval.html").read_text(encoding="utf-8").split())
    assert "stories in 1 study; the results are below." in page
    assert "answered: DDPO-both against DPO." in page
    assert "8 answers by 2 annotators on 4 items" in page
    assert "The study prepared is prepared, but no one has finished an item yet." in page
    assert "answered: answers of a language model, not of people." in page
    assert "8 of 8 answers had the required format" in page
    assert "model: reader" in page


@pytest.fixture
def map_page(built):
    return built.parent / "01-deviation-analysis.html"


@pytest.fixture
def points(built, checkout) -> pd.DataFrame:
    return pd.read_parquet(checkout / "runs" / "smoke" / "maps" / "points.parquet")


def test_the_map_of_the_book_draws_answers_and_saves_with_no_network(browser, map_page, points, tmp_path):
    """As a reader opens it: from file://, every model's stories over the corpus's."""
    assert set(points["who"]) == {"train", "test", *STEPS}
    watched = Watched(browser)
    page = shown(watched, map_page)
    page.locator(".ddpo-map").scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    assert sorted(drawn(page)) == list(range(len(points)))
    row = int(points["x semantic"].argmax())  # no other point lies over the outermost
    assert "".join(points["text"][row].split())[:30] in hovered(page, row)
    first = points.index[points["prompt_id"] == points["prompt_id"][0]]
    page.get_by_label("Prompt", exact=True).fill("1.")
    page.get_by_label("Prompt", exact=True).press("Enter")
    page.wait_for_timeout(500)
    assert sorted(drawn(page)) == first.tolist()
    page.get_by_role("button", name="List all shown").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save").click()
    saved.value.save_as(tmp_path / "selection.jsonl")
    assert sorted(read_corpus(tmp_path / "selection.jsonl", keep_repeats=True)["text"]) == sorted(points["text"][first])
    assert watched.outside() == []
    assert watched.errors == []


def test_no_page_of_the_book_asks_a_network_or_logs_an_error(browser, built):
    for page in sorted(built.parent.glob("*.html")):
        watched = Watched(browser)
        watched.open(page).wait_for_timeout(300)
        assert watched.outside() == [], page.name
        assert watched.errors == [], page.name


def test_every_page_is_accessible_and_fits_a_phone_and_a_tablet(browser, built):
    assert faults_of_book(browser, built.parent) == []


def test_the_first_page_and_the_book_are_small_and_the_index_leads_there(browser, built):
    first = loaded(browser, built.parent, "00a-welcome.html")
    assert 3 < len(first) <= book_size.MOST_FILES
    assert sum(size for kind, size in first if kind != "font") <= book_size.MOST_FIRST
    assert sum(book_size.by_kind(built.parent).values()) <= book_size.MOST
    assert '<html lang="en">' in built.read_text() and '<a href="00a-welcome.html">' in built.read_text()


def test_the_search_finds_zero_weights_without_a_server(browser, built):
    titles, errors = hits(browser, built.parent, "zero weight")
    assert "1 Deviation analysis" in titles[:3]  # where they are counted
    assert errors == []


def test_the_book_becomes_one_pdf(launch, built, checkout):
    done = ddpo(checkout, "pdf")
    assert done.returncode == 0, done.stderr[-3000:]
    reader = PdfReader(done.stdout.strip())
    entries = [(depth, title) for depth, title, _ in outline(reader) if depth < 2]
    whole = contents(checkout / "book" / "_toc.yml", built.parent)
    assert [entry for entry in entries if entry in whole] == whole
    assert "Zitzler" in reader.pages[-1].extract_text()  # the last of the bibliography
    assert beyond_paper(reader) == []
    assert 'href="book.pdf"' in (built.parent / "00a-welcome.html").read_text()


def test_a_second_run_makes_nothing_again(built, checkout):
    run = checkout / "runs" / "smoke"
    before = {path: path.stat().st_mtime_ns for path in run.glob("*/manifest.json")}
    assert len(before) > 15
    done = ddpo(checkout, "run", "--profile", "smoke", "--cores", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in run.glob("*/manifest.json")} == before


def snakemake(place: Path) -> list[str]:
    """The command at the head of the Snakefile, as far as the evaluation, in a second folder of runs."""
    runs = place / "again"
    (runs / "smoke").mkdir(parents=True, exist_ok=True)
    words = ["--snakefile", str(place / "workflow" / "Snakefile"), "--directory", str(runs / "smoke"), "--cores", "2"]
    settings = ["profile=smoke", "goal=evaluation", f"runs={runs}"]
    return [sys.executable, "-m", "snakemake", *words, "--nolock", "--rerun-incomplete", "--config", *settings]


def test_a_run_killed_in_training_goes_on_and_gives_the_same_results(built, checkout):
    """One seed, one machine, two runs, one of them killed: the same results. They share all but `AGAIN`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = {"cwd": checkout, "env": {**os.environ, "PYTHONPATH": str(checkout), "PATH": path}}
    whole, run = checkout / "runs" / "smoke", checkout / "again" / "smoke"
    shared = [place.parent for place in whole.glob("*/manifest.json") if place.parent.name not in AGAIN]
    for place in shared:
        shutil.copytree(place, run / place.name)
    with (checkout / "killed.log").open("w") as log:
        killed = subprocess.Popen(snakemake(checkout), **options, start_new_session=True, stdout=log, stderr=log)
        deadline = time.monotonic() + 600
        while not list(run.glob(".partial/arm-*")) and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)
        assert killed.poll() is None, (checkout / "killed.log").read_text()[-3000:]
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert not (run / "evaluation").exists()
    done = subprocess.run(snakemake(checkout), **options, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {"sft", "samples-instruct"} <= {place.name for place in shared}
    for place in shared:
        assert (run / place.name / "manifest.json").read_text() == (place / "manifest.json").read_text()
    for name in AGAIN:
        assert (run / name / "manifest.json").read_text() != (whole / name / "manifest.json").read_text()
    made, wanted = (json.loads((place / "evaluation" / "results.json").read_text()) for place in (run, whole))
    assert made == wanted


def test_the_commands_do_the_steps_on_a_users_file(checkout, tmp_path):
    """weights -> train -> generate -> evaluate, as the book's page says."""
    with (tmp_path / "mine.jsonl").open("w", encoding="utf-8") as mine:
        for line in (checkout / "ddpo_lib" / "data" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[:4]:
            few = {name: value[:7] if isinstance(value, list) else value for name, value in json.loads(line).items()}
            mine.write(json.dumps(few) + "\n")
    at = str(tmp_path)
    for words in (
        ["weights", f"{at}/mine.jsonl", f"{at}/weights.parquet", "--held-out", "0.5", "--split-seed", "3"],
        ["train", f"{at}/weights.parquet", f"{at}/ddpo", "--arm", "ddpo-both", "--profile", "smoke"],
        ["generate", f"{at}/ddpo", f"{at}/weights.parquet", f"{at}/samples.jsonl", "--profile", "smoke"],
        ["evaluate", f"{at}/samples.jsonl", "--profile", "smoke"],
    ):
        done = ddpo(checkout, *words)
        assert done.returncode == 0, (words, done.stderr[-3000:])
    assert "seen in training by the models: 0 (samples)" in done.stdout.splitlines()[0]
    assert any(line.startswith("samples") for line in done.stdout.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ddpo",
        "mine.jsonl",
        "samples.jsonl",
        "weights.parquet",
    ]
