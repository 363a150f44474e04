"""Which proxy a client's requests go through, by the rules of Go's clients, which Prometheus' keys refer to."""

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from schemas.config.http_client import HttpClient

DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, config: HttpClient, environment: Mapping[str, str] = os.environ) -> str | None:
    """The proxy's URL; None: the server itself is asked.

    `proxy_url` alone holds for every server. With `no_proxy`, or from the environment, there are exceptions, of which
    this machine is always one.
    """
    proxy = config.proxy_url.get_secret_value()
    if config.proxy_from_environment:
        scheme = urlsplit(url).scheme
        proxy = _variable(environment, f"{scheme}_proxy")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        return None if not proxy or bypasses(url, _variable(environment, "no_proxy")) else proxy
    if not proxy or (config.no_proxy and bypasses(url, config.no_proxy)):
        return None
    return proxy


def bypasses(url: str, no_proxy: str) -> bool:
    """Whether a list of exceptions, between commas, names the URL's host, or the host is this machine.

    An entry is `*`, an address, a network (10.0.0.0/8), or a domain: `example.com` with all that is under it,
    `.example.com` only what is under it; all but a network may end in `:port`.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return any(_names(entry, host, address, port) for entry in entries if entry)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _names(entry: str, host: str, address: Address | None, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _in_network(address, entry)
    name, wanted_port = _split_port(entry)
    if wanted_port is not None and wanted_port != port:
        return False
    if address is not None:
        return _address(name) == address
    domain = name.removeprefix("*")
    if domain.startswith("."):
        return host.endswith(domain)
    return host == domain or host.endswith(f".{domain}")


def _in_network(address: Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, int | None]:
    name, colon, port = entry.rpartition(":")
    if colon and port.isascii() and port.isdigit() and ("]" in name or ":" not in name):
        return name.strip("[]"), int(port)
    return entry.strip("[]"), None


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _variable(environment: Mapping[str, str], name: str) -> str:
    """Upper case comes first, as in Go."""
    return environment.get(name.upper()) or environment.get(name, "")
