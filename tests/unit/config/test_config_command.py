"""The command that checks a configuration before it is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config.__main__ import main


def test_check_tells_good_from_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code and sentence for a good one; file, line and field under the given directory for a bad one."""
    (tmp_path / "tenants.yaml").write_text("tenants:\n  - id: default\n")
    assert main(["check", str(tmp_path)]) == 0
    assert "1 tenants" in capsys.readouterr().out
    (tmp_path / "budgets.yaml").write_text("budgets:\n  - limit: lots\n")
    assert main(["check", str(tmp_path)]) == 1
    assert f"{tmp_path}/budgets.yaml:2: budgets[0].limit: " in capsys.readouterr().err


def test_publishing_needs_a_container(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without CONFIG_URL there is nowhere to publish to, and the message says so."""
    monkeypatch.delenv("CONFIG_URL", raising=False)
    assert main(["publish", str(Path(__file__).parents[3] / "config")]) == 1
    assert capsys.readouterr().err.startswith("CONFIG_URL: ")


def test_unknown_commands_print_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line is answered by the right one."""
    assert main(["chek"]) == 2
    assert "check DIR" in capsys.readouterr().err
