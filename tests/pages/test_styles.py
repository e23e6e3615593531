"""A style sheet keeps the rules that the pages can use, and a small font for the icons that these show."""

import matplotlib
import pytest
from fontTools.ttLib import TTFont

from ddpo_lib.pages.styles import shrink_icons, used_rules, with_urls

FONT = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"


@pytest.mark.parametrize(
    ("css", "kept"),
    [
        (".seen { color : red }", ".seen{color:red}"),
        (".unseen{color:red}", ""),
        ("a.seen .unseen{color:red}", ""),
        ("#here > .seen::before{content:'a  b'}", '#here > .seen::before{content:"a  b"}'),
        (".unseen,.seen,#gone{margin:0 !important}", ".seen{margin:0!important}"),
        ("p:not(.unseen){color:red}", "p:not(.unseen){color:red}"),
        ("[data-theme=dark] .seen{color:red}", "[data-theme=dark] .seen{color:red}"),
        (".bs-tooltip-auto .seen{color:red}", ".bs-tooltip-auto .seen{color:red}"),
        (".ddpo-bar-low{color:red}", ".ddpo-bar-low{color:red}"),
        ("@media print{.seen{color:red}.unseen{color:red}}", "@media print{.seen{color:red}}"),
        ("@media print{.unseen{color:red}}", ""),
        (":root{--empty:;--a:1px}", ":root{--empty: ;--a:1px}"),
        ("@keyframes turn{to{opacity:0}} .seen{color:red}", ".seen{color:red}"),
        (
            ".seen{animation:turn 1s}@keyframes turn{to{opacity:0}}",
            ".seen{animation:turn 1s}\n@keyframes turn{to{opacity:0}}",
        ),
        ("/* words */.seen{color:/* why */red}", ".seen{color:red}"),
    ],
)
def test_a_rule_stays_if_a_page_can_use_it(css, kept):
    assert used_rules(css, {"seen", "here"}) == kept


def test_the_order_of_rules_is_kept():
    css = ".b{top:1px}@media print{.a{top:2px}}.a{top:3px}"
    assert used_rules(css, {"a", "b"}).split("\n") == [".b{top:1px}", "@media print{.a{top:2px}}", ".a{top:3px}"]


def test_a_url_begins_where_the_new_sheet_lies(tmp_path):
    (tmp_path / "styles").mkdir()
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "a.ttf").touch()
    css = 'src:url("../fonts/a.ttf?v=1");mask:url(data:image/png;base64,AA);left:url(../none.png)'
    moved = with_urls(css, tmp_path / "styles", tmp_path)
    assert moved == "src:url(fonts/a.ttf);mask:url(data:image/png;base64,AA);left:url(../none.png)"


def test_an_icon_font_has_the_icons_that_the_sheet_shows(tmp_path):
    font = TTFont(FONT)
    for table in (table for table in font["cmap"].tables if table.isUnicode()):  # two letters stand for icons
        table.cmap |= {0xF002: "A", 0xF003: "B"}
    font.save(tmp_path / "icons.ttf")
    face = '@font-face{font-family:F;src:url(icons.woff2) format("woff2"),url(icons.ttf) format("truetype")}'
    css = shrink_icons(face + '.search:before{content:"\\f002"}', tmp_path)
    assert css == ('@font-face{font-family:F;src:url(icons-icons.woff) format("woff")}.search:before{content:"\\f002"}')
    small = TTFont(tmp_path / "icons-icons.woff")
    assert set(small.getBestCmap()) == {0xF002}
    assert (tmp_path / "icons-icons.woff").stat().st_size < (tmp_path / "icons.ttf").stat().st_size / 100
    assert shrink_icons(face + "p{top:0}", tmp_path) == "p{top:0}"
