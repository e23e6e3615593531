"""Embedding stories, and a map of 10,000 of them: from vectors to a page that answers.

The stories are real, three files of `../shared/data`; where these are not beside the project there is nothing to
measure and the table stays empty.
"""

import os
import shutil
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, Sample, median_and_spread, table, take_turns, timed

DATA = Path(__file__).parents[2] / "shared" / "data"
HANNA, CAPTIONS, TRIPLETS = (DATA / f"{name}.jsonl" for name in ("hanna", "newyorker_captions", "creativity_triplets"))
SPACES = {"semantic": "minilm", "style": "stylometric"}
AGREE = 1e-5  # most by which a number of a vector may differ
HOVERS = 50


def rows(repeats: int = 3) -> list[Row]:
    """The table; without the files, none."""
    if not all(path.exists() for path in (HANNA, CAPTIONS, TRIPLETS)):
        return []
    return [*embedding(repeats), *mapping(repeats)]


def embedding(repeats: int) -> list[Row]:
    samples = take_turns({"ours": partial(embed_at_once), "stock": partial(embed_by_prompt)}, repeats)
    ours, stock = samples["ours"], samples["stock"]
    apart = max(np.abs(a.result - b.result).max() for a, b in zip(ours, stock, strict=True))
    rates = [len(s.result) / s.seconds for s in ours], [len(s.result) / s.seconds for s in stock]
    ratios = [mine / theirs for mine, theirs in zip(*rates, strict=True)]
    measured, spread = median_and_spread(ratios, "{:.2f}x")
    mine, theirs = map(statistics.median, rates)
    what = f"embedding the {len(ours[0].result)} stories of HANNA with MiniLM, nothing kept from before"
    against = "sentence-transformers, one call a prompt"
    speed = f"{measured} ({mine:.1f} against {theirs:.1f} texts/s)"
    return [
        Row(what, against, "1.5x texts/s", speed, spread, statistics.median(ratios) >= 1.5),
        Row(what, "its vectors", f"equal to {AGREE:g}", f"{apart:.1g} apart at most", "", bool(apart <= AGREE)),
    ]


def mapping(repeats: int) -> list[Row]:
    samples = take_turns({"ours": partial(map_stories, 10_000)}, repeats)["ours"]
    points, size, hovers = samples[0].result
    seconds = [sample.seconds for sample in samples]
    what = f"a map of {points:,} responses in two spaces and its page, from vectors"
    result = [
        Row(what, "the clock", "under 60 s", *median_and_spread(seconds, "{:.1f} s"), max(seconds) < 60),
        Row(what, "the page, plotly.js with it", "under 10 MB", f"{size / 1e6:.1f} MB", "", size < 10e6),
    ]
    if hovers:
        slowest = [max(sample.result[2]) * 1e3 for sample in samples]
        middle = statistics.median(hover for sample in samples for hover in sample.result[2]) * 1e3
        measured = f"{statistics.median(slowest):.0f} ms at most, {middle:.0f} ms at the median of {HOVERS}"
        spread = f"{min(slowest):.0f} ms to {max(slowest):.0f} ms at most"
        result.append(Row(what, "a hover in headless Chromium", "under 100 ms", measured, spread, max(slowest) < 100))
    return result


def embed_at_once() -> Sample:
    return embed_afresh(hanna()[0])


def embed_afresh(texts: list[str]) -> Sample:
    """By `embed.embed` in an empty cache; its result is the vectors."""
    from ddpo_lib.spaces import embed

    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        embed.embed(texts[:2], "minilm")  # loads the model
        return timed(lambda: embed.embed(texts, "minilm"))


def embed_by_prompt() -> Sample:
    from sentence_transformers import SentenceTransformer

    from ddpo_lib.models import models

    texts, prompts = hanna()
    encoder = SentenceTransformer(str(models.encoder_place("minilm")), device=models.device())
    encode = partial(encoder.encode, normalize_embeddings=True, show_progress_bar=False)
    encode(texts[:2])
    parts = [[text for text, p in zip(texts, prompts, strict=True) if p == prompt] for prompt in dict.fromkeys(prompts)]
    return timed(lambda: np.concatenate([encode(part) for part in parts]))


def hanna() -> tuple[list[str], list[str]]:
    """Its stories, and the prompt of each."""
    from ddpo_lib.data.corpus import read_corpus

    corpus = read_corpus(HANNA, held_out=0.0)
    return corpus["text"].tolist(), corpus["prompt_id"].tolist()


def map_stories(most: int) -> Sample:
    """Its result: the number of points, the bytes that the page loads, and seconds from a move to its hover."""
    import pandas as pd

    from ddpo_lib.data.corpus import read_corpus
    from ddpo_lib.interactive.deviation_map import page
    from ddpo_lib.report.explore import draw_prompts, make_points
    from ddpo_lib.spaces.embed import embed

    parts = [read_corpus(path).assign(source=path.stem) for path in (HANNA, CAPTIONS, TRIPLETS)]
    corpus = pd.concat(parts, ignore_index=True)
    corpus["prompt_id"] = corpus["source"] + corpus["prompt_id"]
    corpus = corpus.iloc[draw_prompts(corpus, most)].reset_index(drop=True)
    vectors = {name: embed(corpus["text"].tolist(), model) for name, model in SPACES.items()}

    sample = timed(lambda: page(make_points(corpus, vectors, {}, {}, seed=0)))
    with tempfile.TemporaryDirectory() as folder:
        size = write_page(Path(folder), sample.result)
        return Sample(sample.seconds, sample.peak, sample.grown, (len(corpus), size, hover_times(Path(folder))))


def write_page(folder: Path, figure: str) -> int:
    """A page with the map and what it loads; its bytes, all told."""
    from ddpo_lib.interactive.parts import assets

    files = {f"_static/{name}": content for name, content in assets().items()}
    head = '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="_static/interactive.css">'
    files["index.html"] = (head + figure).encode()
    (folder / "_static").mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sum(map(len, files.values()))


WATCH = """() => {
  const plot = document.querySelector(".js-plotly-plot");
  window.hovers = [];
  let moved = null;
  document.addEventListener("mousemove", () => { moved ??= performance.now(); }, true);
  plot.on("plotly_hover", () => requestAnimationFrame(() => {
    if (moved !== null) window.hovers.push((performance.now() - moved) / 1000);
    moved = null;
  }));
  plot.on("plotly_unhover", () => { moved = null; });
}"""
PIXELS = """(n) => {
  const plot = document.querySelector(".js-plotly-plot"), box = plot.getBoundingClientRect();
  const { xaxis, yaxis } = plot._fullLayout, { x, y } = plot.data[0];
  return [...Array(n).keys()].map((i) => Math.floor((i * x.length) / n)).map((i) => [
    box.left + xaxis._offset + xaxis.l2p(x[i]), box.top + yaxis._offset + yaxis.l2p(y[i])]);
}"""


def hover_times(folder: Path) -> list[float]:
    """Seconds from a move of the mouse onto a point to the picture with its label; none without a browser."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        return []
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto((folder / "index.html").as_uri())
        page.wait_for_selector(".js-plotly-plot .plot-container")
        page.wait_for_timeout(3000)
        page.evaluate(WATCH)
        for number, (x, y) in enumerate(page.evaluate(PIXELS, HOVERS), 1):
            page.mouse.move(x, y)
            page.wait_for_function("(n) => window.hovers.length >= n", arg=number)
            page.mouse.move(2, 2)
        times = page.evaluate("window.hovers")
        browser.close()
    return times


if __name__ == "__main__":
    print(table(rows()))
