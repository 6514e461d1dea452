"""The command line itself: help, mistakes, exit codes, completion, and what needs no store."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import output
from cli import run as command_run
from cli.app import app
from cli.run import guarded

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "config")
TOLLKEEPER = Path(sys.executable).with_name("tollkeeper")


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    capfd.readouterr()
    code = guarded(
        lambda: app(list(arguments), standalone_mode=False, prog_name="tollkeeper"), as_json="--json" in arguments
    )
    return code, *capfd.readouterr()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["spend", "--tenantt", "x"], "--tenantt"),
        (["spnd"], "spnd"),
        (["re-rate", "--why", "x"], "--period"),
        (["budgets", "plan"], "DIR"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_its_own_code(
    capfd: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    """64, so that a pipeline cannot take a typing mistake for `there are changes` (2)."""
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (64, "")
    assert err.startswith("tollkeeper: ")
    assert named in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        (["replay"], "ids"),
        (["replay", "x", "--all"], "ids"),
        (["report", "--period", "2026-13"], "period"),
        (["report", "--format", "csv", "--json"], "format"),
        (["close", "2026-10", "--json"], "yes"),
        (["prices", "diff", "--config", CONFIG, "--at", "soon"], "at"),
        (["spend", "team:a", "--state", "warned"], "state"),
        (["restore", "--verify", "--force"], "force"),
        (["reconcile", "2026-10", "--tenant", "acme"], "tenant"),
        (["reconcile", "2026-00"], "period"),
    ],
)
def test_what_is_refused_names_its_field(capfd: pytest.CaptureFixture[str], arguments: list[str], param: str) -> None:
    """Before any store is asked; with --json as the API's error object."""
    flags = [] if "--json" in arguments else ["--json"]
    code, out, err = run(capfd, *arguments, *flags)
    assert (code, out) == (1, "")
    assert json.loads(err)["error"]["param"] == param


def test_stores_that_are_not_named_are(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without addresses the command says which variables it misses."""
    env = tmp_path / "env"
    env.write_text(f"CONFIG_DIR={CONFIG}\n")
    code, _, err = run(capfd, "--env-file", str(env), "replay", "--all", "--dry-run")
    assert code == 1
    assert err.startswith("tollkeeper: LEDGER_STORAGE, or LEDGER_TABLES_ENDPOINT and LEDGER_BLOBS_ENDPOINT, must")
    code, _, err = run(capfd, "--env-file", str(tmp_path / "none"), "spend")
    assert (code, "--env-file" in err) == (1, True)


def test_log_records_of_the_app_stay_out_of_a_terminal() -> None:
    """A warning is a record with fields to who runs the app, and would be a bare word here; an error is shown."""
    program = """
import logging, sys
from cli import app
log = logging.getLogger("tollkeeper.reports")
app.app = lambda **_: (log.warning("statement_published_by_another"), log.error("telemetry_failed")) and 0
app.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "tollkeeper: telemetry_failed\n")


def test_prices_diff_shows_discounts_and_another_book(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """List against contract as configured; with a book, what it would change, as exact decimals."""
    (tmp_path / "config").mkdir()
    files = {
        "tenants.yaml": "tenants: [{id: default}]",
        "models.yaml": "models: [{id: gpt-4o, provider: azure-openai}]",
        "prices.yaml": "prices: [{model: gpt-4o, effective_from: 2026-01-01, "
        "usd_per_million: {input: 2.40, cached_input: 1.25, output: 10}}]",
    }
    for name, text in files.items():
        (tmp_path / "config" / name).write_text(text)
    common = ("prices", "diff", "--config", str(tmp_path / "config"), "--at", "2026-11-01")
    code, out, _ = run(capfd, *common, "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == 0
    assert [(d["model"], d["kind"], d["before"], d["after"]) for d in found["differences"]] == [
        ("gpt-4o", "input", "2.5", "2.4")
    ]
    assert run(capfd, *common, "--detailed-exitcode")[0] == 2
    assert "-4.0 %" in run(capfd, *common)[1]

    catalog = json.loads((ROOT / "shared/pricing/catalog/azure-openai.json").read_text())
    (tmp_path / "config" / "prices.yaml").write_text("prices: []")
    (tmp_path / "book.json").write_text(json.dumps(catalog))
    assert run(capfd, *common, "--book", str(ROOT / "shared/pricing/catalog"))[1] == "No differences.\n"
    code, _, err = run(capfd, *common, "--book", str(tmp_path / "nowhere"))
    assert (code, "--book" in err) == (1, True)


def test_names_cannot_steer_the_terminal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences, markup and turned writing in a name come out as harmless text."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # with them the table's own colours are escape sequences
        monkeypatch.delenv(name, raising=False)
    output.table("x", {"name": False}, [["\x1b[31mred\x07"], ["[bold]not bold[/]"], ["\u202elive\u2066"]])
    shown = capfd.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\ufffdlive\ufffd" in shown
    assert "[bold]not bold[/]" in shown


def test_progress_is_silent_where_nobody_watches(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of a pipeline holds no bars, and it may still want colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with output.progress("Working") as advance:
        advance(1, 2, "half")
    assert capfd.readouterr() == ("", "")


def test_the_installed_command_runs_completes_and_obeys_no_color(tmp_path: Path) -> None:
    """What `make` puts into .venv: exit codes reach the shell, completion comes as a script and completes commands."""
    if not TOLLKEEPER.is_file():
        pytest.skip("tollkeeper is not installed in this environment: `make` does that")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "NO_COLOR": "1", "FORCE_COLOR": "1", "COLUMNS": "100"}

    def shell(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TOLLKEEPER, *arguments], capture_output=True, text=True, env=env | extra, cwd=tmp_path, check=False
        )

    valid = shell("budgets", "validate", CONFIG)
    assert (valid.returncode, valid.stderr) == (0, "")
    coloured = shell("prices", "diff", "--config", CONFIG).stdout
    assert not re.search(r"\x1b\[(\d+;)*(3[0-8]|4[0-8]|9\d)[;m]", coloured)
    assert shell("budgets", "validate", str(tmp_path / "none")).returncode == 1
    assert shell("no-such-command").returncode == 64
    script = shell("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    assert "complete -o default" in script
    words = {"_TOLLKEEPER_COMPLETE": "complete_bash", "COMP_WORDS": "tollkeeper bud", "COMP_CWORD": "1"}
    assert shell(**words).stdout.split() == ["budgets"]


def test_the_reference_names_every_command_and_every_exit_code() -> None:
    """docs/cli.md can be trusted: neither a command without a row nor a code without a meaning."""
    page = (ROOT / "docs/cli.md").read_text()
    names = {str(command.name) for command in app.registered_commands}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            names.add(f"{group.name} {command.name or command.callback.__name__}")
    assert [name for name in sorted(names) if not re.search(rf"`{name}[ `]", page)] == []
    codes = {int(code) for code in re.findall(r"^\| ([0-9]+) \|", page, flags=re.MULTILINE)}
    assert codes == {value for name, value in vars(command_run).items() if name.startswith("EXIT_")}
