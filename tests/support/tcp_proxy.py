"""A TCP proxy on loopback that can be away: what stands between a process and a part it depends on."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Literal

from local.process import LOOPBACK, free_port

State = Literal["up", "refusing", "silent"]
_CHUNK_BYTES = 65536


class TcpProxy:
    """Forwards to a port while it is `up`. `refusing`: nobody listens and every connection is cut; `silent`: they stay,
    and nothing goes through any more.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = free_port()
        self._up = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._is_closed = False

    def __enter__(self) -> TcpProxy:
        self.set("up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        self.set("refusing")
        self._up.set()

    def set(self, state: State) -> None:
        """Change what happens to this and every later connection."""
        if state == "refusing":
            self._stop_listening()
            for each in list(self._sockets):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        elif self._listener is None:
            listener = socket.create_server((LOOPBACK, self.port))
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        if state == "up":
            self._up.set()
        else:
            self._up.clear()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._sockets.add(client)
        self._up.wait()
        try:
            target = socket.create_connection((LOOPBACK, self._target_port))
        except OSError:
            self._end(client)
            return
        self._sockets.add(target)
        for source, sink in ((client, target), (target, client)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(_CHUNK_BYTES):
                self._up.wait()
                if self._is_closed:
                    break
                sink.sendall(content)
        self._end(source)
        self._end(sink)

    def _end(self, each: socket.socket) -> None:
        self._sockets.discard(each)
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
