"""The map of responses as a reader and an explorer meet it: in Chromium from file://, and in JupyterLab."""

import base64
import gzip
import io
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import PIXEL, Watched, drawn, hovered, lasso, shown, words
from PIL import Image

from ddpo_lib.base.errors import InputError
from ddpo_lib.data.corpus import read_corpus
from ddpo_lib.interactive import deviation_map, parts

PROJECT = Path(__file__).parents[2]
LONG = " ".join(f"word{i}" for i in range(20_000))
TEXTS = [
    "A fox learns to count and counts the hens twice.",
    "<script>window.pwned=1</script></script><script>window.pwned=2</script>",
    '"\'><img src=x onerror="window.pwned=3"> & &lt;b&gt; `${window.pwned=4}`',
    "<b>bold</b> and <a href='https://example.org/'>a link</a><br>and %{x} and <extra>",
    "A dragon 🐉 and a family 👨‍👩‍👧‍👦, " + "🎈" * 200,
    "בראשית ברא המספר את הסיפור.\nوكان يا ما كان في قديم الزمان.",
    LONG,
    "One line.\r\n\r\nAnother.\n\n\tIndented \x01\x07\x1b[31m control characters \x7f\x9f end.",
    "x" * 3000,
    "The DRAGON sleeps.",
    "A hen that reads maps.",
    "Nobody came.",
    "Snow, and a letter.",
    "The last bus.",
    "",
    "A clock without hands.",
]
HEAD = (
    '<!doctype html><html data-theme="light"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="stylesheet" href="_static/interactive.css"><link rel="icon" href="data:,">'
    "<style>body { margin: 0 10px } html { --pst-color-text-base: #111111 }"
    "html[data-theme=dark] { --pst-color-text-base: #eeeeee; background: #111 }</style></head>"
)


def table() -> pd.DataFrame:
    """Sixteen responses on a 4 x 4 grid: three prompts, the last too small for a map of its own; a space more."""
    rows = np.arange(16)
    prompt = np.repeat([0, 1, 2], [8, 6, 2])
    points = pd.DataFrame(
        {
            "prompt_id": [f"p{i}" for i in prompt],
            "prompt": np.array(["Write of a fox & a <hen>.", "Write of \"dragons\" 'n' </script>.", "Write of time."])[
                prompt
            ],
            "text": TEXTS,
            "who": ["train"] * 8 + ["test"] * 4 + ["ddpo-both"] * 4,
            "score": [1.0, 2.0, 3.0, 4.0, np.nan, 6.0, 7.0, 8.0] + [5.0, 9.0, 10.0, 2.5] + [np.nan] * 4,
            "deviation semantic": rows / 16,
            "x semantic": rows % 4,
            "y semantic": rows // 4,
            "deviation style": rows[::-1] / 16,
            "x style": rows // 4,
            "y style": rows % 4,
        }
    )
    for space in ("semantic", "style"):
        points[f"prompt x {space}"] = np.where(prompt < 2, 10.0 + rows, np.nan)
        points[f"prompt y {space}"] = np.where(prompt < 2, 20.0 - rows % 3, np.nan)
    return points


def many(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    numbers = [f"{place}semantic" for place in ("deviation ", "x ", "y ", "prompt x ", "prompt y ")]
    points = pd.DataFrame(rng.random((rows, 5)), columns=numbers)
    group = np.arange(rows) // 50
    points["prompt_id"], points["prompt"] = [f"p{i}" for i in group], [f"Prompt {i}" for i in group]
    points["text"] = [f"Story {i} of a {'dragon' if i % 7 == 0 else 'hen'}." for i in range(rows)]
    return points.assign(who="train", score=rng.random(rows))


def written(folder: Path, *pieces: str) -> Path:
    """A page with these maps beside a `_static/`, as in the book."""
    (folder / "_static").mkdir()
    for name, content in parts.assets().items():
        (folder / "_static" / name).write_bytes(content)
    (folder / "page.html").write_text(f"{HEAD}<body>{''.join(pieces)}</body></html>", encoding="utf-8")
    return folder / "page.html"


def unpacked(page: str) -> dict:
    coded = re.search(r'<script type="application/gzip;base64">([^<]*)</script>', page).group(1)
    return json.loads(gzip.decompress(base64.b64decode(coded)))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("book"), deviation_map.page(table(), caption="Where to look & why."))


@pytest.fixture
def seen(browser, place):
    """The map of `table()`, drawn; afterwards nothing was asked of a network, nothing went wrong, no story ran."""
    watched = Watched(browser)
    yield shown(watched, place)
    assert watched.outside() == []
    assert watched.errors == []
    assert watched.page.evaluate("window.pwned") is None
    watched.page.context.close()


def test_every_response_is_a_point_where_the_table_puts_it(seen):
    points = drawn(seen)
    expected = table()
    assert sorted(points) == list(range(16))
    for row, point in points.items():
        assert (point["x"], point["y"]) == (expected["x semantic"][row], expected["y semantic"][row])
        assert point["color"] == pytest.approx(expected["deviation semantic"][row], abs=1e-4)
    assert {points[0]["symbol"], points[8]["symbol"], points[12]["symbol"]} == {"circle", "circle-open", "diamond"}
    sizes = [points[row]["size"] for row in expected["score"].sort_values().dropna().index]
    assert sizes == sorted(sizes) and len(set(sizes)) == 11
    assert {points[row]["size"] for row in (4, 12, 13, 14, 15)} == {min(p["size"] for p in points.values())}
    assert points[4]["size"] < sizes[0]
    assert "16 responses on the map of the whole corpus" in seen.locator(".ddpo-map-status").text_content()
    assert "1 to 10; the smallest have none" in seen.locator(".ddpo-map-legend").text_content()
    assert seen.locator("figcaption").text_content() == "Where to look & why."
    assert seen.locator(".modebar-btn").count() and not seen.locator("[data-title*='hare'], .plotlyjsicon").count()


def test_hover_shows_prompt_opening_score_and_deviations_as_they_were_written(seen):
    for row in (0, 1, 2, 3, 4, 5, 7):
        point = table().iloc[row]
        opening = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", "", point["text"])
        label = hovered(seen, row)
        assert opening[:120] in label
        assert "".join(point["prompt"].split()) in label
        score = "noscore" if np.isnan(point["score"]) else f"score{point['score']:g}"
        assert f"{point['who']}·{score}·" in label
        assert f"semanticdeviation{point['deviation semantic']:.4g}" in label
        assert f"styledeviation{point['deviation style']:.4g}" in label
        assert not seen.locator(".hoverlayer a, .hoverlayer img").count()


def test_click_shows_the_whole_text_and_nothing_in_it_runs(seen):
    for row in (1, 2, 3, 5, 6, 7, 8):
        seen.mouse.click(*seen.evaluate(PIXEL, row))
        seen.wait_for_function(
            f"() => document.querySelector('.ddpo-map-text')?.textContent.includes({json.dumps(TEXTS[row][:9])})"
        )
        lines = [line for line in re.split(r"\r\n|\r|\n", TEXTS[row]) if line.strip()]
        assert seen.locator(".ddpo-map-text p").evaluate_all("all => all.map(p => p.textContent)") == lines
        assert seen.locator(".ddpo-map-reader blockquote").text_content() == table()["prompt"][row]
        assert not seen.locator(".ddpo-map-reader :is(img, script, b, a)").count()
        box = seen.evaluate(
            "(({scrollHeight, clientHeight, scrollWidth, clientWidth, tabIndex, innerText}) => "
            "({scrollHeight, clientHeight, scrollWidth, clientWidth, tabIndex}))"
            "(document.querySelector('.ddpo-map-reader'))"
        )
        assert box["clientHeight"] <= 900 and box["scrollWidth"] <= box["clientWidth"] and box["tabIndex"] == 0
        if TEXTS[row] is LONG:
            assert box["scrollHeight"] > 10 * box["clientHeight"]
            assert "20,000 words" in words(seen)
        seen.wait_for_timeout(400)  # two clicks in less are a double click to plotly
        direction = seen.locator(".ddpo-map-text p").first.evaluate("p => getComputedStyle(p).direction")
        assert direction == ("rtl" if row == 5 else "ltr")


def test_a_prompt_has_its_own_map_found_by_typing(seen):
    prompt = seen.locator(".ddpo-map-prompt input")
    prompt.fill("DRAGONS")
    prompt.press("Enter")
    points = drawn(seen)
    assert sorted(points) == list(range(8, 14))
    assert {row: point["x"] for row, point in points.items()} == {row: 10.0 + row for row in range(8, 14)}
    assert "6 responses on this prompt's own map" in seen.locator(".ddpo-map-status").text_content()
    assert "ddpo-both (2)" in seen.locator(".ddpo-map fieldset").text_content()
    prompt.fill("3. Write of time.")
    points = drawn(seen)
    assert {row: (point["x"], point["y"]) for row, point in points.items()} == {14: (2, 3), 15: (3, 3)}
    assert "too few for a map of their own" in seen.locator(".ddpo-map-status").text_content()
    prompt.fill("")
    assert len(drawn(seen)) == 16


def test_space_colour_and_arms_change_what_is_drawn(seen):
    space, colour = seen.get_by_label("Space"), seen.get_by_label("Colour")
    space.select_option("style")
    assert drawn(seen)[1] | {"x": 0, "y": 1} == drawn(seen)[1]
    colour.select_option("style deviation")
    assert drawn(seen)[0]["color"] == pytest.approx(15 / 16, abs=1e-4)
    colour.select_option("length in words")
    assert drawn(seen)[6]["color"] == 20_000
    colour.select_option("score")
    colours = {row: point["color"] for row, point in drawn(seen).items()}
    assert colours[9] == pytest.approx(9.0, abs=(10 - 1) / 60)  # a shade
    assert colours[4] == colours[15] == "#8c8c8c"
    assert "grey: no score" in seen.locator(".ddpo-map-legend").text_content()
    seen.get_by_label("ddpo-both").uncheck()
    assert sorted(drawn(seen)) == list(range(12))


def test_points_are_painted_in_the_colour_of_their_number(browser, tmp_path):
    """Six kinds of marks and 900 different numbers: what is on the screen, not what the drawing was told."""
    rows = np.arange(900)
    points = many(900).assign(**{"x semantic": rows % 30, "y semantic": rows // 30, "score": rows % 50})
    points["who"] = np.repeat(["train", "test", "ddpo-both", "dorpo-both", "dpo", "sft"], [400, 260, 60, 60, 60, 60])
    watched = Watched(browser)
    page = shown(watched, written(tmp_path, deviation_map.page(points)))
    page.wait_for_timeout(500)
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), dtype=float)
    order = points["deviation semantic"].rank(pct=True).to_numpy()
    asked = rows[:400:7]  # filled circles
    pixels = np.array([page.evaluate(PIXEL, int(row)) for row in asked]).round().astype(int)
    painted = picture[pixels[:, 1], pixels[:, 0]]
    blue_to_yellow = painted[:, 0] - painted[:, 2]  # rises all the way in cividis
    assert np.corrcoef(order[asked], blue_to_yellow)[0, 1] > 0.95
    assert watched.errors == []


def test_search_keeps_hits_bright_and_counts_them(seen):
    seen.get_by_label("Search").fill("dragon")
    seen.wait_for_function("() => document.querySelector('.ddpo-map output').textContent === '2 hits'")
    bright = {row for row, point in drawn(seen).items() if point["opacity"] > 0.5}
    assert bright == {4, 9}
    seen.get_by_role("button", name="List the hits").click()
    assert words(seen).startswith("2 responses selected.")
    assert seen.locator("summary").evaluate_all("all => all.map(s => s.textContent.slice(0, 8))") == [
        "A dragon",
        "The DRAG",
    ]


def test_lasso_lists_what_it_holds_and_saves_it_as_the_project_reads_it(seen, tmp_path):
    lasso(seen, [1, 2, 5, 6, 9, 10, 13, 14])  # the grid's two middle columns
    assert words(seen).startswith("8 responses selected.")
    entries = seen.locator(".ddpo-map-reader details")
    assert entries.count() == 8
    entries.nth(2).locator("summary").press("Enter")
    entries.nth(2).locator(".ddpo-map-text").wait_for()
    assert entries.nth(2).locator(".ddpo-map-text p").all_text_contents() == TEXTS[5].split("\n")
    with seen.expect_download() as download:
        seen.get_by_role("button", name="Save 8 as JSONL").click()
    download.value.save_as(tmp_path / "selection.jsonl")
    read = read_corpus(tmp_path / "selection.jsonl")
    expected = table().iloc[[1, 2, 5, 6, 9, 10, 13]]  # less the one without text
    pd.testing.assert_frame_equal(
        read[["prompt", "text", "score", "source"]],
        expected[["prompt", "text", "score"]].assign(source=expected["who"]).reset_index(drop=True),
    )
    first = json.loads((tmp_path / "selection.jsonl").read_text(encoding="utf-8").splitlines()[0])["responses"][0]
    assert first["deviation semantic"] == pytest.approx(1 / 16, abs=1e-4)
    seen.mouse.click(*seen.evaluate(PIXEL, 0))
    assert "counts the hens twice" in words(seen)
    seen.get_by_role("button", name="Back to the 8 selected").click()
    seen.get_by_label("Space").select_option("style")
    assert {row for row, point in drawn(seen).items() if point["opacity"] > 0.5} == {1, 2, 5, 6, 9, 10, 13, 14}
    seen.get_by_role("button", name="Clear").click()
    assert {point["opacity"] for point in drawn(seen).values()} == {0.85}


def test_the_box_selects_too(seen):
    seen.locator(".modebar-btn[data-title='Box Select']").click()
    lasso(seen, [0, 1, 4, 5], corners=[(1, 1)])
    assert words(seen).startswith("4 responses selected.")


def test_a_window_made_narrow_draws_the_map_anew_and_answers(seen):
    height = "document.querySelector('.ddpo-map-plot')._fullLayout._size.h"
    seen.set_viewport_size({"width": 500, "height": 900})
    seen.wait_for_function(
        "document.querySelector('.ddpo-map-plot')._fullLayout.coloraxis.colorbar.orientation === 'h'"
    )
    assert seen.evaluate(height) > 300
    seen.locator(".ddpo-map-plot").scroll_into_view_if_needed()
    lasso(seen, [5, 6])
    assert words(seen).startswith("2 responses selected.")


def test_dark_mode_redraws_in_its_own_colours(seen):
    colour = "document.querySelector('.ddpo-map-plot')._fullLayout.font.color"
    assert seen.evaluate(colour) == "rgb(17, 17, 17)"
    seen.evaluate("document.documentElement.dataset.theme = 'dark'")
    seen.wait_for_function(f"{colour} === 'rgb(238, 238, 238)'")
    layout = seen.evaluate(
        "(({paper_bgcolor, plot_bgcolor}) => [paper_bgcolor, plot_bgcolor])"
        "(document.querySelector('.ddpo-map-plot')._fullLayout)"
    )
    assert layout == ["rgba(0,0,0,0)", "rgba(0,0,0,0)"]


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, place):
    watched = Watched(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = shown(watched, place)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 390
    assert page.locator(".ddpo-map-plot").bounding_box()["height"] >= 320
    for row in (6, 8):
        page.evaluate("document.querySelector('.ddpo-map-plot').scrollIntoView()")
        page.touchscreen.tap(*page.evaluate(PIXEL, row))
        page.wait_for_function(
            "start => document.querySelector('.ddpo-map-text')?.textContent.startsWith(start)", arg=TEXTS[row][:20]
        )
        assert page.evaluate(width) == 390
    assert watched.outside() == watched.errors == []


def test_two_maps_on_a_page_load_the_scripts_once(browser, tmp_path):
    place = written(tmp_path, deviation_map.page(table()), deviation_map.page(many(60)))
    watched = Watched(browser)
    page = shown(watched, place)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.ddpo-map-plot')].every(plot => plot._fullData?.length)"
    )
    assert page.locator(".ddpo-map-plot").count() == 2
    loaded = [url.rsplit("/", 1)[1] for url in watched.requests if url.endswith(".js")]
    assert sorted(loaded) == ["deviation_map.js", "parts.js", "plotly.min.js"]
    assert watched.outside() == watched.errors == []


def test_without_webgl_svg_draws_the_same_map(launch, place):
    browser = launch("--disable-3d-apis")
    page = shown(Watched(browser), place)
    assert {point["type"] for point in drawn(page).values()} == {"scatter"}
    assert "Ahenthatreadsmaps" in hovered(page, 10)
    lasso(page, [0, 1, 4, 5])
    assert words(page).startswith("4 responses selected.")
    browser.close()


def test_without_the_scripts_the_words_stay(browser, tmp_path):
    (tmp_path / "page.html").write_text(HEAD + deviation_map.page(table()), encoding="utf-8")
    page = Watched(browser).open(tmp_path / "page.html")
    page.wait_for_load_state("networkidle")
    assert "open the notebook explore" in page.locator(".ddpo-still").text_content()


def test_more_than_ten_thousand_are_drawn_at_random_and_still_answer(browser, tmp_path):
    points = many(10_500)
    page = deviation_map.page(points)
    assert page == deviation_map.page(points)
    data = unpacked(page)
    assert len(set(data["row"])) == 10_000 and max(data["row"]) > 10_400
    assert [points["text"][row] for row in data["row"]] == data["text"]
    watched = Watched(browser)
    page = shown(watched, written(tmp_path, page))
    assert "10,000 of 10,500 responses, drawn at random" in page.locator(".ddpo-map-note").text_content()
    assert len(drawn(page)) == 10_000
    hits = sum("dragon" in text for text in data["text"])
    page.get_by_label("Search").fill("dragon")
    page.wait_for_function(
        "hits => document.querySelector('.ddpo-map output').textContent === hits", arg=f"{hits:,} hits"
    )
    page.get_by_role("button", name="List the hits").click()
    assert f"{hits:,} responses selected; the first 200 are listed" in words(page)
    assert page.locator("details").count() == 200
    assert watched.outside() == watched.errors == []


def test_texts_that_do_not_fit_are_cut_to_the_longest_opening_that_does(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(deviation_map, "PAGE_BYTES", 30_000)
    points = table()
    page = deviation_map.page(points)
    data = unpacked(page)
    size = len(re.search(r'base64">([^<]*)<', page).group(1))
    assert 29_800 < size <= 30_000
    assert data["text"] == [text[: data["longest"]] for text in TEXTS]
    assert [row for row, cut in enumerate(data["cut"]) if cut] == [6]
    page = shown(Watched(browser), written(tmp_path, page))
    page.mouse.click(*page.evaluate(PIXEL, 6))
    page.wait_for_selector(".ddpo-map-text")
    assert (
        f"The first {data['longest']:,} characters; the whole text is in JupyterLab: make lab, notebook explore"
        in words(page)
    )


def test_a_story_of_the_captions_is_found_with_its_words(browser, tmp_path):
    path = PROJECT.parent / "shared" / "data" / "newyorker_captions.jsonl"
    if not path.exists():
        pytest.skip("shared/data is not beside the project")
    corpus = read_corpus(path).head(400)
    numbers = many(len(corpus))
    points = numbers.assign(**{c: corpus[c].to_numpy() for c in ("prompt_id", "prompt", "text", "score")})
    page = shown(Watched(browser), written(tmp_path, deviation_map.page(points)))
    page.get_by_label("Search").fill(corpus["text"][123].upper())
    page.wait_for_function("() => document.querySelector('.ddpo-map output').textContent === '1 hit'")
    page.get_by_role("button", name="List the hits").click()
    page.locator("summary").click()
    assert page.locator(".ddpo-map-text").text_content() == corpus["text"][123]


def test_a_table_that_cannot_be_a_map_says_what_it_lacks():
    with pytest.raises(InputError, match=r"lacks: who, prompt y style"):
        deviation_map.page(table().drop(columns=["who", "prompt y style"]))
    with pytest.raises(InputError, match="lacks: rows"):
        deviation_map.page(table().iloc[:0])
    with pytest.raises(InputError, match="deviation S"):
        deviation_map.page(table().drop(columns=["deviation semantic", "deviation style"]))


def test_arms_have_the_marks_of_the_book_and_none_is_given_twice():
    arms = [
        "sft",
        "dpo",
        "orpo",
        "ddpo-semantic",
        "ddpo-style",
        "ddpo-both",
        "dorpo-semantic",
        "dorpo-style",
        "dorpo-both",
        "divpo",
    ]
    points = many(120).assign(who=np.tile(["train", "test", *arms], 10))
    shapes = {who["name"]: who["shape"] for who in unpacked(deviation_map.page(points))["who"]}
    assert list(shapes)[:2] == ["train", "test"] and set(shapes) == {"train", "test", *arms}
    assert len(set(shapes.values())) == 12
    assert (shapes["dpo"], shapes["ddpo-both"], shapes["dorpo-both"]) == ("triangle-up", "diamond", "diamond-open")


def test_the_widget_saves_its_selection_as_the_project_reads_it(tmp_path):
    chart = deviation_map.DeviationMap(table())
    with pytest.raises(InputError, match="no text is selected"):
        chart.save(tmp_path / "mine.jsonl")
    assert not list(tmp_path.iterdir())
    chart.selected = [2, 9, 12, 14]
    assert chart.selection.equals(table().iloc[[2, 9, 12, 14]])
    assert chart.save(tmp_path / "mine.jsonl") == tmp_path / "mine.jsonl"
    read = read_corpus(tmp_path / "mine.jsonl")
    assert read["text"].tolist() == [TEXTS[2], TEXTS[9], TEXTS[12]]
    assert read["source"].tolist() == ["train", "test", "ddpo-both"]
    assert read["score"].tolist()[:2] == [3.0, 9.0] and np.isnan(read["score"][2])
    assert deviation_map.DeviationMap(table())._plotly is chart._plotly  # plotly.js goes to the browser once a kernel


# --- JupyterLab ---

CELLS = (
    "import pandas as pd\n"
    "from ddpo_lib.interactive.deviation_map import DeviationMap\n"
    "points = pd.read_parquet('points.parquet')\n"
    "chart = DeviationMap(points)\n"
    "chart.selected = [3]\n"
    "chart.observe(lambda change: chart.save('selected.jsonl'), 'selected')\n"
    "chart",
    "DeviationMap(points)",
)


RUN_ALL = """async () => {
  const notebook = window.jupyterapp.shell.currentWidget;
  await notebook.sessionContext.ready;
  await notebook.sessionContext.session.kernel.info;
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
}"""


@pytest.fixture
def lab(tmp_path):
    """The address of a notebook in a JupyterLab of its own, and its folder."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    folder = tmp_path / "lab"
    folder.mkdir()
    table().to_parquet(folder / "points.parquet")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "map.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    options = {
        "ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "ServerApp.root_dir": folder, "ServerApp.allow_root": True,
        "IdentityProvider.token": token, "LabApp.expose_app_in_browser": True, "LabApp.extension_manager": "readonly",
        "LabApp.news_url": "None",
    }  # fmt: skip
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "RUNTIME")} | {"HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with (tmp_path / "log").open("w") as log:
        environment = {**os.environ, **own, "PYTHONPATH": str(PROJECT)}
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}/lab/tree/map.ipynb?reset&token={token}", folder
    server.terminate()
    server.wait(timeout=20)


def test_in_jupyterlab_a_lasso_reaches_the_kernel(browser, lab):
    address, folder = lab
    watched = Watched(browser)
    page = watched.page
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        try:
            page.goto(address)
            break
        except Exception:  # the server is not up yet
            time.sleep(0.3)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=40_000)
    page.evaluate(RUN_ALL)
    page.wait_for_function(
        "() => { const plots = [...document.querySelectorAll('.ddpo-map-plot')];"
        " return plots.length === 2 && plots.every(plot => plot._fullData?.length) }",
        timeout=40_000,
    )
    assert sorted(drawn(page)) == list(range(16))
    assert words(page).startswith("1 response selected.")  # what Python had set
    page.locator(".ddpo-map-plot").first.scroll_into_view_if_needed()
    lasso(page, [1, 2, 5, 6])
    page.wait_for_function("() => document.querySelector('.ddpo-map-reader').textContent.startsWith('4 responses')")
    deadline = time.monotonic() + 20
    while not (folder / "selected.jsonl").exists() and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert read_corpus(folder / "selected.jsonl")["text"].tolist() == [TEXTS[i].strip() for i in (1, 2, 5, 6)]
    assert page.evaluate("window.pwned") is None
    assert watched.outside(re.search(r"127.0.0.1:\d+", address).group()) == []
