"""Child processes that cannot outlive the process that started them, and the ports they listen on.

Everything the laptop and the tests run beside Python (Redis, Azurite, the function host) is started here. Three things
go wrong with plain `subprocess.Popen` and each once cost a confusing run:

* a parent that is killed leaves its servers running, and the next run talks to a stranger's data. Here the kernel
  signals the child when its parent dies (Linux), or a small watchdog does (elsewhere);
* Ctrl-C reaches the whole process group, so servers vanish before their clients have finished. Children here get a
  session of their own and stop when the supervisor says so;
* output mixed into the terminal. Children here write to a log file, whose end is quoted when a start fails.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.01

# Ports are picked below the range that Linux and macOS hand to outgoing connections, so that between our choosing one
# and the server binding it no client connection of some other process can take it. Redis Cluster adds 10000 for its
# bus, which is why the range ends where it does. All processes of a user take them in turn from one counter: a port
# picked at random is, some day, one that another process has picked and not bound yet, and one of them fails to start.
_FIRST_PORT, _LAST_PORT = 12_000, 21_999
_PORT_COUNTER = Path(tempfile.gettempdir()) / f"tollkeeper-last-port-{os.getuid()}"
CLUSTER_BUS_OFFSET = 10_000

# Loaded before any fork: importing or dlopening between fork and exec can deadlock in a process with threads.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

_running: weakref.WeakSet[Process] = weakref.WeakSet()


class PartMissingError(RuntimeError):
    """A package or program that a part is made of is not installed; the message names it and how to get it."""


class ProcessFailedError(RuntimeError):
    """A child ended, or was not ready in time; the message quotes the end of its log."""


def free_port(*, also_offset: int = 0) -> int:
    """A loopback TCP port that is free and was given to no other caller; with `also_offset`, port + offset is free too.

    One that nobody binds stays closed: it is given again only after all the others.
    """
    for _ in range(200):
        port = _next_port()
        if _is_free(port) and (not also_offset or _is_free(port + also_offset)):
            return port
    raise ProcessFailedError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")


def is_listening(port: int) -> bool:
    """True when something accepts connections on this loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=0.5).close()
    except OSError:
        return False
    return True


class Process:
    """One child process with a name, a log file and an orderly end.

    Start it from a thread that lives as long as the child should: on Linux the kernel ties the child to the *thread*
    that forked it, so a child started from a short-lived worker thread ends with that thread.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log_path: Path | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        use_kernel_tie: bool = sys.platform == "linux",
    ) -> None:
        """Start `command`; stdout and stderr go to `log_path` (a temporary file when none is given).

        `env` replaces the environment when given. `stop_signal` is what the child understands as a polite request to
        end; it is also what it receives when this process dies.
        """
        self.name = name
        self.log_path = log_path or Path(tempfile.mkdtemp(prefix=f"tollkeeper-{name}-")) / "log.txt"
        self._stop_signal = stop_signal
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                start_new_session=True,
                preexec_fn=_tie_to_parent(stop_signal) if use_kernel_tie else None,
            )
        if not use_kernel_tie:
            _start_watchdog(self._child.pid, stop_signal)
        _running.add(self)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while the child runs; a negative number is the signal that ended it."""
        return self._child.poll()

    def wait_until(self, ready: Callable[[], bool], *, timeout_seconds: float = 30.0) -> None:
        """Return when `ready()` is true. Raises ProcessFailedError with the log's end on exit or after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if self.exit_code is not None:
                raise ProcessFailedError(f"{self.name} ended with code {self.exit_code}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ProcessFailedError(f"{self.name} was not ready after {timeout_seconds:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """Ask the child to end and wait for it; a child that does not listen is killed. Safe to call twice."""
        if self.exit_code is None:
            self._child.send_signal(self._stop_signal)
            # A paused child cannot act on the signal until it runs again.
            self._child.send_signal(signal.SIGCONT)
            try:
                self._child.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        _running.discard(self)

    def kill(self) -> None:
        """End the child at once, as a crash would: nothing of its memory is saved."""
        self._child.kill()
        self._child.wait()
        _running.discard(self)

    def pause(self) -> None:
        """Freeze the child: connections stay open and nothing answers, the outage that clients notice last."""
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused child run on."""
        self._child.send_signal(signal.SIGCONT)

    def log_tail(self, *, line_count: int = 20) -> str:
        """The last lines the child wrote."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-line_count:]) or "(it wrote nothing)"


def _next_port() -> int:
    with _PORT_COUNTER.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)  # until the file is closed
        counter.seek(0)
        last = int(counter.read() or _LAST_PORT)
        port = last + 1 if last < _LAST_PORT else _FIRST_PORT
        counter.truncate(0)
        counter.write(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _tie_to_parent(stop_signal: signal.Signals) -> Callable[[], None]:
    parent_pid = os.getpid()

    def tie() -> None:
        assert _libc is not None
        _libc.prctl(_PR_SET_PDEATHSIG, int(stop_signal))
        # The parent may have died between the fork and the line above; then no signal will ever come.
        if os.getppid() != parent_pid:
            os._exit(1)

    return tie


def _start_watchdog(child_pid: int, stop_signal: signal.Signals) -> None:
    """Where the kernel offers no parent-death signal, a shell loop watches both and ends the child within a second."""
    script = (
        f"while kill -0 {os.getpid()} 2>/dev/null && kill -0 {child_pid} 2>/dev/null; do sleep 0.5; done; "
        f"kill -{int(stop_signal)} {child_pid} 2>/dev/null"
    )
    subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, start_new_session=True)


def _stop_all() -> None:
    for process in list(_running):
        process.stop(timeout_seconds=5.0)


atexit.register(_stop_all)
