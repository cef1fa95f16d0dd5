"""Where messages to webhooks may go: the public internet, and networks that the operator named.

Names are looked up elsewhere (`webhook.py`), when the connection is made, and each address that comes
of it is judged here. Knows no socket.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from yarl import URL

from nerve.errors import InvalidField, shown

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

FIELD: Final = "webhook_endpoint"
SETTING: Final = "--async-webhook-networks"
MAX_CHARACTERS: Final = 2048
"""Longest address of a webhook."""
NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052: its last 32 bits are an IPv4 address, to which it leads."""
_ODD: Final = re.compile(r"[\x00-\x20\x7f\\]")
"""Parsers of URLs differ in what they make of these."""
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
"""A name that ends in such a label is read as an address by some, and as a name by others."""
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
_MAX_NAME: Final = 253
_MAX_LABEL: Final = 63
"""Characters that a name and each of its labels may have (RFC 1035)."""
_LOOPBACK: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that one of IPv6 leads to (mapped, NAT64, 6to4). Pure."""
    if isinstance(address, IPv4Address):
        return None
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def is_public(address: Address) -> bool:
    """Whether it is an address of the public internet, of one machine. Pure."""
    inner = embedded(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def may_reach(address: Address, networks: Networks, *, public: bool) -> bool:
    """Whether a message may go there: in one of the networks, or (if `public` will do) public. Pure."""
    inner = embedded(address)
    if any(each in network for network in networks for each in (address, inner) if each):
        return True
    return public and is_public(address)


def literal(host: str) -> Address | None:
    """The address that a host is written as, None of a name. Pure.

    Also as C's inet_aton reads it, which is what looks names up in the end: 127.1, 0x7f.1, 017700000001.
    """
    host = host.rstrip(".")
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host)) if re.match("[0-9]", host) else None
    except (OSError, ValueError):
        return None


def check_webhook(url: str, networks: Networks) -> None:
    """See whether messages may go there, as far as can be told without looking a name up.

    Raises:
        InvalidField: it is no URL of a webhook, or leads to a place that is not allowed.
    """
    parsed = _parse(url)
    host = parsed.raw_host or ""
    if ":" not in host:  # which only IPv6 has
        _check_host(host)
    if parsed.scheme == "http" and not networks:
        raise _invalid(
            "expected https://…; plain http is only for networks that the operator of the server "
            f"allows with {SETTING}"
        )
    addresses = [found] if (found := literal(host)) is not None else _local(host)
    public = parsed.scheme == "https"
    if addresses and not any(may_reach(each, networks, public=public) for each in addresses):
        raise _invalid(f"{shown(host)} {refusal(public=public)}")


def refusal(*, public: bool) -> str:
    """Why a host is refused, and what would help. Pure."""
    why = "is not on the public internet" if public else "is asked by plain http"
    return f"{why}, nor in a network that the operator of the server allows with {SETTING}"


def place(url: str) -> str:
    """Scheme, host and port of a webhook: what may be logged of it, as the rest may be a secret."""
    try:
        return str(URL(url).origin())
    except ValueError:  # it was checked; perhaps by another version of us
        return ""


def _parse(url: str) -> URL:
    if len(url) > MAX_CHARACTERS:
        raise _invalid(f"{len(url)} characters, at most {MAX_CHARACTERS} are taken")
    if _ODD.search(url):
        raise _invalid("there is a space, a backslash or a control character in it")
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError:  # what is wrong would be told with the URL, in which there may be a secret
        raise _invalid("expected https://host/path, and this is no valid URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or port == 0:
        raise _invalid("expected https://host/path or https://host:port/path")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise _invalid(
            "a user or password in it is not taken; messages are signed, or put a secret in the path"
        )
    return parsed


def _check_host(host: str) -> None:
    """Refuse what is neither an IPv4 address nor a name that can be looked up: no message gets there."""
    name = host.removesuffix(".")
    labels = name.split(".")
    if odd := _NO_NAME.search(name):
        raise _invalid(
            f"there is {odd[0]!r} in the name of its host; letters, digits, '-', '_' and '.' are taken"
        )
    if not all(labels):
        raise _invalid(f"its host {shown(host)} has nothing before, after or between dots")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(host)
        except ValueError:
            raise _invalid(
                f"its host {shown(host)} is no address; expected four decimal numbers, as in 192.0.2.1"
            ) from None
    if len(name) > _MAX_NAME:
        raise _invalid(f"its host has {len(name)} characters, a name has at most {_MAX_NAME}")
    if (longest := max(map(len, labels))) > _MAX_LABEL:
        raise _invalid(
            f"its host has {longest} characters without a dot, a name has at most {_MAX_LABEL}"
        )


def _local(host: str) -> Sequence[Address]:
    """Of names that mean this machine (RFC 6761); other names are left to when they are looked up."""
    name = host.rstrip(".").lower()
    return _LOOPBACK if name == "localhost" or name.endswith(".localhost") else ()


def _invalid(fault: str) -> InvalidField:
    return InvalidField(FIELD, fault)
