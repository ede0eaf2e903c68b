"""Which addresses a remote engine may have."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from backend.engines.address import Refused, Target, addresses_of, target_of

LISTED = ("api.example.com", "box.example.com:8443", "127.0.0.1:11434", "[::1]:9000", "Ollama:11434")


def test_a_listed_host_is_called_by_https_and_one_with_a_port_by_either():
    assert target_of("https://api.example.com/v1", LISTED) == Target("https", "api.example.com", 443, "/v1", False)
    assert target_of("https://API.example.com:443/v1/", LISTED).url == "https://api.example.com/v1"
    assert target_of("http://127.0.0.1:11434/v1", LISTED).may_be_private
    assert target_of("https://box.example.com:8443", LISTED).url == "https://box.example.com:8443"
    assert target_of("http://ollama:11434/v1", LISTED).port == 11434
    assert target_of("http://[::1]:9000/v1", LISTED).host == "::1"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com/v1",
        "https://api.example.com:8443/v1",
        "https://api.example.com.evil.org/v1",
        "https://evil.org/api.example.com",
        "https://example.com",
        "http://127.0.0.1:80",
        "http://127.0.0.1:11435/v1",
        "http://localhost:11434/v1",
        "http://2130706433:11434",
        "http://0x7f.1:11434",
        "http://127.1:11434",
    ],
)
def test_what_is_not_listed_exactly_is_refused_with_who_can_list_it(url: str):
    with pytest.raises(Refused, match="not among the hosts this server may call.*engine_hosts") as refused:
        target_of(url, LISTED)
    assert refused.value.code == "engine_host"
    with pytest.raises(Refused):
        target_of(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "https://user@api.example.com/v1",
        "https://api.example.com:443@evil.org/v1",
        "https://api.example.com\\@evil.org",
        "https://api.example.com\\.evil.org",
        "https://api.example.com#@evil.org/",
        "https://api.example.com?x=1",
        "https://api.example.com/v1?x=http://evil.org",
        "https://api.example.com/../admin",
        "https://api.example.com/./v1",
        "https://api.example.com//evil.org/v1",
        "https://api.example.com/%2e%2e/admin",
        "https://api.example.com\r\nHost: evil.org",
        "https://api.example.com\t/v1",
        " https://api.example.com/v1",
        "https://api。example。com/v1",
        "https://ａpi.example.com/v1",
        "https://api..example.com",
        "https://.api.example.com",
        "https://api.example.com./v1",
        "https://[::1%25lo]:9000",
        "https://api.example.com:0443443/v1",
        "file:///etc/passwd",
        "ftp://api.example.com/v1",
        "gopher://api.example.com/v1",
        "//api.example.com/v1",
        "api.example.com/v1",
        "https://",
        "https://" + "a" * 400,
        "",
        None,
    ],
)
def test_what_could_be_read_in_two_ways_is_no_base_url(url: Any):
    with pytest.raises(Refused, match="no base URL that can be used"):
        target_of(url, LISTED)


PUBLIC = Target("https", "api.example.com", 443, "/v1", False)
PRIVATE = Target("http", "box", 8000, "/v1", True)


def leading_to(*addresses: str) -> Any:
    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return lookup


NEVER = [
    "169.254.169.254", "169.254.0.7", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "fe80::1", "fe80::1%eth0", "ff02::1", "::", "fd00:ec2::254", "::ffff:168.63.129.16", "64:ff9b::6464:64c8", "::ffff:169.254.169.254",
    "2002:a9fe:a9fe::1", "64:ff9b::a9fe:a9fe", "::a9fe:a9fe", "64:ff9b:1::7f00:1",
]  # fmt: skip
ONLY_IF_NAMED = [
    "127.0.0.1", "127.8.8.8", "10.0.0.8", "172.16.3.4", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "::ffff:127.0.0.1",
    "::ffff:10.1.2.3", "2002:7f00:1::", "2002:0a00:0001::", "64:ff9b::7f00:1", "64:ff9b::a00:1", "::7f00:1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]  # fmt: skip


@pytest.mark.parametrize("address", ONLY_IF_NAMED)
def test_a_public_name_that_leads_inside_is_refused_in_every_spelling(address: str):
    for found in ([address], ["93.184.215.14", address]):
        with pytest.raises(Refused, match="leads to an address inside.* can add api.example.com:443 to") as refused:
            addresses_of(PUBLIC, leading_to(*found))
        assert refused.value.code == "engine_address"
        named = target_of("https://api.example.com/v1", [str(refused.value.values["entry"])])
        assert named.may_be_private, "what the refusal says helps"


@pytest.mark.parametrize("address", NEVER)
def test_metadata_services_and_addresses_of_nobody_are_refused_even_when_listed_and_no_list_is_advised(address: str):
    for target in (PRIVATE, PUBLIC):
        for found in ([address], ["10.0.0.8", address]):
            with pytest.raises(Refused, match="never called, and no setting changes that") as refused:
                addresses_of(target, leading_to(*found))
            assert refused.value.code == "engine_never" and "engine_hosts" not in str(refused.value)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "2852039166", "0xa9.0xfe.43518", "100.100.100.200", "0.0.0.0", "[::ffff:a9fe:a9fe]"]
)
def test_a_metadata_service_in_the_base_url_is_told_at_once_listed_or_not(host: str):
    for listed in ((), (host, f"{host}:80", f"{host}:443")):
        for url in (f"http://{host}/v1", f"https://{host}/v1"):
            with pytest.raises(Refused, match="never called, and no setting changes that") as refused:
                target_of(url, listed)
            assert refused.value.code == "engine_never"


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://other.example.com/v1", "other.example.com"),
        ("http://other.example.com:443/v1", "other.example.com:443"),
        ("http://other.example.com/v1", "other.example.com:80"),
        ("https://93.184.215.14/v1", "93.184.215.14"),
        ("https://192.168.1.20/v1", "192.168.1.20:443"),
        ("https://[::1]/v1", "[::1]:443"),
    ],
)
def test_what_the_refusal_advises_to_list_is_enough(url: str, entry: str):
    with pytest.raises(Refused, match="not among the hosts") as refused:
        target_of(url, LISTED)
    assert refused.value.values["entry"] == entry and f"can add {entry} to" in str(refused.value)
    target = target_of(url, [entry])
    assert addresses_of(target, leading_to("192.168.1.20" if target.may_be_private else "93.184.215.14"))
    with pytest.raises(Refused, match="inside a network") as refused:
        addresses_of(target_of("https://[::1]/v1", ["[::1]"]), leading_to("::1"))
    assert refused.value.values["entry"] == "[::1]:443"


def test_addresses_that_may_be_called_come_back_as_they_are_to_be_called():
    assert addresses_of(PUBLIC, leading_to("93.184.215.14", "2606:2800:21f::1")) == [
        "93.184.215.14",
        "2606:2800:21f::1",
    ]
    named = [address for address in ONLY_IF_NAMED if not address.startswith("2001:0:")]
    found = addresses_of(PRIVATE, leading_to(*named))
    assert [ipaddress.ip_address(one) for one in found] == [ipaddress.ip_address(one) for one in named]
    with pytest.raises(OSError, match="no address"):
        addresses_of(PUBLIC, leading_to())
