// The image's HEALTHCHECK: the base has no curl, but it has Node.
const url = `http://127.0.0.1:${process.env.PORT ?? 8080}/healthz`;

try {
  const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
  process.exitCode = response.ok ? 0 : 1;
} catch (error) {
  console.error(`${url}: ${error.cause?.message ?? error.message}`);
  process.exitCode = 1;
}
