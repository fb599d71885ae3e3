"""A long run of mixed clients, whose every response is checked by hash.

``python -m tests.soak --minutes 30 --seed S`` starts a server in a process of its own, on
a TCP port and a unix socket, and clients of every kind: persistent and pipelining ones,
bodies of all sizes up and down, with lengths and in chunks, slow readers and senders,
half-closes, HEAD, Expect, failing applications, and clients that leave whenever they
like. What a response is to contain follows from its request alone, so that each is
checked, and each request is counted on both sides: none may be lost, run twice, mixed with
another or corrupted. Now and then all clients rest; then the server has to have given back
every descriptor and spooled byte, and memory that does not grow.

Linux only: what a process costs is read from ``/proc``.
"""
