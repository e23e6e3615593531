"""The calculator of precision in Chromium from file://: its numbers are those of `evaluation.sharpness`."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Watched
from part_pages import focus_width, nameless, opened, too_faint, written
from scipy.stats import chi2, t

from ddpo_lib.evaluation.compare_arms import HEADLINE
from ddpo_lib.evaluation.precision import LEVELS
from ddpo_lib.evaluation.sharpness import Cost, costs_of, project, variances
from ddpo_lib.interactive import power as calculator

ROOT = ".ddpo-power"
KEPT = Path(__file__).parents[2] / "results" / "embedded"
ARM, AGAINST, CONFIDENCE = "ddpo-both", "dpo", 0.95
HALVES = "[...document.querySelectorAll('[data-half]')].map(cell => parseFloat(cell.dataset.half))"


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads((KEPT / "evaluation" / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def claims(results) -> list[dict]:
    return [claim for claim in results["claims"] if (claim["arm"], claim["against"]) == (ARM, AGAINST)]


@pytest.fixture(scope="module")
def found() -> dict[str, pd.DataFrame]:
    """Components of variance of the maintainers' run."""
    by_set = pd.read_parquet(KEPT / "sharpness" / "by_set.parquet")
    return {measure: variances(by_set, ARM, AGAINST, measure) for measure in HEADLINE}


@pytest.fixture(scope="module")
def here(found) -> dict[str, int]:
    return {name: int(found["semantic"].iloc[-1][name]) for name in ("prompts", "samples", "seeds")}


@pytest.fixture(scope="module")
def cost(here) -> Cost:
    seconds = json.loads((KEPT / "sharpness" / "costs.json").read_text(encoding="utf-8"))
    return costs_of(seconds, ARM, AGAINST, **here)


@pytest.fixture(scope="module")
def place(tmp_path_factory, found, cost, results, claims):
    part = calculator.power(found, cost, results, claims, confidence=CONFIDENCE)
    return written(tmp_path_factory.mktemp("book"), part)


@pytest.fixture
def page(browser, place):
    """The calculator, drawn; afterwards nothing was asked of a network and nothing went wrong."""
    watched = Watched(browser)
    page = opened(watched, place)
    yield page
    assert watched.outside() == [] and watched.errors == []
    page.context.close()


def number(page, name: str):
    return page.get_by_role("spinbutton", name=name)


def choose(page, prompts: int, samples: int, seeds: int) -> None:
    for name, value in (("Held-out prompts", prompts), ("Samples per prompt", samples), ("Training seeds", seeds)):
        number(page, name).fill(str(value))


def answer(page) -> str:
    page.wait_for_timeout(450)
    return page.locator(f"{ROOT} [role=status]").text_content()


def test_half_widths_are_those_of_python_for_any_choice(page, found, claims):
    for prompts, samples, seeds in product((2, 3, 36, 400), (2, 64), (1, 2, 20)):
        choose(page, prompts, samples, seeds)
        expected = [project(found[claim["measure"]], prompts, samples, seeds, CONFIDENCE) for claim in claims]
        np.testing.assert_allclose(page.evaluate(HALVES), expected, rtol=1e-9, err_msg=f"{prompts} {samples} {seeds}")


def test_half_widths_of_other_variances_are_those_of_python(page):
    """Where only prompts, only seeds or neither vary, and with more seeds than prompts."""
    quantiles = calculator.quantiles(0.9)
    choices = [(2, 4, 2), (5, 8, 12), (30, 2, 30), (300, 16, 1), (12, 4, 3)]
    for parts in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.02, 3.0, 0.5), (0.0, 0.0, 0.0)):
        named = dict(zip(("prompt", "seed", "residual"), parts, strict=True))
        table = pd.DataFrame([{"samples": 4, "prompts": 9, "seeds": 3, "mean": 0.1, **named}])
        measure = calculator._measure(table, {"measure": "style", "difference": {"low": -1.0, "high": 1.0}})
        halves = page.evaluate(
            "([measure, choices, quantiles]) => choices.map(([prompts, samples, seeds]) => "
            "ddpoPower.halfWidth(measure, { prompts, samples, seeds }, quantiles))",
            [measure, choices, quantiles],
        )
        expected = [project(table, *choice, 0.9) for choice in choices]
        np.testing.assert_allclose(halves, expected, rtol=1e-9, atol=1e-12, err_msg=str(parts))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_quantiles_between_those_of_scipy_are_as_good(confidence):
    series = calculator.quantiles(confidence)
    k = np.unique(np.geomspace(1, 1e6, 2000).astype(int))
    for level, coefficients in zip(LEVELS + 0.5, series["chi2"], strict=True):
        of_k = np.polynomial.chebyshev.chebval(2 / np.sqrt(k) - 1, coefficients) ** 3
        np.testing.assert_allclose(of_k, chi2.ppf(level, k) / k, rtol=1e-9, atol=1e-11)
    freedom = np.geomspace(1, 1e6, 2000)
    of_t = np.exp(np.polynomial.chebyshev.chebval(2 / freedom - 1, series["t"]))
    np.testing.assert_allclose(of_t, t.ppf((1 + confidence) / 2, freedom), rtol=1e-9)


def test_it_opens_with_this_run_and_tells_its_minutes(page, here, cost, found, claims):
    told = answer(page)
    assert told.startswith(f"{here['prompts']} prompts, {here['samples']} samples each, {here['seeds']} seeds: ")
    assert f": {cost.minutes(**here):.0f} minutes." in told
    halves = [project(found[claim["measure"]], **here, confidence=CONFIDENCE) for claim in claims]
    for claim, half in zip(claims, halves, strict=True):
        assert f"{claim['measure']} {half:.4f}" in told
    choose(page, 40, 64, 20)
    assert f": {cost.minutes(40, 64, 20) / 60:.1f} hours." in answer(page)
    page.get_by_role("button", name="Back to this run").click()
    assert answer(page) == told
    np.testing.assert_allclose(page.evaluate(HALVES), halves, rtol=1e-9)


def test_a_claim_is_decidable_from_the_size_that_exceeds_its_half_width(page, claims):
    row = page.locator(f"{ROOT} tbody tr").first
    half = page.evaluate(HALVES)[0]
    size = page.get_by_label(f"Size of the effect on {claims[0]['measure']}")
    size.fill(f"{half * 1.01:.8f}")
    assert row.locator("td").last.text_content() == "yes"
    assert re.search(rf"Decidable: {claims[0]['measure']}\b", answer(page))
    size.fill(f"{half * 0.99:.8f}")
    assert row.locator("td").last.text_content() == "no"
    choose(page, 400, 64, 20)
    assert row.locator("td").last.text_content() == "yes"
    page.get_by_role("button", name=f"{claims[0]['measure']}: the difference in this run").click()
    assert float(size.input_value()) == pytest.approx(abs(claims[0]["difference"]["mean"]), rel=0.05)


def test_sizes_are_the_gap_to_people_and_the_margin(results, claims):
    by_measure = {claim["measure"]: calculator.sizes(results, claim) for claim in claims}
    gap = results["arms"]["gold"]["semantic"]["mean"] - results["arms"]["dpo"]["semantic"]["mean"]
    assert by_measure["semantic"][0] == {"what": "from DPO to people’s texts", "size": pytest.approx(gap)}
    quality = next(claim for claim in claims if claim["measure"] == "quality")
    measured = {"what": "the difference in this run", "size": abs(quality["difference"]["mean"])}
    assert calculator.sizes(results, quality | {"margin": 0.01}) == [
        {"what": "the margin of the claim", "size": 0.01},
        measured,
    ]
    assert calculator.sizes(results, quality | {"margin": 0.0}) == [measured]  # no gain over SFT was shown
    alone = {"arms": {AGAINST: results["arms"][AGAINST]}}  # without people's texts
    (measured,) = calculator.sizes(alone, claims[0])
    assert measured == {"what": "the difference in this run", "size": abs(claims[0]["difference"]["mean"])}


def test_one_seed_is_told_to_leave_something_out(page):
    choose(page, 36, 8, 1)
    assert "One seed cannot show how much seeds differ" in answer(page)


def test_a_number_out_of_bounds_changes_nothing_and_is_marked(page, here):
    before = page.evaluate(HALVES)
    for typed in ("1", "", "100000"):
        number(page, "Held-out prompts").fill(typed)
        assert number(page, "Held-out prompts").get_attribute("aria-invalid") == "true"
        assert page.evaluate(HALVES) == before
    number(page, "Held-out prompts").press("Tab")
    assert number(page, "Held-out prompts").input_value() == str(here["prompts"])
    assert number(page, "Held-out prompts").get_attribute("aria-invalid") is None


def test_the_picture_is_of_the_chosen_measure_and_its_point_moves(page, claims):
    picture = page.locator(f"{ROOT} svg")
    spot = "document.querySelector('.ddpo-power-now').getAttribute('cx')"
    last = claims[-1]["measure"]
    page.get_by_label("Picture for").select_option(last)
    assert picture.get_attribute("aria-label").startswith(f"Half-width for {last} against minutes")
    before = float(page.evaluate(spot))
    number(page, "Training seeds").fill("12")
    assert float(page.evaluate(spot)) > before
    lines = picture.locator("polyline").evaluate_all(
        "all => all.map(line => line.getAttribute('points').split(' ').length)"
    )
    assert len(lines) == 3 and min(lines) >= 10
    assert "NaN" not in picture.inner_html()


def test_the_keyboard_alone_changes_everything(page, here):
    page.evaluate("document.activeElement.blur()")
    names, widths = [], []
    for _ in range(40):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? document.activeElement.labels?.[0]?.textContent"
            )
        )
        widths.append(focus_width(page))
        if names[-1] == "Training seeds, slider":
            break
    assert [re.sub(r" \(.*", "", name) for name in names] == [
        *("Held-out prompts", "Held-out prompts, slider", "Samples per prompt", "Samples per prompt, slider"),
        *("Training seeds", "Training seeds, slider"),
    ]
    assert min(widths) >= 2
    page.keyboard.press("ArrowRight")
    assert f"{here['seeds'] + 1} seeds" in answer(page)
    assert number(page, "Training seeds").input_value() == str(here["seeds"] + 1)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowUp")
    assert f"{here['seeds'] + 2} seeds" in answer(page)


def test_a_finger_works_and_nothing_is_wider_than_a_phone(browser, place, here):
    watched = Watched(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page = opened(watched, place)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    slider = page.get_by_label("Training seeds, slider")
    box = slider.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
    assert int(slider.input_value()) > here["seeds"] + 10
    assert f"{slider.input_value()} seeds" in answer(page)
    page.get_by_role("button", name="Back to this run").tap()
    assert f"{here['seeds']} seeds" in answer(page)
    assert watched.outside() == [] and watched.errors == []


def test_it_is_well_seen_in_light_and_dark(page):
    assert nameless(page) == too_faint(page) == []


def test_print_and_readers_without_scripts_get_the_numbers_of_this_run(page, found, here, claims):
    page.emulate_media(media="print")
    assert page.locator(".ddpo-still table").is_visible() and not page.locator(ROOT).is_visible()
    cells = page.locator(".ddpo-still tbody tr").evaluate_all(
        "all => all.map(row => [...row.children].map(cell => cell.textContent))"
    )
    for row, claim in zip(cells, claims, strict=True):
        difference = claim["difference"]
        assert row[:3] == [
            claim["claim"],
            claim["measure"],
            f"{project(found[claim['measure']], **here, confidence=CONFIDENCE):.4f}",
        ]
        assert row[3] == f"{(difference['high'] - difference['low']) / 2:.4f}"
    assert "half-width of the 95% interval" in page.locator(".ddpo-still p").text_content()
