"""Tornado's server, for our client: prints its ports, without and with TLS. In the folder of certificates."""

import asyncio
import ssl

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RedirectHandler, RequestHandler, StaticFileHandler


class Echo(RequestHandler):
    def post(self):
        self.write(self.request.body)


class Lines(RequestHandler):
    async def get(self):
        for n in range(int(self.get_query_argument("count"))):
            self.write(f"line {n}\n")
            await self.flush()


class Slow(RequestHandler):
    async def get(self):
        await asyncio.sleep(int(self.get_query_argument("ms")) / 1000)


class Certificate(RequestHandler):
    def get(self):
        self.write("SUCCESS" if self.request.get_ssl_certificate() else "NONE")


async def main():
    routes = [
        ("/echo", Echo),
        ("/lines", Lines),
        ("/slow", Slow),
        ("/certificate", Certificate),
        ("/redirect", RedirectHandler, {"url": "/upload"}),
        ("/(.*)", StaticFileHandler, {"path": "."}),
    ]
    application = Application(routes, compress_response=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="ca.pem")
    tls.load_cert_chain("server.pem", "server.key")
    tls.verify_mode = ssl.CERT_OPTIONAL
    ports = []
    for options in None, tls:
        sockets = bind_sockets(0, "127.0.0.1")
        HTTPServer(application, ssl_options=options).add_sockets(sockets)
        ports.append(sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
