"""The released package and this one, side by side: the same bytes in, the same bytes out.

``wire`` talks to a server and says what came back, ``serving`` is the script that both
servers run, ``applications`` what they serve, ``rows_*`` the table, ``released`` makes the
virtual environment of the released package. Nothing here opens the released package's
source: it is run, and it is sent bytes.
"""
