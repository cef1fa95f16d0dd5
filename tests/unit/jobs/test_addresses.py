"""Where messages to webhooks may go, as far as an address tells."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerve.errors import InvalidField
from nerve.jobs.addresses import check_webhook, is_public, literal, may_reach, place

INNER = [ip_network("127.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("fd00:1::/32")]
NOT_PUBLIC = [
    "127.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:db8::1",
    "2001::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "4000::1",
]
PUBLIC = [
    "8.8.8.8",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@settings(max_examples=30)
@given(st.ip_addresses(v=4))
def test_what_is_wrapped_in_ipv6_is_as_public_as_it_is(address: IPv4Address) -> None:
    for outer in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(ip_address(outer)) == is_public(address)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("::1", "::1"),
        ("hooks.example", None),
        ("1password.example", None),
        ("127.0.0.1.nip.example", None),
        ("0xhooks", None),
    ],
)
def test_how_an_address_may_be_written(host: str, address: str | None) -> None:
    assert literal(host) == (None if address is None else ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example/path?token=x",
        "https://hooks.example:8443/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:444/x",
        "https://xn--bcher-kva.example/",
        "https://bücher.example/",
    ],
)
def test_what_is_taken_without_networks(url: str) -> None:
    check_webhook(url, [])


@pytest.mark.parametrize(
    "url",
    [
        *(f"https://{each if ':' not in each else f'[{each}]'}/x" for each in NOT_PUBLIC),
        "https://localhost/",
        "https://LOCALHOST:8080/",
        "https://localhost./",
        "https://a.localhost/",
        "https://①②⑦.0.0.1/",
        "https://127。0。0。1/",
        "http://hooks.example/",
        "http://8.8.8.8/",
    ],
)
def test_what_is_refused_tells_what_would_allow_it(url: str) -> None:
    with pytest.raises(InvalidField, match=r"^webhook_endpoint: .*--async-webhook-networks"):
        check_webhook(url, [])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/",
        "http://localhost:8000/",
        "https://localhost/",
        "https://10.1.2.3/",
        "http://[fd00:1::5]/",
        "http://[::ffff:10.1.2.3]/",
        "http://receiver:8000/",
        "http://my_receiver.default.svc.:8000/",
    ],
)
def test_what_networks_allow(url: str) -> None:
    """Of names, nothing can be told before they are looked up."""
    check_webhook(url, INNER)


@pytest.mark.parametrize("url", ["http://10.2.0.1/", "http://8.8.8.8/", "https://10.2.0.1/"])
def test_what_networks_do_not_allow(url: str) -> None:
    with pytest.raises(InvalidField, match="--async-webhook-networks"):
        check_webhook(url, INNER)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example/path",
        "/path",
        "https://",
        "https:///path",
        "ftp://hooks.example/",
        "file:///etc/passwd",
        "gopher://hooks.example/",
        "https://hooks.example:0/",
        "https://hooks.example:99999/",
        "https://hooks.example:x/",
        "https://user:s3cret@hooks.example/",
        "https://s3cret@hooks.example/",
        "https://hooks.example\\@10.0.0.1/",
        "https://hooks.example/a b",
        "https://hooks.example/\r\nX-Header: s3cret",
        "https://[::1",
        f"https://hooks.example/{'x' * 3000}",
    ],
)
def test_what_is_no_webhook(url: str) -> None:
    """The error names the field, and repeats no secret."""
    with pytest.raises(InvalidField, match=r"^webhook_endpoint: ") as caught:
        check_webhook(url, INNER)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("hooks%2eexample", "there is '%' in the name"),
        ("%31%32%37.0.0.1", "there is '%' in the name"),
        ("hooks%00", "there is '%' in the name"),
        ("hooks％41", "no valid URL"),
        ("hooks*.example", r"there is '\*' in the name"),
        ("hooks\x01", "control character"),
        ("hooks\x85", "no valid URL"),
        (".", "nothing before, after or between dots"),
        (".example", "nothing before, after or between dots"),
        ("hooks..example", "nothing before, after or between dots"),
        ("hooks.example..", "nothing before, after or between dots"),
        ("a" * 64 + ".example", "64 characters without a dot, a name has at most 63"),
        (".".join(["a" * 63] * 4), "255 characters, a name has at most 253"),
        ("4294967297", "no address; expected four decimal numbers"),
        ("2130706433", "no address"),
        ("017700000001", "no address"),
        ("1.2.3.4.5", "no address"),
        ("1.2.3.256", "no address"),
        ("127.1", "no address"),
        ("127.0.0.1.", "no address"),
        ("127.0.0.01", "no address"),
        ("0x7f.1", "no address"),
        ("0x7f000001", "no address"),
        ("0X7F.0x1", "no address"),
        ("hooks.0x", "no address"),
    ],
)
def test_hosts_that_no_message_can_reach(host: str, fault: str) -> None:
    """Whatever is allowed: an attempt at each would only fail."""
    for networks in ([], INNER, [ip_network("0.0.0.0/0")]):
        for scheme in ("https", "http") if networks else ("https",):
            with pytest.raises(InvalidField, match=rf"^webhook_endpoint: .*{fault}"):
                check_webhook(f"{scheme}://{host}:8000/x", networks)


@pytest.mark.parametrize(
    "host", [".".join(["a" * 63] * 3 + ["b" * 61]), "1.2.3.4.example", "1e3", "0xhooks", "a.0y1"]
)
def test_odd_names_are_names(host: str) -> None:
    check_webhook(f"https://{host}/", [])
    check_webhook(f"https://{host}./", [])


def test_plain_http_is_not_for_the_internet() -> None:
    assert may_reach(ip_address("8.8.8.8"), INNER, public=True)
    assert not may_reach(ip_address("8.8.8.8"), INNER, public=False)
    assert may_reach(ip_address("10.1.0.1"), INNER, public=False)
    assert may_reach(ip_address("::ffff:10.1.0.1"), INNER, public=False)


def test_the_place_holds_no_secret() -> None:
    assert place("https://hooks.example:8443/s3cret?token=s3cret#s3cret") == (
        "https://hooks.example:8443"
    )
