"""httpx asks our server: `httpx_asks.py CHECK HTTP HTTPS`, in the folder of certificates."""

import asyncio
import os
import ssl
import sys

import httpx

check, http, https = sys.argv[1:]
upload = os.urandom(3_000_000)
trust = ssl.create_default_context(cafile="ca.pem")


def pieces():
    for start in range(0, len(upload), 100_000):
        yield upload[start : start + 100_000]


def client(**options):
    # Proxies of the environment are not for the loopback.
    return httpx.Client(verify=trust, trust_env=False, timeout=20, **options)


def asks(client, server, version):
    """What does not depend on the protocol."""
    info = client.get(server + "/info", params={"a": "1 2"}).json()
    assert info["version"] == version and info["target"] == "/info?a=1+2", info
    assert client.head(server + "/large?bytes=1000").headers["content-length"] == "1000"
    # httpx reads nothing of an answer before all of its request is written.
    for content in upload, pieces():
        counted = client.post(server + "/count", content=content).text
        assert counted == f"{len(upload)} bytes, sum {sum(upload)}\n", counted
    assert client.post(server + "/echo", content=upload[:1000]).content == upload[:1000]
    assert len(client.get(server + "/large?bytes=5000000").content) == 5_000_000
    with client.stream("GET", server + "/lines?count=50") as answer:
        assert list(answer.iter_lines())[-1] == "line 49"
    assert client.get(server + "/nowhere").status_code == 404
    try:
        client.get(server + "/slow?ms=60000", timeout=0.3)
        raise AssertionError("too late is an error")
    except httpx.ReadTimeout:
        pass
    assert client.get(server + "/").text == "Hello, world!"


def http1():
    asks(client(), http, "HTTP/1.1")


def unix():
    transport = httpx.HTTPTransport(uds="socket")
    asks(client(transport=transport), "http://localhost", "HTTP/1.1")


def tls():
    asks(client(), https, "HTTP/1.1")


def http2():
    asks(client(http2=True), https, "HTTP/2.0")


def http2_without_tls():
    asks(client(http1=False, http2=True), http, "HTTP/2.0")


def certificate():
    trust.load_cert_chain("client.pem", "client.key")
    info = client(http2=True).get(https + "/info").json()
    assert info["client_certificate"], info


def many():
    """Two hundred requests side by side, over one connection."""

    async def fetch_all():
        limits = httpx.Limits(max_connections=1)
        options = {"verify": trust, "trust_env": False, "timeout": 20}
        async with httpx.AsyncClient(http2=True, limits=limits, **options) as client:
            urls = [f"{https}/slow?ms=50&n={n}" for n in range(200)]
            answers = await asyncio.gather(*(client.get(url) for url in urls))
        assert all(answer.text == "at last\n" for answer in answers)

    asyncio.run(fetch_all())


globals()[check]()
