import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/** The version of the service, as `package.json` gives it. */
export const version = manifest.version;

/**
 * Makes the HTTP server, not yet listening.
 *
 * `isStopping` is asked at every health check: a service that is about to stop says so, and a load balancer sends it
 * no more requests.
 */
export function createService({ logger, isStopping = () => false }) {
  return createServer((request, response) => {
    const started = process.hrtime.bigint();
    response.on('finish', () => {
      const milliseconds = Number(process.hrtime.bigint() - started) / 1e6;
      logger.info({ method: request.method, path: request.url, status: response.statusCode, milliseconds }, 'request');
    });
    const { status, headers, body } = answer(request, isStopping());
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(request.method === 'HEAD' ? undefined : `${JSON.stringify(body)}\n`);
  });
}

function answer(request, stopping) {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, headers: { allow: 'GET, HEAD' }, body: { error: 'method not allowed' } };
  }
  switch (request.url.split('?', 1)[0]) {
    case '/':
      return { status: 200, body: { message: 'Hello from my-node-app', version } };
    case '/healthz':
      return stopping ? { status: 503, body: { status: 'stopping' } } : { status: 200, body: { status: 'ok' } };
    default:
      return { status: 404, body: { error: 'not found' } };
  }
}
