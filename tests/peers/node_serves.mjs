// Node's servers, for our client: prints the ports of http, of https, and of http2 over TLS. In the folder of
// certificates.

import { once } from 'node:events';
import { createReadStream, readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { pipeline } from 'node:stream/promises';

const routes = {
    '/echo': (request, response) => pipeline(request, response),

    async '/lines'(request, response, query) {
        for (let n = 0; n < Number(query.get('count')); n += 1) {
            response.write(`line ${n}\n`);
            await new Promise(setImmediate);
        }
        response.end();
    },

    '/slow': (request, response, query) => setTimeout(() => response.end(), Number(query.get('ms'))),

    '/redirect': (request, response) => response.writeHead(302, { location: '/upload' }).end(),

    '/certificate': (request, response) => response.end(request.socket.authorized ? 'SUCCESS' : 'NONE'),

    async file(request, response, name) {
        const found = await stat(name).catch(() => null);
        if (!found) return response.writeHead(404).end();
        response.writeHead(200, { 'content-length': found.size });
        if (request.method === 'HEAD') return response.end();
        return pipeline(createReadStream(name), response);
    },
};

async function answer(request, response) {
    const { pathname, searchParams } = new URL(request.url, 'http://localhost');
    try {
        if (pathname in routes) await routes[pathname](request, response, searchParams);
        else await routes.file(request, response, pathname.slice(1));
    } catch (error) {
        // A client that hangs up is no news.
        if (error.code !== 'ERR_STREAM_PREMATURE_CLOSE') console.error(error);
    }
}

const tls = {
    ca: readFileSync('ca.pem'),
    cert: readFileSync('server.pem'),
    key: readFileSync('server.key'),
    requestCert: true,
    rejectUnauthorized: false,
};
const servers = [
    http.createServer(answer),
    https.createServer(tls, answer),
    http2.createSecureServer(tls, answer),
];
for (const server of servers) await once(server.listen(0, '127.0.0.1'), 'listening');
console.log(...servers.map((server) => server.address().port));
