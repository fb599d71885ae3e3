import os
import socket

from waitress import serve


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello from an inherited socket\n"]


if __name__ == "__main__":
    count = int(os.environ["LISTEN_FDS"])
    serve(app, sockets=[socket.socket(fileno=3 + number) for number in range(count)])
