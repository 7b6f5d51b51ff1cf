"""The command ``tlsnode``.

It needs click, rich and trustme, which the extra ``trio-tlsnode[cli]`` installs.  What it does, any program
can do: it uses the public names of `trio_tlsnode` and `trio_tlsnode.testing` alone.
"""

from __future__ import annotations

try:
    import click
    import rich  # noqa: F401 - asked for here, so that what is missing is told in one place
    import trustme  # noqa: F401 - looked for here, used by the test kit
except ModuleNotFoundError as missing:
    raise ImportError(
        f"the command tlsnode needs {missing.name}: pip install 'trio-tlsnode[cli]'", name=missing.name
    ) from None

from .. import __version__
from . import connect, demo, dev_ca, inspect, proxy, serve, trace, watch
from .default_options import default_options, setting_defaults

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tlsnode", message="%(prog)s %(version)s")
@default_options
@click.pass_context
def main(context: click.Context, /, tls_cipher_list: str | None, **switches: bool) -> None:
    """TLS from the command line, on trio-tlsnode."""
    context.with_resource(setting_defaults(tls_cipher_list, **switches))


main.add_command(connect.connect)
main.add_command(demo.demo)
main.add_command(dev_ca.dev_ca)
main.add_command(inspect.inspect)
main.add_command(proxy.proxy)
main.add_command(serve.serve)
main.add_command(trace.trace)
main.add_command(watch.watch)
