// SPDX-License-Identifier: Apache-2.0
// BullMQ. The same command line as ../contract.py, which says what each command does.
//
// A completed job keeps its result (the default). Enough runs in parallel to keep the connection busy.

import cluster from 'node:cluster';
import { openSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { Queue, Worker } from 'bullmq';

const PAYLOAD_BYTES = 100;
const PLAIN = 'x';
const BATCH = 1000;
const WARM_UP = 200;
const CONCURRENCY = 100;

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    tasks: { type: 'string', default: '1000' },
    payload: { type: 'string', default: String(PAYLOAD_BYTES) },
    rate: { type: 'string', default: '500' },
    'in-flight': { type: 'string', default: '256' },
    workers: { type: 'string', default: '1' },
  },
});
const [command] = positionals;
const tasks = Number(values.tasks);
const server = new URL(process.env.BENCH_REDIS_URL);
const connection = { host: server.hostname, port: Number(server.port) };

// Seconds of the machine's monotonic clock, the same as Python's.
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;
const stamped = () => monotonic().toFixed(6).padStart(20, '0').padEnd(PAYLOAD_BYTES, PLAIN);

// Node cannot map a file into memory: the count is written by a timer instead, at most every millisecond.
function tally() {
  const folder = process.env.BENCH_TALLY;
  const counts = openSync(`${folder}/${process.pid}.count`, 'w');
  const delays = openSync(`${folder}/${process.pid}.delays`, 'a');
  const cell = Buffer.alloc(8);
  let count = 0n;
  let due = false;
  const write = () => {
    due = false;
    cell.writeBigUInt64LE(count);
    writeSync(counts, cell, 0, 8, 0);
  };
  return (payload) => {
    const now = monotonic();
    count += 1n;
    if (!due) {
      due = true;
      setTimeout(write, 1);
    }
    if (payload[0] !== PLAIN) {
      const delay = Buffer.alloc(8);
      delay.writeDoubleLE(now - Number(payload.slice(0, 20)));
      writeSync(delays, delay);
    }
    return 1;
  };
}

async function inFlight(queue, payload, width) {
  let left = tasks;
  const submit = async () => {
    while (left-- > 0) await queue.add('noop', payload);
  };
  await Promise.all(Array.from({ length: width }, submit));
}

async function steady(queue) {
  const rate = Number(values.rate);
  const underWay = [];
  const begunAt = monotonic();
  for (let number = 0; number < tasks; number++) {
    const wait = begunAt + number / rate - monotonic();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    underWay.push(queue.add('noop', stamped()));
  }
  await Promise.all(underWay);
  return begunAt;
}

async function feed() {
  const queue = new Queue('bench', { connection });
  const payload = PLAIN.repeat(Number(values.payload));
  for (let number = 0; number < WARM_UP; number++) await queue.add('noop', payload);
  let begunAt = monotonic();
  if (command === 'each') {
    for (let number = 0; number < tasks; number++) await queue.add('noop', payload);
  } else if (command === 'bulk') {
    for (let left = tasks; left > 0; left -= BATCH) {
      await queue.addBulk(Array.from({ length: Math.min(left, BATCH) }, () => ({ name: 'noop', data: payload })));
    }
  } else if (command === 'concurrent') {
    await inFlight(queue, payload, Number(values['in-flight']));
  } else {
    begunAt = await steady(queue);
  }
  const seconds = monotonic() - begunAt;
  const { version } = createRequire(import.meta.url)('bullmq/package.json');
  console.log(JSON.stringify({ begun_at: begunAt, seconds, tasks, versions: { bullmq: version, node: process.version } }));
  process.exit(0);
}

function work() {
  if (cluster.isPrimary && Number(values.workers) > 1) {
    for (let number = 0; number < Number(values.workers); number++) cluster.fork();
    return;
  }
  const begun = tally();
  new Worker('bench', async (job) => begun(job.data), { connection, concurrency: CONCURRENCY });
}

if (command === 'work') work();
else await feed();
