"""Messages that quote servers and files do not control the terminal that shows them."""

import sys

import pytest
from scripted import Scripted, Sent

from ddpo_lib.base.errors import printable
from ddpo_lib.cli.main import main


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("It rained. Ünïcode — 雨 \U0001f600\n\tand more", None),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("a\rb\x00c\x9bd\u202ee", "a\\rb\\x00c\\x9bd\\u202ee"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_a_text_controls_no_terminal(text, shown):
    assert printable(text) == (text if shown is None else shown)
    assert printable(printable(text)) == printable(text)


def test_what_a_server_says_is_shown_and_not_obeyed(tmp_path, monkeypatch, capsys):
    server = Scripted()
    server.answers = [Sent(401, {"error": {"message": "wrong \x1b[2Jkey"}})]
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "A bench."}\n')
    words = ["generate", "-", tmp_path / "prompts.jsonl", tmp_path / "out.jsonl", "--model", "m", "--url", server.url]
    monkeypatch.setattr(sys, "argv", ["ddpo", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    server.close()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "wrong \\x1b[2Jkey" in said
    assert "\x1b[2J" not in said
