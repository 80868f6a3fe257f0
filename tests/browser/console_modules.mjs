// What the console's modules without a page make of what they are given: one JSON object on stdout.
import { roundUp, short } from '../../service/tidegate/http/console/chart.js';
import { valuesOf } from '../../service/tidegate/http/console/json.js';
import { Meter } from '../../service/tidegate/http/console/meter.js';
import { Pace } from '../../service/tidegate/http/console/pacedsocket.js';
import { quantile, Scrape } from '../../service/tidegate/http/console/prometheus.js';

/** What a node says after `accepted` pushes, `refused` ones, and so many `waits` of 10 to 20 ms and beyond all bounds. */
function metrics(accepted, refused, waits, endless) {
  const buckets = [[0.01, 0], [0.02, waits], ['+Inf', waits + endless]];
  return [
    '# HELP tidegate_connections Connections on this node.',
    `tidegate_connections ${accepted / 10}`,
    `tidegate_pushes_total{kind="all",result="accepted"} ${accepted}`,
    `tidegate_pushes_total{kind="group",result="published"} ${accepted}`,
    `tidegate_pushes_total{kind="all",result="too \\"large\\", {}"} ${refused}`,
    ...buckets.map(([bound, count]) => `tidegate_heartbeat_seconds_bucket{le="${bound}"} ${count}`),
  ].join('\n');
}

async function looks(...texts) {
  globalThis.document = { hidden: false };
  const meter = new Meter({ metrics: async () => texts.shift() ?? Promise.reject(new Error('away')) });
  while (texts.length) {
    await meter.start();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await meter.start();
  return meter;
}

const meter = await looks(metrics(0, 0, 0, 0), metrics(30, 20, 100, 0), metrics(5, 0, 0, 0));
const [first, second, anew, away] = meter.rows.map(({ values }) => values);
const pace = new Pace();
pace.kind = 'nothing';
let turned = false;
const turn = pace.turn().then(() => {
  turned = true;
});
await new Promise((resolve) => setTimeout(resolve, 20));
const held = !turned;
pace.kind = 'at once';
await turn;

const scrapes = [metrics(0, 0, 0, 0), metrics(0, 0, 90, 10)].map((text) => new Scrape(text));
const json = '{"messages":[{"offset":1,"data":{"data":[1,"data"]}},{"data":12345678901234567890},{"data":"\\"}, "}],"data":7}';
console.log(
  JSON.stringify({
    rates: [first.pushes, Math.round((second.pushes / second.pushesRefused) * 1000) / 1000, anew.pushes, away.pushes],
    connections: [first, second, anew, away].map(({ connections }) => connections),
    heartbeat: [first.heartbeat50, Math.round(second.heartbeat50 * 100) / 100],
    quantiles: [0.5, 0.9, 0.99].map((share) => Number(quantile(...scrapes, 'tidegate_heartbeat_seconds', share).toFixed(4))),
    labels: scrapes[1].samples('tidegate_pushes_total').at(-1)[0].result,
    values: valuesOf(json, 'data', 3),
    rounded: [0.3, 1, 1.1, 49, 51, 700].map(roundUp),
    short: [null, 0, 0.07281, 12.345, 1234.5, 2_500_000].map(short),
    held,
  }),
);
process.exit();
