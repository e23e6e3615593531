"""The quality-diversity plane as a reader meets it, in Chromium from file://, against the kept run's fronts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Watched
from part_pages import opened, too_faint, unpacked, written
from scipy import stats

from ddpo_lib.interactive import quality_plane
from ddpo_lib.report import figures

KEPT = Path(__file__).parents[2] / "results" / "embedded" / "fronts"
MARKS = """() => [...document.querySelectorAll(".ddpo-mark")].map((mark) => ({
  name: mark.getAttribute("aria-label"), place: mark.getAttribute("transform").match(/[-\\d.]+/g).map(Number),
  size: mark.querySelector(":scope > path").getBoundingClientRect().width,
}))"""
TICKS = """() => [...document.querySelectorAll(".ddpo-axes > g")].map((tick) => [
  Number(tick.textContent), ...tick.getAttribute("transform").match(/[-\\d.]+/g).map(Number)])"""


@pytest.fixture(scope="module")
def fronts() -> dict:
    return json.loads((KEPT / "fronts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def by_prompt() -> pd.DataFrame:
    return pd.read_parquet(KEPT / "by_prompt.parquet")


def part(fronts: dict, by_prompt: pd.DataFrame) -> str:
    return quality_plane.page(
        fronts, by_prompt, baseline="dpo", quality="stand-in reward", confidence=0.95,
        still='<img alt="Quality falls as diversity rises.">', caption="Up and right.",
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(fronts, by_prompt, tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("book"), part(fronts, by_prompt))


@pytest.fixture
def watched(browser):
    watched = Watched(browser)
    yield watched
    assert watched.outside() == watched.errors == []
    watched.page.context.close()


@pytest.fixture
def seen(watched, place):
    return opened(watched, place)


def values(page) -> dict[str, tuple[float, float]]:
    """Where each mark is, in the units of the axes, as a reader would read it off the ticks."""
    ticks, width = np.array(page.evaluate(TICKS)), page.locator(".ddpo-plot").bounding_box()["width"]
    left = ticks[:, 1].min()
    across, up = ticks[ticks[:, 1] > left], ticks[ticks[:, 1] == left]
    assert len(across) >= 2 and len(up) >= 2 and across[:, 1].max() < width
    x, y = np.polyfit(across[:, 1], across[:, 0], 1), np.polyfit(up[:, 2], up[:, 0], 1)
    return {
        mark["name"]: (np.polyval(x, mark["place"][0]), np.polyval(y, mark["place"][1]))
        for mark in page.evaluate(MARKS)
    }


def expected(fronts: dict, space: str) -> dict[str, tuple[float, float]]:
    return {
        f"{figures.name(arm)}, temperature {point['temperature']:g}": (point["diversity"], point["quality"])
        for arm, curve in fronts["spaces"][space]["curves"].items()
        for point in curve
    }


def reach(page, name: str, tap: bool = False) -> None:
    """Point at the middle of a mark, or tap it, whatever lies over it."""
    page.locator(".ddpo-plot").scroll_into_view_if_needed()
    left, top = (page.locator(".ddpo-plot").bounding_box()[side] for side in ("x", "y"))
    (place,) = [mark["place"] for mark in page.evaluate(MARKS) if mark["name"] == name]
    (page.touchscreen.tap if tap else page.mouse.move)(left + place[0], top + place[1])


def read(page) -> str:
    return page.get_by_role("status").text_content()


def test_marks_are_where_the_fronts_say_by_either_measure(seen, fronts):
    for space in ("semantic", "style"):
        seen.get_by_role("combobox").select_option(f"{space} diversity")
        found, wanted = values(seen), expected(fronts, space)
        assert found.keys() == wanted.keys()
        for name, place in wanted.items():
            assert found[name] == pytest.approx(place, abs=1e-6)
        assert f"{space} diversity" in seen.locator(".ddpo-axes").text_content()


def test_a_hotter_mark_is_larger_and_each_arm_has_the_mark_of_the_figures(seen):
    size = {mark["name"]: mark["size"] for mark in seen.evaluate(MARKS)}
    for arm in ("dpo", "ddpo-both", "sft"):
        assert size[f"{figures.name(arm)}, temperature 1.3"] > size[f"{figures.name(arm)}, temperature 1"]
        drawn = seen.get_by_label(f"{figures.name(arm)}, temperature 1", exact=True).locator("path")
        assert drawn.get_attribute("d") == figures.outline(arm)
    points = {"dpo": 3, "ddpo-both": 4}  # a triangle that points up, a diamond
    for arm, corners in points.items():
        assert len(figures.outline(arm).rstrip("Z").replace("M", "L").split("L")[1:]) == corners
    assert figures.outline("dpo").startswith("M0.000 -0.500")


def test_a_mark_is_read_out_with_its_intervals_and_what_the_run_found_at_equal_diversity(seen, fronts, by_prompt):
    for space, label in (("semantic", "semantic diversity"), ("style", "style diversity")):
        seen.get_by_role("combobox").select_option(label)
        for arm, curve in fronts["spaces"][space]["curves"].items():
            for point in curve:
                reach(seen, f"{figures.name(arm)}, temperature {point['temperature']:g}")
                words = read(seen)
                of = by_prompt.query("arm == @arm and temperature == @point['temperature']")
                for column, what in ((space, label), ("quality", "stand-in reward")):
                    mean, half = of[column].mean(), stats.sem(of[column]) * stats.t.ppf(0.975, len(of) - 1)
                    assert f"{what} {mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]" in words
                cut = next(c["share"] for c in fronts["cut"][arm] if c["temperature"] == point["temperature"])
                assert f"{len(of)} prompts; {cut:.0%} of the samples are truncated." in words
                matched = fronts["spaces"][space]["matched"].get(arm)
                compared = matched is not None and point["temperature"] == fronts["temperature"]
                assert ("At this diversity" in words or "does not reach this diversity" in words) == compared
                if compared and matched["mean"] is None:
                    assert words.endswith(" DPO does not reach this diversity at any sampled temperature.")
                elif compared:
                    assert f"minus that of DPO is {figures.interval(matched, sign=True)}." in words


def test_arms_go_and_come_back_and_the_axes_stay(seen, fronts):
    before = seen.evaluate(TICKS)
    seen.get_by_role("checkbox", name="SFT").uncheck()
    assert values(seen).keys() == {name for name in expected(fronts, "semantic") if not name.startswith("SFT")}
    assert seen.evaluate(TICKS) == before and seen.locator("polyline").count() == 2
    seen.get_by_role("checkbox", name="SFT").check()
    assert seen.locator("polyline").count() == 3
    for name in ("SFT", "DPO", "DDPO-both"):
        seen.get_by_role("checkbox", name=name, exact=True).uncheck()
    assert read(seen) == "No arm is chosen." and not seen.locator(".ddpo-mark").count()


def test_intervals_are_drawn_on_demand_where_the_prompts_put_them(seen, fronts, by_prompt):
    assert not seen.locator(".ddpo-ends").count()
    seen.get_by_label("95% intervals").check()
    assert seen.locator(".ddpo-ends").count() == 6
    found = values(seen)
    for name, place in expected(fronts, "semantic").items():
        assert found[name] == pytest.approx(place, abs=1e-6)
    ticks = np.array(seen.evaluate(TICKS))
    up = ticks[ticks[:, 1] == ticks[:, 1].min()]
    at = np.polyfit(up[:, 0], up[:, 2], 1)
    of = by_prompt.query("arm == 'dpo' and temperature == 1.3")["quality"]
    half = stats.sem(of) * stats.t.ppf(0.975, len(of) - 1)
    drawn = seen.locator(".ddpo-curve").nth(1).locator(".ddpo-ends").nth(1).get_attribute("d")
    low, high = (float(part) for part in drawn.rsplit("M", 1)[1].split(" ")[1].split("V"))
    assert [low, high] == pytest.approx([np.polyval(at, of.mean() - half), np.polyval(at, of.mean() + half)], abs=1e-3)


def test_the_keyboard_alone_reaches_every_mark(seen):
    seen.get_by_role("combobox").focus()
    for _ in range(5):  # three arms, the intervals, the first mark
        seen.keyboard.press("Tab")
    name = "document.activeElement.getAttribute('aria-label')"
    assert seen.evaluate(name) == "DDPO-both, temperature 1"
    walked = [read(seen)]
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowUp"):
        seen.keyboard.press(key)
        walked.append(read(seen))
        assert walked[-1].startswith(seen.evaluate(name).replace(", ", " at "))
        here = seen.locator(".ddpo-here")
        assert here.count() == 1 and float(here.evaluate("ring => parseFloat(getComputedStyle(ring).strokeWidth)")) == 3
    assert len(set(walked)) == 6
    seen.keyboard.press("ArrowLeft")
    assert read(seen) == walked[-1]  # the end of a curve
    seen.keyboard.press("Tab")
    assert not seen.evaluate("document.activeElement.closest('.ddpo-plot')")  # one stop for all marks


def test_an_arm_that_was_not_sampled_at_a_temperature_has_no_mark_there(watched, fronts, by_prompt, tmp_path):
    less = json.loads(json.dumps(fronts))
    for found in less["spaces"].values():
        found["curves"]["sft"][1] |= {"diversity": None, "quality": None}
    less["cut"]["sft"] = less["cut"]["sft"][:1]
    rows = by_prompt.query("not (arm == 'sft' and temperature == 1.3)")
    page = opened(watched, written(tmp_path, part(less, rows)))
    assert len(values(page)) == 5 and "SFT, temperature 1.3" not in values(page)


def test_marks_at_one_place_are_all_named(watched, fronts, by_prompt, tmp_path):
    same = json.loads(json.dumps(fronts))
    for found in same["spaces"].values():
        found["curves"]["sft"][0] = found["curves"]["dpo"][1] | {"temperature": 1.0}
    page = opened(watched, written(tmp_path, part(same, by_prompt)))
    assert "At the same place" not in read(page)
    reach(page, "SFT, temperature 1")
    assert read(page).endswith(" At the same place: DPO at temperature 1.3.")
    reach(page, "SFT, temperature 1.3")
    assert "At the same place" not in read(page)


def test_of_marks_that_lie_over_one_another_the_nearest_is_read_out(watched, fronts, by_prompt, tmp_path):
    close = json.loads(json.dumps(fronts))
    for found in close["spaces"].values():
        apart = 0.006 * np.ptp([point["diversity"] for curve in found["curves"].values() for point in curve])  # ~6 px
        dpo, sft = found["curves"]["dpo"][0], found["curves"]["sft"]
        sft[0] |= {"diversity": dpo["diversity"] + apart, "quality": dpo["quality"]}
    page = opened(watched, written(tmp_path, part(close, by_prompt)))
    for name in ("DPO", "SFT", "DPO"):
        reach(page, f"{name}, temperature 1")
        assert read(page).startswith(f"{name} at temperature 1:")
        assert "At the same place" in read(page)


def test_one_prompt_has_marks_and_no_intervals(watched, fronts, by_prompt, tmp_path):
    page = opened(watched, written(tmp_path, part(fronts, by_prompt.query("prompt_id == 'p00000'"))))
    page.get_by_label("95% intervals").check()
    assert page.locator(".ddpo-mark").count() == 6 and not page.locator(".ddpo-ends").count()
    reach(page, page.evaluate(MARKS)[0]["name"])
    assert "[no interval]" in read(page)


def test_names_of_users_are_only_text(watched, fronts, by_prompt, tmp_path):
    name = '"><img src=x onerror="window.mark = 1">'
    renamed = json.loads(json.dumps(fronts))
    for of in (renamed["cut"], *(found[key] for found in renamed["spaces"].values() for key in ("curves", "matched"))):
        of[name] = of.pop("sft")
    html = part(renamed, by_prompt.replace({"arm": {"sft": name}}))
    assert unpacked(html)["arms"][2]["name"] == name and name not in html
    page = opened(watched, written(tmp_path, html))
    reach(page, f"{name}, temperature 1")
    assert read(page).startswith(name) and page.evaluate("window.mark") is None


def test_on_a_phone_a_tap_reads_a_mark_and_nothing_is_wider_than_the_screen(browser, place):
    watched = Watched(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = opened(watched, place)
    reach(page, "DDPO-both, temperature 1.3", tap=True)
    assert read(page).startswith("DDPO-both at temperature 1.3: semantic diversity")
    page.get_by_label("95% intervals").tap()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".ddpo-own").evaluate("root => root.scrollWidth <= root.clientWidth")
    assert page.locator(".ddpo-axes text").first.evaluate("text => parseFloat(getComputedStyle(text).fontSize)") >= 12
    assert watched.outside() == watched.errors == []


def test_a_window_made_narrow_draws_the_plane_anew(seen, fronts):
    seen.set_viewport_size({"width": 500, "height": 900})
    seen.wait_for_function("() => document.querySelector('.ddpo-plot svg').getBoundingClientRect().right <= 500")
    for name, place in expected(fronts, "semantic").items():
        assert values(seen)[name] == pytest.approx(place, abs=1e-6)


def test_contrast_is_enough_in_light_and_in_dark(seen):
    seen.get_by_label("95% intervals").check()
    reach(seen, seen.evaluate(MARKS)[0]["name"])
    assert too_faint(seen) == []


def test_print_and_readers_without_scripts_see_the_picture(browser, place):
    page = opened(Watched(browser), place)
    page.emulate_media(media="print")
    assert page.locator(".ddpo-still").is_visible() and not page.locator(".ddpo-part").is_visible()
    page = Watched(browser, java_script_enabled=False).open(place)
    assert page.get_by_role("img", name="Quality falls as diversity rises.").is_visible()
