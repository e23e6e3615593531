"""`ddpo generate` with an adapter of another model: an error of one line, before anything is read or loaded."""

import pytest
import yaml
from tiny import save_model_and_adapter, tiny_model, tiny_tokenizer
from typer.testing import CliRunner

from ddpo_lib.cli.main import app
from ddpo_lib.models.adapters import write_base


@pytest.mark.parametrize(
    ("model", "template", "told"),
    [
        ("second", "{prompt} ", ("is an adapter of", "model (folder ", "second (folder ")),
        ("model", "Q: {prompt} A:", ("was trained with the template '{prompt} ', not with 'Q: {prompt} A:'",)),
    ],
)
def test_the_profile_of_another_model_is_refused_in_one_line(tmp_path, model, template, told):
    base, adapter = save_model_and_adapter(tmp_path)
    tiny_model(seed=1).save_pretrained(tmp_path / "second")
    tiny_tokenizer().save_pretrained(tmp_path / "second")
    write_base(adapter, str(base), None, "{prompt} ")
    profile = {"extends": "smoke", "name": "other", "what": "another model"}
    profile["model"] = {"name": str(tmp_path / model), "template": template}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(profile))
    command = ["generate", str(adapter), str(tmp_path / "no-such.jsonl"), str(tmp_path / "out.jsonl")]
    result = CliRunner().invoke(app, [*command, "--profile", str(tmp_path / "other.yaml")])
    assert result.exit_code != 0
    message = str(result.exception) + result.output
    assert all(part in message for part in told), message
    assert "\n" not in str(result.exception)
