"""Runs: which scenarios each command measures, with which contenders, how often and how long."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .contenders import CONTENDERS, NODE, NODE_CONTEXT_PER_CONNECT, OURS, TRIO_SSLSTREAM, TRIO_TCP, Contender
from .growth import GROWTHS
from .scenarios import (
    AES_128_GCM,
    BULK,
    CHACHA20,
    EXCHANGE_1000,
    FIRST_BYTE,
    HANDSHAKES,
    KIB,
    MEMORY,
    OWN_GROUPS,
    PING_PONG,
    PING_PONG_64,
    RESUMPTIONS,
    Scenario,
    bulk,
    messages,
)

Turn = tuple[Scenario, Contender]
"""A contender that does a scenario, once in every round."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a command measures, unless it is told otherwise.

    Attributes:
        rounds: How often each measurement is repeated.
        seconds: How long one measurement takes, in seconds.
        parts: Scenarios, and by name the contenders that do those of them that they can.
    """

    rounds: int
    seconds: float
    parts: Sequence[tuple[Sequence[Scenario], Sequence[str]]]


_WITH_GOALS = (*BULK, PING_PONG, PING_PONG_64, EXCHANGE_1000, *HANDSHAKES, *RESUMPTIONS, MEMORY, FIRST_BYTE)
_ON_OWN_GROUPS = [scenario.on(OWN_GROUPS) for scenario in (*HANDSHAKES, MEMORY)]
_SIZES = (
    bulk(4),
    *BULK,
    bulk(1024),
    PING_PONG,
    messages("messages-1", "messages of 1 KiB each way", 1, KIB),
    messages("messages-16", "messages of 16 KiB each way", 1, 16 * KIB),
)
_CIPHERS = [
    scenario.on(terms) for terms in (AES_128_GCM, CHACHA20) for scenario in (bulk(16), bulk(256), PING_PONG)
]
_GROWING = [scenario for growth in GROWTHS for scenario in growth.scenarios()]

SCENARIOS = {
    scenario.name: scenario for scenario in (*_WITH_GOALS, *_ON_OWN_GROUPS, *_SIZES, *_CIPHERS, *_GROWING)
}

# What decides about their own groups is the TLS library; those left out share trio.SSLStream's.
_LIBRARIES = (OURS, TRIO_SSLSTREAM, NODE, NODE_CONTEXT_PER_CONNECT)
_EVERYBODY = tuple(CONTENDERS)

GOALS_RUN = Run(5, 0.3, ((_WITH_GOALS, _EVERYBODY), (_ON_OWN_GROUPS, _LIBRARIES)))
QUICK_RUN = Run(
    3,
    0.4,
    (((bulk(256), PING_PONG, PING_PONG_64, *HANDSHAKES, *RESUMPTIONS, MEMORY), _EVERYBODY),),
)
SWEEP_RUN = Run(3, 0.4, (((*_SIZES, *_CIPHERS), _EVERYBODY),))
GROWTH_RUN = Run(3, 0.3, ((_GROWING, (OURS, TRIO_SSLSTREAM, NODE, TRIO_TCP)),))
REVISIONS_RUN = Run(
    7, 0.4, (((*BULK, PING_PONG, PING_PONG_64, *HANDSHAKES, *RESUMPTIONS, MEMORY, FIRST_BYTE), ()),)
)


def turns_of(scenarios: Sequence[Scenario], contenders: Sequence[Contender]) -> list[Turn]:
    """Return who does what: every contender each scenario that it can."""
    return [
        (scenario, contender)
        for scenario in scenarios
        for contender in contenders
        if isinstance(scenario.workload, contender.workloads)
    ]
