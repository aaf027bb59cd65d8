import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const script = (name) => fileURLToPath(new URL(`../src/${name}`, import.meta.url));

function run(name, environment) {
  return spawn(process.execPath, [script(name)], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

/** Starts the service as a process and waits for the log line that says its port. */
async function startProcess(t) {
  const child = run('main.js', { HOST: '127.0.0.1', PORT: '0' });
  t.after(() => child.kill('SIGKILL'));
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  const entry = JSON.parse(line);
  assert.equal(entry.msg, 'listening');
  return { child, port: String(entry.port) };
}

test('SIGTERM ends the process with status 0', async (t) => {
  const { child } = await startProcess(t);
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [0, null]);
});

test('the health check script tells a running service from none', async (t) => {
  const { child, port } = await startProcess(t);
  assert.deepEqual(await once(run('healthcheck.js', { PORT: port }), 'exit'), [0, null]);
  child.kill('SIGTERM');
  await once(child, 'exit');
  assert.deepEqual(await once(run('healthcheck.js', { PORT: port }), 'exit'), [1, null]);
});
