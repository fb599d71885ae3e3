"""Applications of the large frameworks, in this process, on a live server."""

from __future__ import annotations

import hashlib
import io
import wsgiref.validate
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import Running
from waitress import create_server

pytestmark = pytest.mark.integration

requests = pytest.importorskip("requests")

FILE = bytes(range(256)) * 8192  # two megabytes
DIGEST = hashlib.sha256(FILE).hexdigest()


@pytest.fixture
def session() -> Iterator[Any]:
    with requests.Session() as found:
        found.trust_env = False
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(FILE)
    return path


Serve = Callable[..., Running]


def url_of(running: Running, path: str = "") -> str:
    return f"http://127.0.0.1:{running.port}{path}"


# -- Flask ---------------------------------------------------------------------------


def flask_application(file: Path) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    app.secret_key = "for tests only"

    @app.get("/")
    def index() -> Any:
        flask.session["visits"] = flask.session.get("visits", 0) + 1
        return f"visit {flask.session['visits']}"

    @app.get("/moved")
    def moved() -> Any:
        return flask.redirect(flask.url_for("index"))

    @app.get("/file")
    def send_file() -> Any:
        return flask.send_file(file, mimetype="application/octet-stream", conditional=True)

    @app.get("/memory")
    def send_memory() -> Any:
        return flask.send_file(io.BytesIO(FILE), download_name="memory.bin")

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response((f"line {n}\n" for n in range(1000)), mimetype="text/plain")

    @app.post("/upload")
    def upload() -> Any:
        sent = flask.request.files["attachment"]
        digest = hashlib.sha256(sent.read()).hexdigest()
        return {"name": sent.filename, "digest": digest, "note": flask.request.form["note"]}

    @app.post("/raw")
    def raw() -> Any:
        return {"digest": hashlib.sha256(flask.request.get_data()).hexdigest()}

    @app.put("/json/<int:number>")
    def put_json(number: int) -> Any:
        return {"number": number, **flask.request.get_json()}, 201

    @app.delete("/json/<int:number>")
    def delete_json(number: int) -> Any:
        return "", 204

    @app.get("/broken")
    def broken() -> Any:
        raise LookupError("on purpose")

    return app


def test_flask_pages_sessions_and_redirects(serve: Serve, session: Any, file: Path) -> None:
    running = serve(flask_application(file))
    assert session.get(url_of(running, "/")).text == "visit 1"
    answer = session.get(url_of(running, "/moved"))
    assert answer.text == "visit 2"
    assert [each.status_code for each in answer.history] == [302]
    assert session.get(url_of(running, "/missing")).status_code == 404


def test_flask_json_in_and_out(serve: Serve, session: Any, file: Path) -> None:
    running = serve(flask_application(file))
    answer = session.put(url_of(running, "/json/7"), json={"a": [1, 2], "ü": "ö"})
    assert answer.status_code == 201
    assert answer.json() == {"number": 7, "a": [1, 2], "ü": "ö"}
    answer = session.delete(url_of(running, "/json/7"))
    assert (answer.status_code, answer.content) == (204, b"")
    assert session.get(url_of(running, "/")).status_code == 200


def test_flask_sends_files_whole_in_part_and_not_at_all(
    serve: Serve, session: Any, file: Path
) -> None:
    running = serve(flask_application(file))
    answer = session.get(url_of(running, "/file"))
    assert answer.content == FILE
    assert answer.headers["Content-Length"] == str(len(FILE))
    part = session.get(url_of(running, "/file"), headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, FILE[1000:2000])
    unchanged = session.get(
        url_of(running, "/file"), headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    head = session.head(url_of(running, "/file"))
    assert (head.headers["Content-Length"], head.content) == (str(len(FILE)), b"")
    assert session.get(url_of(running, "/memory")).content == FILE
    assert session.get(url_of(running, "/")).status_code == 200


def test_flask_streams_lines(serve: Serve, session: Any, file: Path) -> None:
    running = serve(flask_application(file))
    with session.get(url_of(running, "/stream"), stream=True) as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        lines = list(answer.iter_lines())
    assert lines == [b"line %d" % n for n in range(1000)]


def test_flask_takes_uploads(serve: Serve, session: Any, file: Path) -> None:
    running = serve(flask_application(file))
    with file.open("rb") as opened:
        answer = session.post(
            url_of(running, "/upload"),
            files={"attachment": ("ümlaut.bin", opened)},
            data={"note": "a note"},
        )
    assert answer.json() == {"name": "ümlaut.bin", "digest": DIGEST, "note": "a note"}
    pieces = (FILE[start : start + 30000] for start in range(0, len(FILE), 30000))
    assert session.post(url_of(running, "/raw"), data=pieces).json() == {"digest": DIGEST}


def test_flask_error_page_is_the_frameworks(serve: Serve, session: Any, file: Path) -> None:
    running = serve(flask_application(file))
    answer = session.get(url_of(running, "/broken"))
    assert answer.status_code == 500
    assert "text/html" in answer.headers["Content-Type"]
    assert session.get(url_of(running, "/")).status_code == 200


# -- Django --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def django_application() -> Any:
    pytest.importorskip("django")
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    def index(request: Any) -> Any:
        response = HttpResponse(f"{request.method} {request.get_host()} {request.path}")
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")
        return response

    def cookies(request: Any) -> Any:
        return JsonResponse(dict(request.COOKIES))

    def upload(request: Any) -> Any:
        digest = hashlib.sha256()
        for chunk in request.FILES["attachment"].chunks():
            digest.update(chunk)
        return JsonResponse({"digest": digest.hexdigest(), "note": request.POST["note"]})

    def raw(request: Any) -> Any:
        return JsonResponse({"digest": hashlib.sha256(request.body).hexdigest()})

    def send_file(request: Any) -> Any:
        return FileResponse(open(request.GET["path"], "rb"), as_attachment=True)

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(b"%d\n" % n for n in range(1000))

    def broken(request: Any) -> Any:
        raise LookupError("on purpose")

    class Urls:
        urlpatterns = [
            path("", index),
            path("cookies", cookies),
            path("upload", upload),
            path("raw", raw),
            path("file", send_file),
            path("stream", stream),
            path("broken", broken),
        ]

    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        DEBUG=False,
        LOGGING_CONFIG=None,
        ROOT_URLCONF=Urls,
        SECRET_KEY="for tests only",
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
    )
    django.setup()
    return WSGIHandler()


def test_django_pages_and_cookies(serve: Serve, session: Any, django_application: Any) -> None:
    running = serve(django_application)
    answer = session.get(url_of(running, "/"))
    assert answer.text == f"GET 127.0.0.1:{running.port} /"
    assert session.get(url_of(running, "/cookies")).json() == {"one": "1", "two": "2"}
    assert session.get(url_of(running, "/missing")).status_code == 404
    assert session.get(url_of(running, "/"), headers={"Host": "evil.test"}).status_code == 400
    assert session.head(url_of(running, "/")).status_code == 200


def test_django_takes_uploads(
    serve: Serve, session: Any, django_application: Any, file: Path
) -> None:
    running = serve(django_application)
    with file.open("rb") as opened:
        answer = session.post(
            url_of(running, "/upload"), files={"attachment": opened}, data={"note": "a note"}
        )
    assert answer.json() == {"digest": DIGEST, "note": "a note"}
    assert session.post(url_of(running, "/raw"), data=FILE).json() == {"digest": DIGEST}
    pieces = (FILE[start : start + 30000] for start in range(0, len(FILE), 30000))
    assert session.post(url_of(running, "/raw"), data=pieces).json() == {"digest": DIGEST}


def test_django_sends_and_closes_files(
    serve: Serve, session: Any, django_application: Any, file: Path
) -> None:
    running = serve(django_application)
    for _ in range(5):
        answer = session.get(url_of(running, "/file"), params={"path": str(file)})
        assert answer.content == FILE
        assert "attachment" in answer.headers["Content-Disposition"]


def test_django_streams_compressed(serve: Serve, session: Any, django_application: Any) -> None:
    running = serve(django_application)
    answer = session.get(url_of(running, "/stream"))
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.content == b"".join(b"%d\n" % n for n in range(1000))


def test_django_error_page_is_the_frameworks(
    serve: Serve, session: Any, django_application: Any
) -> None:
    running = serve(django_application)
    answer = session.get(url_of(running, "/broken"))
    assert answer.status_code == 500
    assert "Server Error" in answer.text
    assert session.get(url_of(running, "/")).status_code == 200


# -- Bottle --------------------------------------------------------------------------


def bottle_application(file: Path) -> Any:
    bottle = pytest.importorskip("bottle")
    app = bottle.Bottle()

    @app.get("/hello/<name>")
    def hello(name: str) -> str:
        return f"Hello {name}!"

    @app.get("/file")
    def send_file() -> Any:
        return bottle.static_file(file.name, root=str(file.parent), download=True)

    @app.get("/stream")
    def stream() -> Iterator[str]:
        for number in range(100):
            yield f"{number},"

    @app.get("/open")
    def open_file() -> Any:
        return file.open("rb")

    @app.post("/upload")
    def upload() -> dict[str, str]:
        sent = bottle.request.files.get("attachment")
        return {"digest": hashlib.sha256(sent.file.read()).hexdigest()}

    @app.post("/raw")
    def raw() -> dict[str, str]:
        return {"digest": hashlib.sha256(bottle.request.body.read()).hexdigest()}

    return app


def test_bottle_pages_files_streams_and_uploads(serve: Serve, session: Any, file: Path) -> None:
    running = serve(bottle_application(file))
    assert session.get(url_of(running, "/hello/world")).text == "Hello world!"
    assert session.get(url_of(running, "/missing")).status_code == 404
    assert session.get(url_of(running, "/file")).content == FILE
    part = session.get(url_of(running, "/file"), headers={"Range": "bytes=-100"})
    assert (part.status_code, part.content) == (206, FILE[-100:])
    assert session.get(url_of(running, "/open")).content == FILE
    assert session.get(url_of(running, "/stream")).text.count(",") == 100
    with file.open("rb") as opened:
        answer = session.post(url_of(running, "/upload"), files={"attachment": opened})
    assert answer.json() == {"digest": DIGEST}
    pieces = iter([FILE[:1000], FILE[1000:]])
    assert session.post(url_of(running, "/raw"), data=pieces).json() == {"digest": DIGEST}


def test_bottle_starts_the_server_by_its_own_adapter(
    session: Any, file: Path, run_server: Callable[[Any], Running]
) -> None:
    bottle = pytest.importorskip("bottle")
    started: list[Running] = []

    class Started:
        """Runs the server in a thread, so that the adapter's call returns."""

        def __init__(self, application: Any, **kw: Any) -> None:
            self.server = create_server(application, **kw)

        def run(self) -> None:
            started.append(run_server(self.server))

    bottle.run(
        bottle_application(file),
        server="waitress",
        host="127.0.0.1",
        port=0,
        quiet=True,
        threads=2,
        _server=Started,
    )
    assert len(started[0].server.task_dispatcher.threads) == 2
    assert session.get(url_of(started[0], "/hello/adapter")).text == "Hello adapter!"


# -- Pyramid -------------------------------------------------------------------------


def pyramid_application(file: Path) -> Any:
    configuration = pytest.importorskip("pyramid.config")
    response = pytest.importorskip("pyramid.response")

    def greet(request: Any) -> Any:
        return {"greeting": request.matchdict["name"], "url": request.url}

    def send_file(request: Any) -> Any:
        return response.FileResponse(str(file), request=request)

    def stream(request: Any) -> Any:
        return response.Response(app_iter=(b"%d " % n for n in range(100)))

    def raw(request: Any) -> Any:
        return {"digest": hashlib.sha256(request.body).hexdigest()}

    config = configuration.Configurator()
    for name, path, view, renderer in [
        ("greet", "/greet/{name}", greet, "json"),
        ("file", "/file", send_file, None),
        ("stream", "/stream", stream, None),
        ("raw", "/raw", raw, "json"),
    ]:
        config.add_route(name, path)
        config.add_view(view, route_name=name, renderer=renderer)
    return config.make_wsgi_app()


def test_pyramid_pages_files_and_streams(serve: Serve, session: Any, file: Path) -> None:
    running = serve(pyramid_application(file), url_scheme="https")
    assert session.get(url_of(running, "/greet/w%C3%B6rld")).json() == {
        "greeting": "wörld",
        "url": f"https://127.0.0.1:{running.port}/greet/w%C3%B6rld",
    }
    assert session.get(url_of(running, "/missing")).status_code == 404
    answer = session.get(url_of(running, "/file"))
    assert answer.content == FILE
    assert session.get(url_of(running, "/stream")).text.split() == [str(n) for n in range(100)]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # WebOb's copy of the body
def test_pyramid_takes_bodies(serve: Serve, session: Any, file: Path) -> None:
    running = serve(pyramid_application(file))
    assert session.post(url_of(running, "/raw"), data=FILE).json() == {"digest": DIGEST}
    pieces = iter([FILE[:1000], FILE[1000:]])
    assert session.post(url_of(running, "/raw"), data=pieces).json() == {"digest": DIGEST}


# -- wsgiref.validate ----------------------------------------------------------------


def reads_all(environ: dict[str, Any], start_response: Any) -> Any:
    """Use the input in every way that PEP 3333 allows."""
    stream = environ["wsgi.input"]
    parts = [stream.read(3), stream.readline(), stream.readline(4), *stream.readlines(10)]
    parts += iter(stream)
    body = b"|".join(parts)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def generates(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """Call ``start_response`` late, with an empty block before the first text."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b""
    yield b"one "
    yield b"two"


def writes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Use the callable that ``start_response`` returns."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    write(b"and ")
    return [b"returned"]


def nothing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer without content."""
    start_response("204 No Content", [])
    return []


def recovers(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Change its mind about the response before anything was sent."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1000")])
    try:
        raise LookupError("on purpose")
    except LookupError as error:
        start_response(
            "503 Service Unavailable",
            [("Content-Type", "text/plain")],
            (type(error), error, error.__traceback__),
        )
    return [b"sorry"]


@pytest.mark.parametrize(
    ("application", "status", "body"),
    [
        (reads_all, 200, b"abc|d\n|efgh|i\n|jkl\n|mno"),
        (generates, 200, b"one two"),
        (writes, 200, b"written and returned"),
        (nothing, 204, b""),
        (recovers, 503, b"sorry"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_validator_finds_nothing_wrong(
    application: Any,
    status: int,
    body: bytes,
    chunked: bool,
    serve: Serve,
    session: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    running = serve(wsgiref.validate.validator(application))
    content = b"abcd\nefghi\njkl\nmno"
    for _ in range(2):
        answer = session.post(
            url_of(running, "/path?query=1"), data=iter([content]) if chunked else content
        )
        assert (answer.status_code, answer.content) == (status, body)
    running.stop()
    assert "Error" not in capfd.readouterr().err


def test_validator_finds_nothing_wrong_with_a_file_response(
    serve: Serve, session: Any, file: Path
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return environ["wsgi.file_wrapper"](open(file, "rb"))

    def outside(environ: dict[str, Any], start_response: Any) -> Any:
        # The validator's iterator hides the wrapper: it is read like any iterable.
        return wsgiref.validate.validator(application)(environ, start_response)

    running = serve(outside)
    assert session.get(url_of(running, "/")).content == FILE


def test_validator_finds_nothing_wrong_with_head(serve: Serve, session: Any) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return []

    running = serve(wsgiref.validate.validator(application))
    for _ in range(2):
        answer = session.head(url_of(running, "/"))
        assert (answer.status_code, answer.headers["Content-Length"]) == (200, "5")
