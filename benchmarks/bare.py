"""What is left of a server when everything is left out that makes it one.

A loop does all input and output, threads run the application, a head is parsed, an environ
is built, a head is made. There are no bodies of requests, no limits, no deadlines, no errors,
no partial sends, no setting, nothing to override, and nothing is logged. Nobody should serve
anything with this: it tells what this interpreter and this machine leave to a server of this
shape. Row 1: imports nothing of the benchmarks; Linux only.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
from collections import deque
from email.utils import formatdate
from io import BytesIO
from typing import Any


class Bare:
    """Serves small GET requests of well-behaved clients."""

    def __init__(self, application: Any, host: str, port: int) -> None:
        self.application = application
        self.address = host, str(port)
        self.listener = socket.create_server((host, port), backlog=2048)
        self.listener.setblocking(False)
        self.wakes, self.waker = os.pipe()
        os.set_blocking(self.wakes, False)
        self.poller = select.epoll()
        for watched in (self.listener.fileno(), self.wakes):
            self.poller.register(watched, select.EPOLLIN)
        self.connections: dict[int, tuple[socket.socket, Any]] = {}
        #: Heads that wait for a thread, and responses that wait for the loop.
        self.tasks: deque[tuple[tuple[socket.socket, Any], str]] = deque()
        self.ready: deque[tuple[socket.socket, bytes, bool]] = deque()
        self.token = threading.Lock()
        self.token.acquire()
        self.is_awake = False
        self.date = formatdate(usegmt=True)
        #: Set to false to end, within a second.
        self.running = True

    def run(self, threads: int) -> None:
        """Serve in so many threads."""
        for _ in range(threads):
            threading.Thread(target=self.work, daemon=True).start()
        while self.running:
            self.is_awake = False
            events = self.poller.poll(0 if self.ready else 1)
            self.is_awake = True
            if not events:
                self.date = formatdate(usegmt=True)
            for number, _ in events:
                if number in self.connections:
                    self.read(number)
                elif number == self.wakes:
                    os.read(self.wakes, 4096)
                else:
                    self.accept()
            if self.tasks:
                self.wake_thread()
                os.sched_yield()
            while self.ready:
                sock, response, closes = self.ready.popleft()
                sock.send(response)
                if closes:
                    self.close(sock.fileno())
        self.wake_thread()
        self.poller.close()
        self.listener.close()
        for descriptor in (self.wakes, self.waker):
            os.close(descriptor)

    def accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, address = self.listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[sock.fileno()] = sock, address
                self.poller.register(sock, select.EPOLLIN)

    def read(self, number: int) -> None:
        connection = self.connections[number]
        try:
            data = connection[0].recv(8192)
        except ConnectionResetError:
            data = b""
        if not data:
            self.close(number)
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            self.tasks.append((connection, head.decode("latin-1")))

    def close(self, number: int) -> None:
        self.poller.unregister(number)
        self.connections.pop(number)[0].close()

    def wake_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # One is about to wake anyway.
            self.token.release()

    def work(self) -> None:
        """Serve tasks; the body of a thread."""
        while self.running:
            try:
                connection, head = self.tasks.popleft()
            except IndexError:
                self.token.acquire()
                continue
            self.ready.append((connection[0], *self.respond(head, connection[1])))
            if not self.is_awake:
                self.is_awake = True
                os.write(self.waker, b"x")
        self.wake_thread()  # Each tells the next.

    def respond(self, head: str, address: Any) -> tuple[bytes, bool]:
        """Return the response to a request, and whether it is the last of its connection."""
        request_line, *lines = head.split("\r\n")
        method, target, version = request_line.split(" ")
        path, _, query = target.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": self.address[0],
            "SERVER_PORT": self.address[1],
            "SERVER_PROTOCOL": version,
            "REMOTE_ADDR": address[0],
            "REMOTE_PORT": str(address[1]),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for line in lines:
            name, _, value = line.partition(": ")
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        started: list[Any] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> None:
            started[:] = status, headers

        body = b"".join(self.application(environ, start_response))
        status, headers = started
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
        response = f"{version} {status}\r\n{fields}Date: {self.date}\r\nServer: bare\r\n\r\n"
        return response.encode("latin-1") + body, environ.get("HTTP_CONNECTION") == "close"


def run(application: Any, host: str, port: int, threads: int) -> None:
    """Serve the application for ever."""
    Bare(application, host, port).run(threads)
