"""Modes through training as a reader meets them, in Chromium from file://, against the traces of the stored grid."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Watched
from part_pages import opened, too_faint, unpacked, written
from scipy import stats

from ddpo_lib.interactive import modes_through_training
from ddpo_lib.report import figures
from ddpo_lib.worlds.grids import Grid, read_grid

STORED = Path(__file__).parents[2] / "results" / "worlds"
SLIDER = ".ddpo-time input"
SHOWN = """() => [...document.querySelectorAll(".ddpo-panel")].map((panel) => ({
  arm: panel.querySelector(".ddpo-head").textContent,
  bits: panel.querySelectorAll("strong")[0].textContent, rare: panel.querySelectorAll("strong")[1].textContent,
  modes: [...panel.querySelectorAll(".ddpo-mode")].map((each) => each.textContent),
  values: [...panel.querySelectorAll(".ddpo-value")].map((each) => each.textContent),
  bars: [...panel.querySelectorAll(".ddpo-bar")].map((each) => each.offsetWidth / each.parentElement.offsetWidth),
  striped: [...panel.querySelectorAll(".ddpo-bar")].map((each) => getComputedStyle(each).backgroundImage !== "none"),
}))"""


def part(grid: Grid) -> str:
    return modes_through_training.page(
        grid, "main", confidence=0.95, still='<img alt="DPO moves nothing.">', caption="Look & see."
    )


@pytest.fixture(scope="module")
def grid() -> Grid:
    return read_grid(STORED)


@pytest.fixture(scope="module")
def place(grid, tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("book"), part(grid))


@pytest.fixture
def watched(browser):
    watched = Watched(browser, reduced_motion="reduce")
    yield watched
    assert watched.outside() == watched.errors == []
    watched.page.context.close()


@pytest.fixture
def seen(watched, place):
    return opened(watched, place)


def trace(grid: Grid, row: str, seeds: list[int], stop: int) -> pd.DataFrame:
    """The measurement number `stop` of a row, from the table itself; one row per seed."""
    of = grid.traces.query("world == 'main' and row == @row and seed in @seeds").sort_values(["seed", "share"])
    return of.groupby("seed").nth(stop)


def texts(values: np.ndarray, style: str) -> str:
    """A mean over seeds with Student's interval, as the page should write it."""
    if len(values) == 1:
        return style.format(values[0])
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    mean, low, high = (style.format(values.mean() + way * half) for way in (0, -1, 1))
    return f"{mean} [{low}, {high}]"


def expected(grid: Grid, row: str, kind: str, seeds: list[int], stop: int) -> dict:
    shares = np.stack(trace(grid, row, seeds, stop)[kind].to_numpy())
    rare = len(shares[0]) // 3
    return {
        "arm": figures.name(row),
        "bits": texts(stats.entropy(shares, base=2, axis=1), "{:.2f}"),
        "rare": texts(shares[:, -rare:].sum(axis=1), "{:.1%}"),
        "values": [f"{100 * share:.1f}%" for share in shares.mean(axis=0)],
    }


def assert_shows(page, wanted: list[dict]) -> None:
    found = page.evaluate(SHOWN)
    assert [{key: one[key] for key in wanted[0]} for one in found] == wanted


def test_every_measurement_is_that_of_the_traces(seen, grid):
    slider = seen.locator(SLIDER)
    for stop in range(grid.settings.trace + 1):
        slider.fill(str(stop))
        assert_shows(seen, [expected(grid, row, "plots", list(range(10)), stop) for row in ("dpo", "ddpo-semantic")])
    shares = trace(grid, "dpo", list(range(10)), 2)["share"]
    slider.fill("2")
    assert (
        seen.locator(".ddpo-place").text_content() == f"after {shares.min():.0%} to {shares.max():.0%} of the training"
    )


def test_one_seed_other_modes_and_other_arms(seen, grid):
    seen.get_by_label("Seeds").select_option("seed 7")
    seen.get_by_label("Modes").select_option("voices")
    seen.get_by_role("checkbox", name="DDPO-style").check()
    seen.get_by_role("checkbox", name="DPO", exact=True).uncheck()
    seen.locator(SLIDER).fill("4")
    rows = ("ddpo-semantic", "ddpo-style")
    assert_shows(seen, [expected(grid, row, "voices", [7], 4) for row in rows])
    told = seen.get_by_role("status").text_content()
    bits = [expected(grid, row, "voices", [7], 4)["bits"] for row in rows]
    assert (
        told == f"After 100% of the training, seed 7: DDPO-semantic {bits[0]}; DDPO-style {bits[1]} bits over voices."
    )
    for name in ("DDPO-semantic", "DDPO-style"):
        seen.get_by_role("checkbox", name=name).uncheck()
    assert seen.get_by_role("status").text_content() == "No arm is chosen."


def test_bars_are_as_long_as_shares_on_one_scale_and_rare_modes_are_striped_and_named(seen, grid):
    seen.locator(SLIDER).fill("4")
    full = float(seen.locator(".ddpo-note").text_content().split("A full bar would be ")[1].split("%")[0]) / 100
    for shown, row in zip(seen.evaluate(SHOWN), ("dpo", "ddpo-semantic"), strict=True):
        shares = np.stack(trace(grid, row, list(range(10)), 4)["plots"].to_numpy()).mean(axis=0)
        assert shown["bars"] == pytest.approx(shares / full, abs=0.01)
        assert shown["striped"] == [False] * 4 + [True] * 2
        assert [name.endswith(" rare") for name in shown["modes"]] == shown["striped"]


def test_the_keyboard_alone_moves_plays_and_pauses(seen):
    seen.keyboard.press("Tab")
    names = []
    for _ in range(12):
        names.append(seen.evaluate("(document.activeElement.labels?.[0] ?? document.activeElement).textContent"))
        assert seen.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if names[-1].startswith("Training"):
            break
        seen.keyboard.press("Tab")
    assert [name for name in names if name.startswith(("DPO", "DDPO"))] == ["DPO", "DDPO-semantic", "DDPO-style"]
    slider, play = seen.locator(SLIDER), seen.locator(".ddpo-time button")
    seen.keyboard.press("ArrowRight")
    assert slider.input_value() == "1" and "of the training" in slider.get_attribute("aria-valuetext")
    seen.keyboard.press("Shift+Tab")
    assert play.text_content() == "Play"
    seen.keyboard.press("Enter")
    assert play.text_content() == "Pause" and slider.input_value() == "2"
    assert seen.get_by_role("status").get_attribute("aria-live") == "off"
    seen.keyboard.press("Enter")
    assert play.text_content() == "Play"
    seen.wait_for_timeout(1500)
    assert slider.input_value() == "2"
    seen.keyboard.press("Enter")
    seen.wait_for_function("() => document.querySelector('.ddpo-time input').value === '4'")
    seen.wait_for_timeout(1500)
    assert play.text_content() == "Play" and slider.input_value() == "4"
    assert seen.get_by_role("status").get_attribute("aria-live") == "polite"
    seen.keyboard.press("Enter")
    assert slider.input_value() == "0"


def test_bars_grow_slowly_only_where_the_reader_has_nothing_against_motion(browser, place):
    for motion, seconds in (("reduce", "0s"), ("no-preference", "0.5s")):
        page = opened(Watched(browser, reduced_motion=motion), place)
        assert page.locator(".ddpo-bar").first.evaluate("bar => getComputedStyle(bar).transitionDuration") == seconds
        assert page.locator(".ddpo-time button").text_content() == "Play"  # nothing moves by itself
        page.context.close()


def test_a_small_grid_of_one_arm_is_shown_with_the_measurements_that_all_seeds_have(watched, grid, tmp_path):
    """As the profile `smoke`: one traced arm, two seeds, three plots and two voices; a seed lacks a measurement."""

    def row(seed, share, plots, voices):
        return {"row": "dpo", "seed": seed, "world": "main", "share": share, "plots": plots, "voices": voices}

    traces = pd.DataFrame(
        [
            *(row(seed, 0.0, [0.5, 0.25, 0.25], [0.5, 0.5]) for seed in (0, 1)),
            row(0, 0.5, [1.0, 0.0, 0.0], [1.0, 0.0]),
            row(0, 1.0, [0.5, 0.5, 0.0], [0.75, 0.25]),
            row(1, 1.0, [0.25, 0.25, 0.5], [0.25, 0.75]),
        ]
    )
    truth = {"main": {"plots": [0.6, 0.3, 0.1], "voices": [0.7, 0.3]}}
    page = opened(watched, written(tmp_path, part(grid._replace(traces=traces, truth=truth))))
    (shown,) = page.evaluate(SHOWN)
    assert shown["bits"] == "1.50 [1.50, 1.50]" and shown["rare"] == "25.0% [25.0%, 25.0%]"
    assert shown["striped"] == [False, False, True]
    assert page.locator(SLIDER).get_attribute("max") == "1"
    page.locator(SLIDER).fill("1")
    (shown,) = page.evaluate(SHOWN)
    assert shown["values"] == ["37.5%", "37.5%", "25.0%"]
    page.get_by_label("Seeds").select_option("seed 0")
    (shown,) = page.evaluate(SHOWN)
    assert shown["values"] == ["50.0%", "50.0%", "0.0%"] and shown["bits"] == "1.00" and shown["rare"] == "0.0%"


def test_a_seed_without_a_readable_text_is_said_to_be_unknown(watched, grid, tmp_path):
    traces = grid.traces[grid.traces["row"] == "dpo"].copy()
    at = traces[(traces["seed"] == 3) & (traces["share"] == 1)].index[0]
    traces.at[at, "plots"] = np.full(6, np.nan)
    page = opened(watched, written(tmp_path, part(grid._replace(traces=traces))))
    page.locator(SLIDER).fill("4")
    (shown,) = page.evaluate(SHOWN)
    assert shown["bits"] == shown["rare"] == "unknown: in a seed, no text could be read"
    assert shown["values"] == ["—"] * 6


def test_a_world_without_traces_has_no_part(grid):
    with pytest.raises(ValueError, match="no row of 'null' was measured"):
        modes_through_training.page(grid, "null", confidence=0.95, still="", caption="")
    with pytest.raises(ValueError, match="no row of 'main' was measured"):
        part(grid._replace(traces=pd.DataFrame(columns=["row"])))


def test_names_of_users_are_only_text(watched, grid, tmp_path):
    name = '"><img src=x onerror="window.mark = 1">'
    settings = grid.settings.model_copy(update={"rows": {name: grid.settings.rows["dpo"]}})
    traces = grid.traces[grid.traces["row"] == "dpo"].assign(row=name)
    html = part(grid._replace(traces=traces, settings=settings))
    assert unpacked(html)["arms"][0]["name"] == name and name not in html
    page = opened(watched, written(tmp_path, html))
    assert page.evaluate("window.mark") is None and page.evaluate(SHOWN)[0]["arm"] == name


def test_on_a_phone_nothing_is_wider_than_the_screen_and_a_tap_moves(browser, place):
    watched = Watched(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = opened(watched, place)
    page.get_by_role("checkbox", name="DDPO-style").tap()
    page.locator(".ddpo-time button").tap()
    assert page.locator(SLIDER).input_value() == "1"
    page.locator(".ddpo-time button").tap()
    page.locator(SLIDER).tap()  # in the middle
    assert page.locator(SLIDER).input_value() == "2"
    assert page.locator(".ddpo-panel").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".ddpo-own").evaluate("root => root.scrollWidth <= root.clientWidth")
    assert watched.outside() == watched.errors == []


def test_contrast_is_enough_in_light_and_in_dark(seen):
    seen.locator(SLIDER).fill("2")
    seen.get_by_role("checkbox", name="DDPO-style").check()
    assert too_faint(seen) == []


def test_print_and_readers_without_scripts_see_the_picture(browser, place, tmp_path, grid):
    page = opened(Watched(browser), place)
    assert not page.locator(".ddpo-still").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".ddpo-still").is_visible() and not page.locator(".ddpo-part").is_visible()
    page = Watched(browser, java_script_enabled=False).open(place)
    assert page.get_by_role("img", name="DPO moves nothing.").is_visible()
    assert page.locator("figcaption").text_content() == "Look & see."
