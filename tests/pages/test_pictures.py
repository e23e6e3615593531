"""A figure in fewer bytes looks as it did."""

import base64
import io
import re
from urllib.parse import unquote

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageChops

from ddpo_lib.pages.pictures import shrink, source


def figure(fonts: str) -> str:
    with plt.rc_context({"svg.fonttype": fonts}):
        drawn, axes = plt.subplots(figsize=(4, 3))
        x = np.linspace(0, 7, 200)
        axes.plot(x, np.sin(x), label='90% & "more" <here>')
        axes.scatter(x[::9], np.cos(x[::9]), s=9, alpha=0.4)
        axes.legend()
        buffer = io.StringIO()
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(drawn)
    return buffer.getvalue()


def test_coordinates_have_two_digits_and_nothing_else_is_rounded():
    svg = '<svg>\n <path d="M 12.345678 1e-05 \nL -0.004 200.5 \nz" transform="scale(0.015625)"/>\n</svg>'
    assert shrink(svg) == '<svg><path d="M12.35 1e-05L-0 200.5z" transform="scale(0.015625)"/></svg>'


def test_a_figure_is_a_third_shorter_and_looks_the_same(browser):
    for fonts in ("path", "none"):
        svg = figure(fonts)
        small = source(shrink(svg))
        assert '"' not in small and unquote(small).startswith("data:image/svg+xml,<svg")
        most = 2 / 3 if fonts == "path" else 3 / 4  # blanks stay where texts are
        assert len(small) < most * len(base64.b64encode(svg.encode()))  # as notebooks have it
        shots = []
        page = browser.new_page(viewport={"width": 420, "height": 320})
        for picture in (source(svg), small):
            page.set_content(f'<img src="{picture}">')
            page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth > 100")
            shots.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        page.close()
        assert len(shots[0].getcolors(100_000)) > 9  # something is drawn
        assert max(high for _, high in ImageChops.difference(*shots).getextrema()) < 48


def test_quotes_of_both_kinds_stay():
    svg = '<svg a="it\'s"/>'
    assert '"' not in source(svg) and unquote(re.sub("^data:image/svg.xml,", "", source(svg))) == svg
