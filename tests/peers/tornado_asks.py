"""Tornado's client asks our server: `tornado_asks.py CHECK HTTP HTTPS`, in the folder of certificates."""

import asyncio
import json
import os
import sys

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

check, http, https = sys.argv[1:]
upload = os.urandom(3_000_000)
own_certificate = {"client_cert": "client.pem", "client_key": "client.key"}


async def fetch(url, **options):
    client = SimpleAsyncHTTPClient(force_instance=True, max_clients=50)
    try:
        return await client.fetch(HTTPRequest(url, ca_certs="ca.pem", **options))
    finally:
        client.close()


async def get():
    info = json.loads((await fetch(http + "/info?a=1")).body)
    assert info["target"] == "/info?a=1" and info["version"] == "HTTP/1.1", info
    assert (await fetch(http + "/redirect")).effective_url == http + "/info"


async def head():
    answer = await fetch(http + "/large?bytes=1000", method="HEAD")
    assert answer.headers["Content-Length"] == "1000" and answer.body == b"", answer.headers


async def echo():
    answer = await fetch(http + "/echo", method="POST", body=upload)
    assert answer.body == upload


async def chunks():
    """The body is made while it is sent, and sent only when the server has asked for it."""

    async def produce(write):
        for start in range(0, len(upload), 100_000):
            await write(upload[start : start + 100_000])

    options = {"method": "POST", "body_producer": produce, "expect_100_continue": True}
    answer = await fetch(http + "/count", **options)
    assert answer.body.decode() == f"{len(upload)} bytes, sum {sum(upload)}\n", answer.body


async def lines():
    parts = []
    await fetch(http + "/lines?count=50", streaming_callback=parts.append)
    assert b"".join(parts).splitlines()[-1] == b"line 49", parts


async def failures():
    try:
        await fetch(http + "/nowhere")
        raise AssertionError("404 is an error")
    except HTTPClientError as error:
        assert error.code == 404, error
    try:
        await fetch(http + "/slow?ms=60000", request_timeout=0.3)
        raise AssertionError("too late is an error")
    except HTTPTimeoutError:
        pass


async def many():
    client = SimpleAsyncHTTPClient(force_instance=True, max_clients=50)
    answers = await asyncio.gather(*(client.fetch(f"{http}/slow?ms=50&n={n}") for n in range(200)))
    assert all(answer.body == b"at last\n" for answer in answers)


async def tls():
    info = json.loads((await fetch(https + "/info", **own_certificate)).body)
    assert info["scheme"] == "https" and info["client_certificate"], info
    answer = await fetch(https + "/echo", method="POST", body=upload)
    assert answer.body == upload


asyncio.run(globals()[check]())
