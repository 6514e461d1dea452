"""`make run`, as a person runs it: everything starts, the tour is played, the books agree, everything stops."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from local.process import free_port

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="child processes are read from Linux's /proc")
PROJECT = Path(__file__).resolve().parents[2]


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("TOUR", "ONCE", "GATEWAY", "CONFIG_DIR")}
    ports = {"FUNCTIONS_PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
    return kept | ports | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"} | settings


def run(**settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local"]
    return subprocess.run(
        command, cwd=PROJECT, env=environment(**settings), capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module", params=["builtin", "apim"])
def tour(request: pytest.FixtureRequest) -> subprocess.CompletedProcess[str]:
    if request.param == "apim":
        request.getfixturevalue("mono")
    return run(ONCE="1", GATEWAY=request.param)


def test_the_tour_ends_well(tour):
    """ONCE=1 plays the tour and exits 0."""
    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert "everything stopped" in tour.stdout


def test_the_tour_shows_a_budget_being_spent(tour):
    """One team is warned, then degraded and served by the cheaper model, then stopped with our code, sent once."""
    for words in ("search is warned", "search is degraded", "search is stopped"):
        assert words in tour.stdout, tour.stdout
    assert re.search(
        r"stopped: the SDK raised openai.APIStatusError 402 budget_exhausted and sent the call once", tour.stdout
    )
    assert re.search(r"search +\w+ +gpt-4o -> gpt-4o-mini +downgraded", tour.stdout)
    teams = set(re.findall(r"^ +\d+ +(\w+) +(?:chat|stream|tool|embed) ", tour.stdout, re.MULTILINE))
    assert teams == {"search", "research", "support"}


@pytest.mark.parametrize("tour", ["builtin"], indirect=True)
def test_the_tour_shows_what_the_built_in_gateway_can_do(tour):
    """A prompt without a model, a streamed response, and a model that fails: each is answered, one line each."""
    assert re.search(r"POST /chat, no model +\S+ is the cheapest .* its cost, 0\.\d+ USD", tour.stdout)
    assert re.search(r"Responses, streamed +\S+, billed by .*: \d+ \+ 60 tokens", tour.stdout)
    assert re.search(r"gpt-4o fails +gpt-4o-mini answers in its place, on try 3", tour.stdout)


def test_the_books_agree(tour):
    """Ledger and counters are equal, and equal to what the calls themselves said."""
    found = re.search(r"Ledger total (\S+) USD, counters (\S+) USD: equal", tour.stdout)
    assert found, tour.stdout
    assert found[1] == found[2]
    assert float(found[1]) > 0
    assert "unknown" not in tour.stdout


def test_a_person_learns_how_to_go_on(tour):
    """Keys and addresses are printed."""
    for words in ("local-search", "/api/v1/spend?tenant=", "/api/v1/usage/summary", "Where to look next"):
        assert words in tour.stdout, tour.stdout


def test_a_gateway_that_does_not_exist_is_refused():
    """A typo must not quietly start the other gateway."""
    refused = run(ONCE="1", GATEWAY="apin")
    assert refused.returncode == 2
    assert "GATEWAY: expected builtin or apim, got 'apin'" in refused.stdout


def test_a_configuration_with_an_error_is_named_and_nothing_starts(tmp_path):
    """File, line and field are printed, and the exit code is not 0, before anything serves."""
    config = tmp_path / "config"
    shutil.copytree(PROJECT / "config", config)
    budgets = config / "teams" / "search.yaml"
    text = budgets.read_text()
    line = 1 + text[: text.index("limit: ")].count("\n")
    budgets.write_text(text.replace("limit: ", "limit: a lot # ", 1))
    broken = run(ONCE="1", CONFIG_DIR=str(config))
    assert broken.returncode != 0
    assert f"teams/search.yaml:{line}: " in broken.stdout + broken.stderr
    assert "limit" in broken.stdout
    assert "gateway" not in broken.stdout


@linux
def test_it_serves_at_once_without_the_tour_and_stops_on_sigterm():
    """TOUR=0 serves; SIGTERM ends every process it started, with exit code 0."""
    env = environment(TOUR="0")
    process = subprocess.Popen(
        [sys.executable, "-m", "local"],
        cwd=PROJECT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed = read_until_it_serves(process)
        answer = wait_for_answer(f"http://127.0.0.1:{env['GATEWAY_PORT']}")
        assert answer.headers["x-budget-state"] == "active"
        children = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=40)
        assert process.returncode == 0, printed + output
        assert "curl" in printed
        assert len(children) == 7
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    finally:
        process.kill()


@linux
def test_a_part_that_dies_is_named_with_its_log_and_everything_stops():
    """A dead part ends the run: the person reads which one, sees the end of its log, and nothing is left behind."""
    env = environment(TOUR="0")
    command = [sys.executable, "-m", "local"]
    process = subprocess.Popen(
        command, cwd=PROJECT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        printed = read_until_it_serves(process)
        children = children_of(process.pid)
        gateway = next(pid for pid, command in children.items() if "gateway" in command)
        os.kill(int(gateway), signal.SIGKILL)
        output, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 1, printed + output
    assert "gateway ended with code -9" in output
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_a_taken_port_is_named():
    """A port in use is said before anything is started, with the variable that changes it."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run(ONCE="1", GATEWAY_PORT=str(port))
    assert refused.returncode == 1
    assert f"port {port} is in use" in refused.stdout
    assert "GATEWAY_PORT=" in refused.stdout


def children_of(pid: int) -> dict[str, list[str]]:
    """{process id: command} of the children of a process."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {child: Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in pids}


def read_until_it_serves(process: "subprocess.Popen[str]") -> str:
    """What it prints until it says how to end it; the gateway answers a little earlier."""
    assert process.stdout is not None
    printed = ""
    while "Ctrl-C ends everything" not in printed:
        line = process.stdout.readline()
        assert line, f"it ended before it served:\n{printed}"
        printed += line
    return printed


def wait_for_answer(url: str) -> httpx.Response:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(
                f"{url}/v1/chat/completions", json=body, headers={"api-key": "local-search"}, timeout=10
            )
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        if answer.status_code == 200:
            return answer
        time.sleep(0.2)
    raise AssertionError("no answer in two minutes")
