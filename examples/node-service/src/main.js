import pino from 'pino';
import { createService, version } from './service.js';

// An orchestrator sends SIGKILL some time after SIGTERM (ECS: 30 s). Requests still open after this long are cut off, so
// that the process ends by itself.
const DRAIN_MILLISECONDS = 10_000;

const logger = pino({ level: process.env.LOG_LEVEL ?? 'info' });
let stopping = false;
const server = createService({ logger, isStopping: () => stopping });

function stop(signal) {
  if (stopping) return;
  stopping = true;
  logger.info({ signal }, 'stopping');
  server.close(() => logger.info('stopped'));
  setTimeout(() => server.closeAllConnections(), DRAIN_MILLISECONDS).unref();
}

process.on('SIGTERM', stop);
process.on('SIGINT', stop);

server.on('error', (error) => {
  logger.fatal({ error: error.message }, 'cannot listen');
  process.exitCode = 1;
});
server.listen(Number(process.env.PORT ?? 8080), process.env.HOST ?? '0.0.0.0', () => {
  logger.info({ version, port: server.address().port }, 'listening');
});
