"""A large script comes compressed, and runs before a part is drawn."""

import base64

from ddpo_lib.interactive.parts import LIBRARY, assets, pack, packed_script

CODE = f"/* MIT licence */\n{'window.large = (window.large ?? 0) + 1;' * 500}"


def test_a_packed_script_is_short_runs_as_a_script_does_and_keeps_its_licence(browser):
    packed = packed_script(CODE).decode()
    assert packed.startswith("/* MIT licence */\n") and len(packed) < len(CODE) / 10
    assert "MIT" in assets()["plotly.min.js"][:300].decode()
    page = browser.new_page()
    data = '<script type="application/gzip;base64"></script>'
    page.set_content(f'<figure data-part="p"><div class="ddpo-part"></div>{data}</figure>')
    page.add_script_tag(content=assets()[LIBRARY.name].decode())
    page.add_script_tag(content=packed)
    page.evaluate("ddpoParts.add('p', (root, data) => { root.textContent = `${data.word} ${window.large}`; })")
    page.evaluate(
        "async bytes => { const figure = document.querySelector('figure');"
        " figure.querySelector('script').textContent = bytes; await ddpoParts.open(figure); }",
        base64.b64encode(pack({"word": "drawn"})).decode(),
    )
    assert page.locator(".ddpo-part").text_content() == "drawn 500"
    page.close()
