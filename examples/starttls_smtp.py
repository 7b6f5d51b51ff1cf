"""SMTP that changes to TLS with STARTTLS (RFC 3207): a client that sends a mail, and a server that prints it.

    python examples/starttls_smtp.py serve key.pem cert.pem 2525
    python examples/starttls_smtp.py send localhost 2525 ca.pem

Two rules keep others on the way out of it, and both sides keep them here:

- No TLS, no mail: whoever can remove "STARTTLS" from an answer must not get it in plaintext.
- What was read in plaintext ends with plaintext: what `Lines` has read too far is handed over to TLS, which
  refuses what is not its own, and nothing that was said before TLS counts after it.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

import trio_tlsnode as tls

LONGEST_LINE = 1000
# Nobody takes longer to ask for TLS, or is silent for longer.
SECONDS = 60


class Lines:
    """Reads a stream line by line.

    Attributes:
        ahead: What was read beyond the last line.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.ahead = b""

    async def line(self) -> str:
        """Return the next line without its end."""
        while b"\n" not in self.ahead:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError("the connection has ended")
            self.ahead += data
            if len(self.ahead) > LONGEST_LINE and b"\n" not in self.ahead:
                raise ValueError("the line is too long")
        line, _, self.ahead = self.ahead.partition(b"\n")
        return line.decode("utf-8", "replace").rstrip("\r")

    async def say(self, *lines: str) -> None:
        await self.stream.send_all("".join(f"{line}\r\n" for line in lines).encode())


# The client


class SMTPError(Exception):
    """The server has said no."""


async def ask(server: Lines, expected: str, *lines: str) -> list[str]:
    """Say something, and return the lines of the answer, whose status must be the expected one."""
    await server.say(*lines)
    answer = [await server.line()]
    while answer[-1][3:4] == "-":
        answer.append(await server.line())
    if not answer[-1].startswith(expected):
        raise SMTPError(answer[-1])
    return answer


async def send(
    host: str, port: int, sender: str, recipient: str, text: str, ca: Path | None = None
) -> tls.ConnectionInfo:
    """Send a mail; return what was negotiated for it."""
    async with await trio.open_tcp_stream(host, port) as stream:
        plain = Lines(stream)
        await ask(plain, "220")
        if "STARTTLS" not in (line[4:].upper() for line in await ask(plain, "250", "EHLO localhost")):
            raise SMTPError("the server does not offer TLS")
        await ask(plain, "220", "STARTTLS")
        async with await tls.wrap_client(stream, host=host, initial=plain.ahead, ca=ca) as secure:
            server = Lines(secure)
            await ask(server, "250", "EHLO localhost")
            await ask(server, "250", f"MAIL FROM:<{sender}>")
            await ask(server, "250", f"RCPT TO:<{recipient}>")
            await ask(server, "354", "DATA")
            # A line that begins with a dot gets another one: a dot alone is the end.
            body = [f".{line}" if line.startswith(".") else line for line in text.splitlines()]
            await ask(server, "250", *body, ".")
            await ask(server, "221", "QUIT")
            return secure.info


# The server


async def serve_plain(server: tls.TLSServer, stream: trio.SocketStream) -> None:
    """Do nothing but offer TLS."""
    client = Lines(stream)
    wants_tls = False
    try:
        with trio.move_on_after(SECONDS):
            wants_tls = await offer_tls(client)
    except (EOFError, ValueError, trio.BrokenResourceError) as error:
        print(f"a client has failed before TLS: {error}", file=sys.stderr)
    if wants_tls:
        await server.handle(stream, initial=client.ahead)


async def offer_tls(client: Lines) -> bool:
    """Return whether a client wants TLS, or says goodbye."""
    await client.say("220 localhost ESMTP")
    while True:
        match (await client.line()).upper().split():
            case ["EHLO", *_]:
                await client.say("250-localhost", "250 STARTTLS")
            case ["STARTTLS"]:
                await client.say("220 go ahead")
                return True
            case ["QUIT"]:
                await client.say("221 goodbye")
                return False
            case _:
                await client.say("530 STARTTLS comes first")


async def serve_mail(stream: tls.TLSStream) -> None:
    """Take mails over TLS, and print them."""
    client = Lines(stream)
    try:
        while True:
            match (await client.line()).upper().split():
                case ["QUIT"]:
                    await client.say("221 goodbye")
                    return
                case ["DATA"]:
                    await client.say("354 end with a dot")
                    while (line := await client.line()) != ".":
                        print(line.removeprefix("."))
                    await client.say("250 taken")
                case _:
                    await client.say("250 fine")
    except (EOFError, ValueError) as error:
        print(f"a client has failed: {error}", file=sys.stderr)


async def serve(
    key: Path,
    cert: Path,
    port: int,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled."""
    server = tls.TLSServer(serve_mail, tls.SecureContext(key=key, cert=cert), idle_timeout=SECONDS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report, server)
        await trio.serve_tcp(partial(serve_plain, server), port, host="127.0.0.1", task_status=task_status)


async def report(server: tls.TLSServer) -> None:
    """Print what clients do wrong, STARTTLS with commands behind it among it."""
    async for group in server.client_errors():
        for error in group.exceptions:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)


MAIL = "Subject: hello\n\nThis came over TLS."

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", key, cert, port]:
            trio.run(serve, Path(key), Path(cert), int(port))
        case ["send", host, port, ca]:
            print(trio.run(send, host, int(port), "me@localhost", "you@localhost", MAIL, Path(ca)))
        case _:
            sys.exit(__doc__)
