"""The whole server on a simulated network, clock and pool of workers, by seed.

Every run makes a server of random settings and lets random clients talk to a random
application over connections of random quality. Everything that production leaves to
chance, which thread goes on, what the kernel takes, when a segment arrives, is drawn from
one seeded generator: a run can be repeated exactly, and shown step by step::

    python -m tests.simulation --runs 20000 --seed 1
    python -m tests.simulation --replay 4711

network    clock, connections, listener, poller
workers    the task dispatcher: real threads, of which one runs at any time
requests   what clients send, and what has to become of it
plans      what the application does with a request
clients    how clients send, read and leave
reading    a strict reader of responses
channels   the server's channels, watched
settings   random settings, and constants scaled down to the simulation's sizes
runs       one run: all of it together, and what must hold at each moment and at the end
"""
