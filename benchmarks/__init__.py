"""Benchmarks: trio_tlsnode next to the other ways to speak TLS, on this machine, in one run.

``python -m benchmarks`` starts each contender as a server process and a client process, each pinned to a
core of its own, measures, and ends them; the contenders take turns, and every measurement is repeated in
each round with fresh processes.  What is printed are medians, extremes, and how many times as much
trio_tlsnode does: the median of the ratios within each round, which a machine that slows down for a while
does not disturb, and between which of them it lies.

Without a command it measures what this package has goals for.  ``sweep`` measures other sizes and ciphers,
``growth`` how cost grows with sizes and connections, ``compare`` two commits in one run; ``compare`` also
sets two kept runs side by side, and ``plot`` draws kept runs.

Like for like: both sides of a contender are the same implementation; TLS 1.3, TLS_AES_256_GCM_SHA384 (where
the name of a scenario does not say otherwise) and TCP_NODELAY for all; the certificate is verified; one
context serves all connections of a process (except where a contender's name says otherwise).  What was really
negotiated is read off the wire and printed.  Each library is called as its documentation shows, and closes a
connection in its own way.
"""
