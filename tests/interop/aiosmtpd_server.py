"""An SMTP server that demands STARTTLS, for Debian's Python: aiosmtpd_server.py key.pem cert.pem.

It prints its port, and then each mail.
"""

import asyncio
import ssl
import sys

from aiosmtpd.handlers import Debugging
from aiosmtpd.smtp import SMTP


async def main(key, cert):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(Debugging(sys.stdout), tls_context=context, require_starttls=True), "127.0.0.1", 0
    )
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
