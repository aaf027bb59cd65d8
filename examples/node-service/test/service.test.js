import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import pino from 'pino';
import { createService, version } from '../src/service.js';

/** Starts a service on a free port for one test; gives its URL and the log lines it wrote. */
async function start(t, options = {}) {
  const lines = [];
  const sink = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(chunk));
      done();
    },
  });
  const server = createService({ logger: pino(sink), ...options });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { url: `http://127.0.0.1:${server.address().port}`, lines };
}

test('the root greets and gives the version', async (t) => {
  const { url } = await start(t);
  const response = await fetch(`${url}/?who=anyone`);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-type'), 'application/json');
  assert.deepEqual(await response.json(), { message: 'Hello from my-node-app', version });
  assert.match(version, /^\d+\.\d+\.\d+$/);
});

test('the health check is good while the service runs', async (t) => {
  const { url } = await start(t);
  const response = await fetch(`${url}/healthz`);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { status: 'ok' });
});

test('the health check fails once the service is stopping', async (t) => {
  const { url } = await start(t, { isStopping: () => true });
  const response = await fetch(`${url}/healthz`);
  assert.equal(response.status, 503);
  assert.deepEqual(await response.json(), { status: 'stopping' });
});

test('other paths and methods are refused', async (t) => {
  const { url } = await start(t);
  assert.equal((await fetch(`${url}/nowhere`)).status, 404);
  const refused = await fetch(url, { method: 'POST', body: 'x' });
  assert.equal(refused.status, 405);
  assert.equal(refused.headers.get('allow'), 'GET, HEAD');
});

test('HEAD has no body', async (t) => {
  const { url } = await start(t);
  const response = await fetch(url, { method: 'HEAD' });
  assert.equal(response.status, 200);
  assert.equal(await response.text(), '');
});

test('each request is one log line', async (t) => {
  const { url, lines } = await start(t);
  await (await fetch(`${url}/healthz`)).text();
  assert.equal(lines.length, 1);
  assert.equal(lines[0].msg, 'request');
  assert.equal(lines[0].path, '/healthz');
  assert.equal(lines[0].status, 200);
});
