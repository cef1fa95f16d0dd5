"""Which web pages may talk to the server: a browser says where a page is from. Pure."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain"})


def own_names(*hostnames: str) -> frozenset[str]:
    """Names that this machine goes by, lower case, beside those that it was told to listen on."""
    return frozenset(name.strip("[]").lower() for name in (socket.gethostname(), *hostnames))


def allowed(
    origin: str, host: str, *, names: Collection[str] = (), more: Collection[str] = ()
) -> bool:
    """Whether a page from `origin` may send a request to `host`.

    A page can have a name of its own resolve to this machine once it is loaded (DNS rebinding), and
    then says that it is from the very host that it asks. That it cannot do with an address, with
    names that are not its own, or where its name had to be proved (https).

    Args:
        origin: the header Origin, scheme://host[:port].
        host: the header Host.
        names: what this machine is called, see `own_names`.
        more: origins that the operator allows; "*" is any.
    """
    if "*" in more or origin in more:
        return True
    try:
        page, target = urlsplit(origin), urlsplit(f"//{host}")
        name, asked = page.hostname, target.hostname
    except ValueError:
        return False
    if page.scheme not in ("http", "https") or not name or name.endswith("."):
        return False
    if name in LOCAL_NAMES or _is_loopback(name):
        return True
    if name != asked:
        return False
    return page.scheme == "https" or _is_address(name) or name in names


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
