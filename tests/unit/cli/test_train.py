"""What `pretrain` and `train` say before anything heavy is loaded."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream.cli.app import app


def said(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, " ".join(done.stderr.split())


@pytest.mark.parametrize("command", ["pretrain", "train"])
@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed here")
def test_without_the_extra_packages_it_says_what_to_install(command: str, tmp_path: Path) -> None:
    code, words = said(command, str(tmp_path))
    assert code == 2
    assert "training needs more than the base install" in words and "pip install -e .[train]" in words
