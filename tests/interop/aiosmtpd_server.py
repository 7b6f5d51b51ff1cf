"""An SMTP server that demands STARTTLS, for the Python that has aiosmtpd: aiosmtpd_server.py key.pem cert.pem

It writes its port, and then each mail.
"""

import asyncio
import ssl
import sys

from aiosmtpd.handlers import Debugging  # type: ignore[import-not-found]
from aiosmtpd.smtp import SMTP  # type: ignore[import-not-found]


async def main(key: str, cert: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(Debugging(sys.stdout), tls_context=context, require_starttls=True), "127.0.0.1", 0
    )
    sys.stdout.write(f"port {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
