from __future__ import annotations

import contextlib
import errno
import http.client
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import Running, nothing_left_behind
from waitress import bind_names, create_server
from waitress.adjustments import Adjustments
from waitress.bind_names import Inherited, address_text, open_inherited, resolve, unix_address_text
from waitress.server import MultiSocketServer, TcpWSGIServer, UnixWSGIServer

unix_only = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
linux_only = pytest.mark.skipif(platform.system() != "Linux", reason="abstract names are Linux'")
STREAM = socket.SOCK_STREAM
PID = str(os.getpid())


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["SERVER_PORT"].encode()]


def resolved(item: str) -> list[Any]:
    return resolve(item, 8080, socket.AF_INET)


def request_over(sock: socket.socket) -> bytes:
    """Return the body that answers a request."""
    with sock:
        sock.settimeout(10)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == 200
        return response.read()


def connected(address: Any, family: int | None = None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if family is None else family)
    sock.connect(address)
    return sock


class TestNames:
    def test_of_hosts_are_looked_up(self) -> None:
        assert resolved("127.0.0.1:80") == [(socket.AF_INET, STREAM, 6, ("127.0.0.1", 80))]
        assert resolved("127.0.0.1") == [(socket.AF_INET, STREAM, 6, ("127.0.0.1", 8080))]

    @unix_only
    def test_of_unix_sockets_are_paths(self) -> None:
        assert resolved("unix:/run/w.sock") == [(socket.AF_UNIX, STREAM, 0, "/run/w.sock")]
        assert resolved("unix:w.sock") == [(socket.AF_UNIX, STREAM, 0, "w.sock")]

    @linux_only
    def test_may_be_abstract(self) -> None:
        assert resolved("unix:@w") == [(socket.AF_UNIX, STREAM, 0, "\0w")]

    @pytest.mark.parametrize("name", ["fd://3", "systemd", "systemd:web"])
    def test_of_inherited_sockets_ask_nobody(self, name: str) -> None:
        assert resolved(name) == [(socket.AF_UNSPEC, STREAM, 0, Inherited(name))]
        assert str(Inherited(name)) == name

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("unix:", "the path is empty"),
            ("fd://", "the number of a descriptor, such as fd://3, is meant"),
            ("fd://-1", "the number of a descriptor"),
            ("fd://٣", "the number of a descriptor"),
            ("fd://three", "the number of a descriptor"),
            ("systemd:", "systemd: and the name of a descriptor, or systemd alone"),
            pytest.param("unix:@", "the path is empty", marks=linux_only),
        ],
    )
    def test_that_are_malformed_are_refused(self, name: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            resolved(name)
        with pytest.raises(ValueError, match=r"Invalid host/port specified\. \(listen=") as caught:
            Adjustments(listen=name)
        assert "fd://NUMBER, systemd and systemd:NAME" in str(caught.value)

    def test_abstract_ones_are_refused_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "system", lambda: "Darwin")
        monkeypatch.setattr(socket, "AF_UNIX", 1, raising=False)
        with pytest.raises(ValueError, match="are for Linux"):
            resolved("unix:@w")

    def test_of_unix_sockets_are_refused_where_there_are_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(socket, "AF_UNIX", raising=False)
        with pytest.raises(ValueError, match="this system has no Unix sockets"):
            resolved("unix:/run/w.sock")

    def test_may_be_hosts_where_a_host_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As ``host`` and ``port`` they have always meant the host of that name."""
        asked: list[Any] = []

        def getaddrinfo(*args: Any) -> list[Any]:
            asked.append(args[:2])
            return []

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        Adjustments(host="systemd", port=80)
        Adjustments(host="unix", port=80)
        assert asked == [("systemd", "80"), ("unix", "80")]

    @unix_only
    def test_that_are_equal_count_once(self) -> None:
        adj = Adjustments(listen="unix:/a fd://3 unix:/a 127.0.0.1:80 fd://3 127.0.0.1:80 fd://4")
        assert [info[3] for info in adj.listen] == [
            *("/a", Inherited("fd://3"), ("127.0.0.1", 80), Inherited("fd://4"))
        ]

    def test_with_a_port_for_the_system_to_pick_count_each_time(self) -> None:
        assert len(Adjustments(listen="127.0.0.1:0 127.0.0.1:0").listen) == 2

    @pytest.mark.parametrize(
        ("address", "text"),
        [
            (("127.0.0.1", 80), "127.0.0.1:80"),
            (("::1", 80, 0, 0), "[::1]:80"),
            ("/run/w.sock", "/run/w.sock"),
            (Inherited("systemd"), "systemd"),
        ],
    )
    def test_are_shown_as_they_are_written(self, address: Any, text: str) -> None:
        assert address_text(address) == text

    @pytest.mark.parametrize(
        ("address", "text"), [("/a", "/a"), (b"\0a", "@a"), ("\0a", "@a"), (None, None), (5, 5)]
    )
    def test_of_unix_sockets_are_shown_so_too(self, address: Any, text: Any) -> None:
        assert unix_address_text(address) == text


class TestPassedDescriptors:
    def numbers(self, name: str, **environ: str) -> list[int]:
        return Inherited(name).descriptors(environ)

    def test_are_three_and_those_after_it(self) -> None:
        assert self.numbers("systemd", LISTEN_FDS="2", LISTEN_PID=PID) == [3, 4]
        assert self.numbers("systemd", LISTEN_FDS="1") == [3]

    def test_may_be_chosen_by_name(self) -> None:
        names = {"LISTEN_FDS": "4", "LISTEN_FDNAMES": "web:admin:web"}
        assert self.numbers("systemd:web", **names) == [3, 5]
        assert self.numbers("systemd:admin", **names) == [4]
        assert self.numbers("systemd", **names) == [3, 4, 5, 6]

    @pytest.mark.parametrize(
        ("name", "environ", "reason"),
        [
            ("systemd", {}, "LISTEN_FDS is not set"),
            ("systemd", {"LISTEN_FDS": ""}, "LISTEN_FDS is not set"),
            ("systemd", {"LISTEN_FDS": "two"}, "LISTEN_FDS is 'two'; allowed: a whole number"),
            ("systemd", {"LISTEN_FDS": "0"}, "LISTEN_FDS is '0'"),
            ("systemd", {"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "are for process 1 "),
            ("systemd:a", {"LISTEN_FDS": "1"}, r"no descriptor .*\(LISTEN_FDNAMES has: none\)"),
            (
                "systemd:a",
                {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "c:b"},
                r"no descriptor has that name \(LISTEN_FDNAMES has: b, c\)",
            ),
        ],
    )
    def test_that_are_missing_are_told(
        self, name: str, environ: dict[str, str], reason: str
    ) -> None:
        with pytest.raises(ValueError, match=rf"^cannot listen on {name}: .*{reason}"):
            open_inherited([Inherited(name)], environ)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def descriptor_of(listener: socket.socket) -> Inherited:
    return Inherited(f"fd://{listener.fileno()}")


class TestInheritedSockets:
    def test_are_opened_once_each(self, listener: socket.socket) -> None:
        name = descriptor_of(listener)
        os.set_inheritable(listener.fileno(), True)
        (opened,) = open_inherited([name, name])
        assert opened.getsockname() == listener.getsockname()
        assert not os.get_inheritable(listener.fileno())
        assert opened.detach() == listener.fileno()

    def test_must_be_there_and_are_left_alone_if_one_is_not(self, listener: socket.socket) -> None:
        unused = os.dup(0)
        os.close(unused)
        reason = f"cannot listen on fd://{unused}: descriptor {unused}: "
        with pytest.raises(ValueError, match=reason):
            open_inherited([descriptor_of(listener), Inherited(f"fd://{unused}")])
        assert listener.getsockname()[0] == "127.0.0.1"

    def test_must_be_sockets(self, tmp_path: Path) -> None:
        with (tmp_path / "file").open("w") as file:
            with pytest.raises(ValueError, match=f"descriptor {file.fileno()}: "):
                open_inherited([Inherited(f"fd://{file.fileno()}")])

    def test_must_be_stream_sockets(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match="no Internet or Unix stream socket") as caught:
                open_inherited([descriptor_of(sock)])
            assert "SOCK_DGRAM" in str(caught.value)
            assert sock.getsockname()[1] == 0

    def test_must_not_be_connections(self, listener: socket.socket) -> None:
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                with pytest.raises(ValueError, match=r"a connection, which .*Accept=no"):
                    open_inherited([descriptor_of(accepted)])
                # It is as it was.
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"


@pytest.mark.usefixtures("no_leaks")
class TestServers:
    def test_serve_an_inherited_socket_and_close_it(self) -> None:
        number = socket.create_server(("127.0.0.1", 0)).detach()
        server = create_server(hello, listen=f"fd://{number}")
        assert type(server) is TcpWSGIServer
        assert server.socket.fileno() == number
        port = int(server.effective_port)
        running = Running(server)
        body = request_over(connected(("127.0.0.1", port), socket.AF_INET))
        running.stop()
        assert body == str(port).encode()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)

    def test_that_cannot_start_leave_an_inherited_socket_as_it_was(
        self, listener: socket.socket
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with nothing_left_behind(), pytest.raises(OSError, match=f"127.0.0.1:{port}"):
                create_server(hello, listen=f"{descriptor_of(listener)} 127.0.0.1:{port}")
        with connected(listener.getsockname(), socket.AF_INET):
            listener.accept()[0].close()

    @linux_only
    def test_listen_to_names_of_every_kind_together(self, tmp_path: Path) -> None:
        path = str(tmp_path / "w.sock")
        inherited = socket.create_server(("127.0.0.1", 0))
        abstract = f"waitress-test-{PID}"
        server = create_server(
            hello,
            listen=f"127.0.0.1:0 unix:{path} unix:@{abstract} fd://{inherited.fileno()}",
            unix_socket_perms="640",
        )
        inherited_port = inherited.getsockname()[1]
        inherited.detach()
        assert isinstance(server, MultiSocketServer)
        (_, port), *others = server.effective_listen
        assert others == [
            *(("unix", path), ("unix", f"@{abstract}"), ("127.0.0.1", str(inherited_port)))
        ]
        assert os.stat(path).st_mode & 0o777 == 0o640
        running = Running(server)
        for address in (("127.0.0.1", int(port)), ("127.0.0.1", inherited_port)):
            body = request_over(connected(address, socket.AF_INET))
            assert body == str(address[1]).encode()
        assert request_over(connected(path)) == path.encode()
        assert request_over(connected(f"\0{abstract}")) == f"@{abstract}".encode()
        running.stop()
        assert not os.path.exists(path)

    @unix_only
    def test_replace_a_stale_unix_socket(self, tmp_path: Path) -> None:
        path = str(tmp_path / "w.sock")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        server = create_server(hello, listen=f"unix:{path}")
        assert type(server) is UnixWSGIServer
        running = Running(server)
        assert request_over(connected(path)) == path.encode()
        running.stop()

    @unix_only
    def test_name_a_unix_socket_that_cannot_be_bound(self, tmp_path: Path) -> None:
        path = tmp_path / ("long" * 50)
        with nothing_left_behind():
            with pytest.raises(OSError, match=f"cannot listen on unix socket {path}: .*too long"):
                create_server(hello, listen=f"unix:{path}")

    @linux_only
    def test_name_an_abstract_name_in_use(self) -> None:
        name = f"waitress-test-{PID}"
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind(f"\0{name}")
            with pytest.raises(OSError, match=f"unix socket @{name}: ") as caught:
                create_server(hello, listen=f"unix:@{name}")
        assert caught.value.errno == errno.EADDRINUSE

    def test_ignore_the_default_of_listen_beside_sockets(self, listener: socket.socket) -> None:
        server = create_server(hello, sockets=[listener])
        server.task_dispatcher.shutdown()
        assert server.socket is listener
        server.close()


#: Puts what the test has bound at descriptor 3 and after, as a service manager does, and
#: becomes the command.
LAUNCHER = """
import os, sys
count = int(sys.argv[1])
for number, inherited in enumerate(map(int, sys.argv[2 : 2 + count]), 3):
    os.dup2(inherited, number, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "waitress", *sys.argv[2 + count :]])
"""


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    fcntl = pytest.importorskip("fcntl")
    with contextlib.ExitStack() as stack:

        def start(
            sockets: list[socket.socket], *options: str, **environ: str
        ) -> subprocess.Popen[bytes]:
            # Above the numbers that they are copied to.
            numbers = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 10) for sock in sockets]
            for number in numbers:
                stack.callback(os.close, number)
            process = subprocess.Popen(
                [
                    *(sys.executable, "-c", LAUNCHER, str(len(sockets)), *map(str, numbers)),
                    *(*options, "wsgiref.simple_server:demo_app"),
                ],
                pass_fds=numbers,
                env={**os.environ, "LISTEN_FDS": str(len(sockets)), **environ},
                stderr=subprocess.PIPE,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@unix_only
class TestServiceManagers:
    def test_pass_sockets_on_to_the_command(
        self, launch: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
    ) -> None:
        path = str(tmp_path / "w.sock")
        with socket.create_server(("127.0.0.1", 0)) as web, socket.socket(socket.AF_UNIX) as unix:
            unix.bind(path)
            unix.listen()
            address = web.getsockname()
            process = launch([web, unix], "--listen=systemd")
        assert request_over(connected(address, socket.AF_INET)).startswith(b"Hello world!")
        assert request_over(connected(path)).startswith(b"Hello world!")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        # It is the manager's.
        assert os.path.exists(path)

    def test_give_names_to_them(self, launch: Callable[..., subprocess.Popen[bytes]]) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as web,
            socket.create_server(("127.0.0.1", 0)) as other,
        ):
            names = {"LISTEN_FDNAMES": "other:web"}
            process = launch([other, web], "--listen=systemd:web", **names)
            body = request_over(connected(web.getsockname(), socket.AF_INET))
            assert f"SERVER_PORT = '{web.getsockname()[1]}'".encode() in body
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=20)
        assert told.count(b"Serving on") == 1

    def test_that_pass_none_of_that_name_are_told_so(
        self, launch: Callable[..., subprocess.Popen[bytes]]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as web:
            process = launch([web], "--listen=systemd:admin", LISTEN_FDNAMES="web")
            _, told = process.communicate(timeout=20)
        assert process.returncode == 1
        assert told == (
            b"Error: cannot listen on systemd:admin: no descriptor has that name "
            b"(LISTEN_FDNAMES has: web; from: command line)\n"
        )


def test_first_passed_descriptor_is_behind_the_standard_streams() -> None:
    assert bind_names.FIRST_PASSED_DESCRIPTOR == 3
