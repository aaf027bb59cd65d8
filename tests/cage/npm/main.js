const { execFileSync } = require("node:child_process");
const { Worker, isMainThread, parentPort } = require("node:worker_threads");
const { mask } = require("bufferutil");

if (isMainThread) {
  const output = Buffer.alloc(4);
  mask(Buffer.from("abcd"), Buffer.from([1, 2, 3, 4]), output, 0, 4);
  if (output.toString("hex") !== "60606060") throw new Error(output.toString("hex"));
  if (process.execPath !== "/usr/bin/node") throw new Error(process.execPath);
  const again = execFileSync(process.execPath, ["-p", "1 + 1"]).toString();
  if (again !== "2\n") throw new Error(again);
  new Worker(__filename).on("message", (text) => console.log(text));
} else {
  parentPort.postMessage("a worker, a child and a native module");
}
