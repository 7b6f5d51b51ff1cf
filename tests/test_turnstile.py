"""Turnstile: a few pass in each turn of the event loop, in order, and nobody is forgotten."""

from __future__ import annotations

import collections

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    assert_no_checkpoints,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from trio_tlsnode import Engine, HandshakeTimeout, SecureContext, TLSServer, TLSStream
from trio_tlsnode.testing import default_authority
from trio_tlsnode.testing.transports import TransportWrapper
from trio_tlsnode.turnstile import STEPS_PER_TURN, Turnstile, turnstile

pytestmark = pytest.mark.feature("B22")

CLIENT = SecureContext(ca=default_authority().ca)
SERVER = SecureContext(**default_authority().good("localhost").options)


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.number = 0
        trio.lowlevel.add_instrument(self)

    def after_io_wait(self, timeout: float) -> None:
        self.number += 1


async def test_as_many_as_may_pass_in_each_turn_in_the_order_of_arrival() -> None:
    gate, turns = turnstile(), Turns()
    arrived: list[int] = []
    passed_in: dict[int, list[int]] = {}

    async def passes(number: int) -> None:
        arrived.append(number)
        await gate.pass_through()
        passed_in.setdefault(turns.number, []).append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5 * STEPS_PER_TURN):
            nursery.start_soon(passes, number)
    # Trio shuffles those whom it runs in one turn.
    in_turns = [sorted(numbers, key=arrived.index) for _, numbers in sorted(passed_in.items())]
    assert [number for numbers in in_turns for number in numbers] == arrived
    # Who finds that it has to wait for the next turn passes in it alone: the others are woken from there.
    assert [len(numbers) for numbers in in_turns] == [4, 1, 4, 4, 4, 3]


async def test_those_who_come_first_in_a_turn_pass_at_once_and_the_next_waits_for_another() -> None:
    gate = turnstile()
    await trio.lowlevel.checkpoint()
    for _ in range(STEPS_PER_TURN):
        with assert_no_checkpoints():
            await gate.pass_through()
    with assert_checkpoints():
        await gate.pass_through()


async def test_who_is_cancelled_lets_the_others_pass() -> None:
    gate = turnstile()
    number_of_tasks = 4 * STEPS_PER_TURN
    passed: list[int] = []
    scopes = [trio.CancelScope() for _ in range(number_of_tasks)]

    async def passes(number: int) -> None:
        with scopes[number]:
            await gate.pass_through()
            passed.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(number_of_tasks):
            nursery.start_soon(passes, number)
        await trio.lowlevel.checkpoint()
        # All have come, and the first of those who wait has its turn now.
        cancelled = {*range(STEPS_PER_TURN, 2 * STEPS_PER_TURN), number_of_tasks - 1}
        for number in cancelled:
            scopes[number].cancel()
    assert set(range(number_of_tasks)) - cancelled <= set(passed)
    with trio.fail_after(1):
        await gate.pass_through()


async def test_who_comes_while_others_wait_does_not_pass_before_them() -> None:
    gate, turns = turnstile(), Turns()
    passed: list[int] = []

    async def passes_twice() -> None:
        for _ in range(2):
            await gate.pass_through()
            passed.append(turns.number)

    async with trio.open_nursery() as nursery:
        for _ in range(3 * STEPS_PER_TURN):
            nursery.start_soon(passes_twice)
    assert len(passed) == 6 * STEPS_PER_TURN
    assert max(collections.Counter(passed).values()) <= STEPS_PER_TURN


async def test_who_comes_in_the_turn_of_the_last_who_waited_finds_no_open_gate() -> None:
    gate = turnstile()
    await trio.lowlevel.checkpoint()
    for _ in range(STEPS_PER_TURN):
        await gate.pass_through()
    # Who was woken for this turn passes in any case, and may come after as many as there is room for.
    gate._left -= 1
    for _ in range(2):
        with assert_checkpoints():
            await gate.pass_through()
        gate._left = -1


async def test_all_of_one_run_share_one_turnstile_and_two_runs_do_not() -> None:
    async def other_run() -> Turnstile:
        await trio.lowlevel.checkpoint()
        return turnstile()

    assert turnstile() is turnstile()
    assert await trio.to_thread.run_sync(trio.run, other_run) is not turnstile()


# Handshakes


class AnswerTimes(TransportWrapper):
    """Notes in which turn something is first sent."""

    def __init__(self, transport: trio.abc.Stream, turns: Turns, answers: list[int]) -> None:
        super().__init__(transport)
        self._turns = turns
        self._answers = answers
        self._answered = False

    async def _send(self, data: bytes) -> None:
        if not self._answered:
            self._answers.append(self._turns.number)
        self._answered = True
        await super()._send(data)


async def handler(stream: TLSStream) -> None:
    await stream.receive_some()


def client_hello() -> bytes:
    engine = Engine(CLIENT, host="localhost")
    engine.do_handshake()
    return engine.drain()


async def test_of_clients_of_all_servers_that_come_at_once_only_a_few_are_answered_in_a_turn(
    nursery: trio.Nursery,
) -> None:
    turns = Turns()
    servers = [TLSServer(handler, SERVER) for _ in range(2)]
    answers: list[int] = []
    clients = []
    for number in range(20):
        client, transport = memory_stream_pair()
        nursery.start_soon(servers[number % 2].handle, AnswerTimes(transport, turns, answers))
        clients.append(client)
    await wait_all_tasks_blocked()
    hello = client_hello()
    for client in clients:
        nursery.start_soon(client.send_all, hello)
    with trio.fail_after(5):
        while len(answers) < 20:
            await trio.lowlevel.checkpoint()
    assert max(collections.Counter(answers).values()) <= STEPS_PER_TURN
    nursery.cancel_scope.cancel()


async def test_waiting_before_the_turnstile_is_within_the_time_of_the_handshake(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    gate = turnstile()
    # Somebody is passing, and does not get on.
    gate._taken = True
    server = TLSServer(handler, SERVER, handshake_timeout=10)
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    await client.send_all(client_hello())
    await wait_all_tasks_blocked()
    mock_clock.jump(10)
    (error,) = (await anext(server.client_errors())).exceptions
    assert type(error) is HandshakeTimeout
    assert error.phase == "handshake"
    gate._wake_next()
    with trio.fail_after(1):
        await gate.pass_through()
