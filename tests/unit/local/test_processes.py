"""Child processes end with their parent, free their ports and say why they failed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.process import Process, ProcessFailedError, free_port, is_listening

ROOT = Path(__file__).parents[3]


def _serve(port: int, **options: bool) -> Process:
    process = Process("web", [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], **options)
    process.wait_until(lambda: is_listening(port))
    return process


def _ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A child of a killed parent waits as a zombie for whoever adopts it; it holds no port.
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text() if sys.platform == "linux" else False


def _wait_for(condition: object, seconds: float = 10.0) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_stop_frees_the_port() -> None:
    """After stop() the child is gone and its port can be used again."""
    port = free_port()
    process = _serve(port)
    process.stop()
    assert process.exit_code is not None
    assert not is_listening(port)
    process.stop()


def test_no_port_is_given_twice_before_it_is_bound() -> None:
    """Processes that ask at the same time, each for several ports, are given different ones."""
    script = "from local.process import free_port\nfor _ in range(200): print(free_port())"
    askers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)
    ]
    ports = [port for asker in askers for port in asker.communicate()[0].split()]
    assert len(ports) == len(set(ports)) == 400


@pytest.mark.parametrize("kernel_tie", [True, False], ids=["kernel", "watchdog"])
def test_child_ends_when_its_parent_is_killed(kernel_tie: bool) -> None:
    """A parent ended with SIGKILL, which runs no cleanup of its own, leaves no child behind."""
    if kernel_tie and sys.platform != "linux":
        pytest.skip("the parent-death signal exists on Linux only")
    script = (
        "from local.process import Process; import time\n"
        f"child = Process('sleeper', ['sleep', '60'], use_kernel_tie={kernel_tie})\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _wait_for(lambda: _ended(child_pid))


def test_a_failed_start_quotes_the_log() -> None:
    """A child that ends before it is ready is reported with what it wrote last."""
    process = Process("broken", [sys.executable, "-c", "print('no such licence'); raise SystemExit(3)"])
    with pytest.raises(ProcessFailedError, match=r"broken ended with code 3:\nno such licence"):
        process.wait_until(lambda: False)


def test_a_slow_start_is_ended() -> None:
    """A child that never becomes ready is killed, not left behind."""
    process = Process("slow", ["sleep", "60"])
    with pytest.raises(ProcessFailedError, match=r"slow was not ready after 0\.1 s"):
        process.wait_until(lambda: False, timeout_seconds=0.1)
    assert process.exit_code == -signal.SIGKILL


def test_a_paused_child_can_be_stopped() -> None:
    """stop() also ends a child that was frozen to play an outage."""
    process = Process("frozen", ["sleep", "60"])
    process.pause()
    process.stop(timeout_seconds=5)
    assert process.exit_code == -signal.SIGTERM
