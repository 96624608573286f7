// Node's clients ask our server: `node_asks.mjs CHECK HTTP HTTPS`, in the folder of certificates.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import { buffer, json, text } from 'node:stream/consumers';

const [check, plain, secure] = process.argv.slice(2);
const upload = randomBytes(3_000_000);
const ca = readFileSync('ca.pem');
const certificate = { cert: readFileSync('client.pem'), key: readFileSync('client.key') };

/** An answer of HTTP/1, and its request. */
async function ask(url, options = {}, body) {
    const { request } = url.startsWith('https') ? https : http;
    const asked = request(url, { ca, ...options });
    if (options.headers?.expect) await once(asked, 'continue');
    asked.end(body);
    const [answer] = await once(asked, 'response');
    return { asked, answer };
}

/** An answer of HTTP/2: its headers, and the stream of its body. */
async function askOn(session, path, headers = {}, body) {
    const stream = session.request({ ':path': path, ...headers }, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    const [answer] = await once(stream, 'response');
    return { answer, stream };
}

async function http2OnSession(session, scheme) {
    const info = await json((await askOn(session, '/info')).stream);
    assert.equal(info.version, 'HTTP/2.0');
    assert.equal(info.scheme, scheme);
    // A stream that nobody reads would keep the session from closing.
    const head = await askOn(session, '/large?bytes=1000', { ':method': 'HEAD' });
    head.stream.resume();
    assert.equal(head.answer['content-length'], '1000');
    const echo = await askOn(session, '/echo', { ':method': 'POST' }, upload);
    assert.ok(upload.equals(await buffer(echo.stream)));
    assert.match(await text((await askOn(session, '/lines?count=50')).stream), /line 49\n$/);
    const nowhere = await askOn(session, '/nowhere');
    nowhere.stream.resume();
    assert.equal(nowhere.answer[':status'], 404);

    // A stream that is given up harms no other, and many run side by side.
    const given_up = session.request({ ':path': '/slow?ms=60000' });
    const slow = Array.from({ length: 150 }, async (_, n) =>
        text((await askOn(session, `/slow?ms=50&n=${n}`)).stream));
    given_up.close(http2.constants.NGHTTP2_CANCEL);
    assert.ok((await Promise.all(slow)).every((answer) => answer === 'at last\n'));
    await new Promise((resolve, reject) =>
        session.ping((error) => (error ? reject(error) : resolve())));
    session.close();
    await once(session, 'close');
}

const checks = {
    async http1() {
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
        const first = await ask(`${plain}/info`, { agent });
        assert.equal((await json(first.answer)).version, 'HTTP/1.1');
        // The socket goes back to the agent in a moment.
        await new Promise(setImmediate);
        const second = await ask(`${plain}/lines?count=50`, { agent });
        assert.ok(second.asked.reusedSocket);
        assert.match(await text(second.answer), /line 49\n$/);
        assert.equal((await ask(`${plain}/nowhere`)).answer.statusCode, 404);
        const head = await ask(`${plain}/large?bytes=1000`, { method: 'HEAD' });
        assert.equal(head.answer.headers['content-length'], '1000');
        agent.destroy();
    },

    async uploads() {
        for (const headers of [{ 'content-length': upload.length }, {}, { expect: '100-continue' }]) {
            const { answer } = await ask(`${plain}/count`, { method: 'POST', headers }, upload);
            const sum = upload.reduce((sum, byte) => sum + byte, 0);
            assert.equal(await text(answer), `${upload.length} bytes, sum ${sum}\n`);
        }
    },

    async unix() {
        const { answer } = await ask('http://localhost/info', { socketPath: 'socket' });
        assert.equal((await json(answer)).peer, 'none');
    },

    async tls() {
        for (const [options, shown] of [[{}, false], [certificate, true]]) {
            const { answer } = await ask(`${secure}/info`, { agent: false, ...options });
            const info = await json(answer);
            assert.deepEqual([info.scheme, info.client_certificate], ['https', shown]);
        }
        const { answer } = await ask(`${secure}/echo`, { method: 'POST' }, upload);
        assert.ok(upload.equals(await buffer(answer)));
    },

    async http2() {
        const session = http2.connect(secure, { ca, ...certificate });
        const info = await json((await askOn(session, '/info')).stream);
        assert.ok(info.client_certificate);
        await http2OnSession(session, 'https');
    },

    async http2_without_tls() {
        await http2OnSession(http2.connect(plain), 'http');
    },

    async fetch() {
        assert.equal(await (await fetch(`${plain}/redirect`)).json().then((info) => info.target), '/info');
        const echo = await fetch(`${plain}/echo`, { method: 'POST', body: upload });
        assert.ok(upload.equals(Buffer.from(await echo.arrayBuffer())));
        await assert.rejects(fetch(`${plain}/slow?ms=60000`, { signal: AbortSignal.timeout(300) }));
    },
};

await checks[check]();
// Sockets that are kept for later would keep the process, too.
process.exit();
