// DEVELOPMENT ONLY. A stand-in for mulgil that speaks its frames over a random walk, to work on the page without the binary.
//
//   node dev/mock.mjs            then open http://127.0.0.1:8090
//
// PORT=8090      where it listens
// RATE=40        trades per second, over all symbols
// IDLE=1         no trades until POST /api/v1/stock/generate
// KEY=secret     asks for this key
// It serves dist/ under the same content security policy as the binary. GET /dev/drop closes every WebSocket.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';

const PORT = Number(process.env.PORT ?? 8090);
const RATE = Number(process.env.RATE ?? 40);
const KEY = process.env.KEY ?? null;
const DIST = fileURLToPath(new URL('../dist', import.meta.url));
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const EPOCH = 'mock-1';
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

const SYMBOLS = [
  ['005930', 'KRX', 71300], ['000660', 'KRX', 198500], ['373220', 'KRX', 385000], ['207940', 'KRX', 812000], ['005380', 'KRX', 243500],
  ['035420', 'KRX', 187900], ['035720', 'KRX', 41250], ['068270', 'KRX', 178300], ['051910', 'KRX', 312500], ['105560', 'KRX', 84700],
  ['AAPL', 'NASDAQ', 228.52], ['MSFT', 'NASDAQ', 431.1], ['NVDA', 'NASDAQ', 141.98], ['AMZN', 'NASDAQ', 202.88], ['GOOGL', 'NASDAQ', 175.3],
  ['META', 'NASDAQ', 561.09], ['TSLA', 'NASDAQ', 352.56], ['AVGO', 'NASDAQ', 164.74],
].map(([symbol, market, price]) => ({ symbol, market, price, base: price, currency: market === 'KRX' ? 'KRW' : 'USD', drift: 0 }));

const iso = (ms) => new Date(ms).toISOString();
const KST = 9 * 3600;
const start = (ms, s) => { const l = Math.floor(ms / 1000) + KST; return l - (l % s) - KST; };

function move(s, scale = 1) {
  s.drift = 0.97 * s.drift + (Math.random() - 0.5) * 0.0004;
  s.price *= 1 + s.drift * 0.3 + (Math.random() - 0.5) * 0.0006 * scale;
  const step = s.currency === 'KRW' ? (s.price >= 500000 ? 1000 : s.price >= 200000 ? 500 : s.price >= 50000 ? 100 : 50) : 0.01;
  return Number((Math.round(s.price / step) * step).toFixed(2));
}

function pastBars(s, seconds, n, nowMs) {
  let price = s.price;
  const last = start(nowMs, seconds) - seconds;
  return Array.from({ length: n }, (_, i) => {
    const close = price;
    const width = 0.0009 * Math.sqrt(seconds / 60);
    const open = close * (1 + (Math.random() - 0.5) * 2 * width);
    price = open;
    const digits = (v) => (s.currency === 'KRW' ? Math.round(v / 50) * 50 : Number(v.toFixed(2)));
    const begin = last - i * seconds;
    return {
      ticker: s.symbol, start: iso(begin * 1000), event_time: iso((begin + seconds) * 1000), open: digits(open),
      high: digits(Math.max(open, close) * (1 + Math.random() * width)), low: digits(Math.min(open, close) * (1 - Math.random() * width)),
      close: digits(close), volume: Math.round(1000 + Math.random() * 9000 * (seconds / 60)), count: 100, revision: 0,
    };
  });
}

const bars = new Map();
function barsOf(s, seconds, nowMs) {
  const key = `${s.symbol}/${seconds}`;
  if (!bars.has(key)) bars.set(key, pastBars(s, seconds, { 60: 480, 3600: 500, 86400: 300 }[seconds], nowMs));
  return bars.get(key);
}

const ticks = [];
const alerts = [];
let n_rows = 0;
let running = !process.env.IDLE;
let n_alerts = 0;

function trade(nowMs) {
  const s = SYMBOLS[Math.floor(Math.random() ** 1.6 * SYMBOLS.length)];
  const large = Math.random() < 0.004;
  const quantity = large ? 500 + Math.floor(Math.random() * 4000) : 1 + Math.floor(Math.random() ** 3 * 120);
  n_rows += 1;
  const row = {
    symbol: s.symbol, event_time: iso(nowMs - 4 - Math.floor(Math.random() * 9)), price: move(s), quantity,
    side: Math.random() < 0.5 + s.drift * 300 ? 'BUY' : 'SELL', trade_id: `t${n_rows}`, market: s.market, currency: s.currency,
  };
  if (large && Math.random() < 0.5) raise(s, row);
  return row;
}

function raise(s, row) {
  n_alerts += 1;
  const [rule, severity, condition, evidence, thresholds, message] = [
    ['volume_surge', 'high', 'quantity >= 50 * volume_ema', { quantity: row.quantity, volume_ema: 14.28371, samples: 812 }, { quantity: 714.1855 }, `quantity ${row.quantity} is ${Math.round(row.quantity / 14.28)} times its usual size`],
    ['large_trade', 'medium', 'price * quantity >= 100000000', { amount: row.price * row.quantity, price: row.price, quantity: row.quantity }, { amount: 100000000 }, `single trade of ${(row.price * row.quantity).toLocaleString('en')} ${s.currency}`],
    ['price_jump', 'critical', 'abs(move) >= 0.05', { move: 0.0613, price: row.price, previous_price: 67180 }, { move: 0.05 }, 'price moved 6.13 % against the previous trade'],
    ['rapid_trades', 'low', 'count_10s >= 100', { count_10s: 117 }, { count_10s: 100 }, '117 trades within 10 seconds'],
  ][n_alerts % 4];
  const alert = {
    id: `${rule}-${n_alerts.toString(16).padStart(12, '0')}a91f`, key: s.symbol, event_time: row.event_time, stream: 'trades', rule, rule_version: '3f9c2a71',
    severity, mode: n_alerts % 7 === 0 ? 'shadow' : 'live', state: 'fired', score: 40 + ((n_alerts * 17) % 60), message, condition,
    evidence: n_alerts % 2 ? JSON.stringify(evidence) : evidence, thresholds: JSON.stringify(thresholds), input_partition: n_alerts % 4, input_offset: n_rows, first_offset: Math.max(0, n_rows - 400),
  };
  alerts.unshift(alert);
  alerts.length = Math.min(alerts.length, 200);
  for (const answer of listeners) answer.write(`id: ${alert.id}\nevent: anomaly\ndata: ${JSON.stringify(alert)}\n\n`);
}

const clients = new Set();
const listeners = new Set();
let owed = 0;
let lastMs = Date.now();

setInterval(() => {
  const nowMs = Date.now();
  owed += running ? ((nowMs - lastMs) / 1000) * RATE * (0.6 + 0.8 * Math.random()) : 0;
  lastMs = nowMs;
  const rows = [];
  while (owed >= 1) {
    owed -= 1;
    rows.push(trade(nowMs));
  }
  if (rows.length === 0) return;
  ticks.push(...rows);
  if (ticks.length > 60000) ticks.splice(0, ticks.length - 40000);
  for (const client of clients) client.send(rows);
}, 20);

class Client {
  constructor(socket) {
    this.socket = socket;
    this.subs = new Map();
    socket.on('message', (data) => this.receive(JSON.parse(data)));
    socket.on('close', () => clients.delete(this));
    clients.add(this);
  }

  say(frame) {
    if (this.socket.readyState === 1) this.socket.send(JSON.stringify(frame));
  }

  receive(m) {
    if (m.op === 'unsubscribe') return this.subs.delete(m.id);
    if (m.op !== 'subscribe') return this.say({ type: 'error', code: 'unknown_op', message: `unknown op '${m.op}'`, id: m.id });
    this.subs.set(m.id, { ...m, candle: null });
    this.say({ type: 'subscribed', id: m.id, subscriptions: this.subs.size, epoch: EPOCH, recovered: m.resume !== undefined, cursor: `c${n_rows}` });
    if (m.resume) {
      const missed = n_rows - Number(m.resume.slice(1));
      if (missed > 0) this.say({ type: 'trades', stream: 'trades', rows: ticks.slice(-missed), cursor: `c${n_rows}` });
    }
  }

  send(rows) {
    for (const sub of this.subs.values()) {
      if (sub.mode === 'trades') this.say({ type: 'trades', id: sub.id, stream: 'trades', rows, cursor: `c${n_rows}` });
      else this.candle(sub, rows.filter((r) => r.symbol === sub.symbols[0]));
    }
  }

  candle(sub, rows) {
    if (rows.length === 0) return;
    for (const r of rows) {
      const time = start(Date.parse(r.event_time), sub.tick);
      if (!sub.candle || time > sub.candle.time) sub.candle = { time, open: r.price, high: r.price, low: r.price, close: r.price, volume: 0 };
      const c = sub.candle;
      c.high = Math.max(c.high, r.price);
      c.low = Math.min(c.low, r.price);
      c.close = r.price;
      c.volume += r.quantity;
    }
    const { time, ...data } = sub.candle;
    this.say({ type: 'candle_tick', ticker: sub.symbols[0], data, current_tick: sub.tick, start: iso(time * 1000), closed: false, revision: 0, id: sub.id });
  }
}

function json(answer, status, body) {
  answer.writeHead(status, { 'content-type': status < 400 ? 'application/json' : 'application/problem+json' });
  answer.end(JSON.stringify(body));
}

function isAllowed(request, url) {
  return !KEY || request.headers.authorization === `Bearer ${KEY}` || url.searchParams.get('access_token') === KEY;
}

const server = createServer(async (request, answer) => {
  const url = new URL(request.url, 'http://x');
  const path = url.pathname;
  const nowMs = Date.now();
  if (path === '/dev/drop') {
    for (const client of clients) client.socket.terminate();
    return json(answer, 200, {});
  }
  if (path.startsWith('/api/') && !isAllowed(request, url)) return json(answer, 401, { title: 'Unauthorized', detail: 'send a key as Authorization: Bearer …' });
  if (path === '/api/v1/stock/anomaly') {
    answer.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    answer.write('retry: 1000\n\n');
    listeners.add(answer);
    return request.on('close', () => listeners.delete(answer));
  }
  if (path === '/api/v1/alerts') return json(answer, 200, { data: alerts.slice(0, Number(url.searchParams.get('limit') ?? 50)) });
  if (path === '/api/v1/streams') return json(answer, 200, { epoch: EPOCH, streams: [{ name: 'trades', kind: 'trade', partitions: [{ partition: 0, first: 0, next: n_rows }] }, { name: 'trades.bars.1m', kind: 'bar', partitions: [{ partition: 0, first: 0, next: Math.floor(n_rows / 9) }] }, { name: 'alerts', kind: 'alert', partitions: [{ partition: 0, first: 0, next: n_alerts }] }] });
  if (path === '/api/v1/stock/generate' && request.method === 'POST') {
    running = true;
    return json(answer, 202, { id: 'mock' });
  }
  if (path === '/health/ready') {
    const hop = (name, seconds) => ({ stream: 'trades', hop: name, seconds: seconds * (0.8 + 0.4 * Math.random()) });
    return json(answer, 200, {
      status: 'ready',
      lag: [hop('receive', 0.0012), hop('log', 0.0065), hop('processed', 0.0091), hop('history', 0.42)],
      checks: [
        { name: 'source.simulator', ok: true, detail: running ? `${RATE} rows/s` : 'stopped' }, { name: 'log', ok: true, detail: 'journal open, last commit 8 ms ago' },
        { name: 'engine', ok: true, detail: '4 of 4 shards move' }, { name: 'history', ok: true, detail: '0.4 s behind the log' },
      ],
    });
  }
  if (path === '/api/v1/stock/search') return search(url.searchParams, nowMs, answer);
  return file(path, answer);
});

function search(query, nowMs, answer) {
  const limit = Number(query.get('limit') ?? 100);
  const seconds = { minute: 60, hour: 3600, day: 86400 }[query.get('interval')];
  const ticker = query.get('ticker');
  const symbols = SYMBOLS.filter((s) => !ticker || s.symbol === ticker);
  const from = query.get('from') ? Date.parse(query.get('from')) : nowMs - 3600_000;
  const data = seconds
    ? symbols.flatMap((s) => barsOf(s, seconds, nowMs)).filter((b) => Date.parse(b.start) >= from)
    : ticks.filter((t) => !ticker || t.symbol === ticker).slice(-limit).reverse().map((t) => ({ event_time: t.event_time, event_id: null, ticker: t.symbol, price: t.price, volume: t.quantity, trade_type: t.side, trade_id: t.trade_id, market_code: t.market, currency_code: t.currency }));
  json(answer, 200, { data: data.slice(0, limit), count: Math.min(data.length, limit), filters: Object.fromEntries(query), cursor: null });
}

async function file(path, answer) {
  const name = normalize(path === '/' ? '/index.html' : path);
  try {
    const body = await readFile(join(DIST, name));
    answer.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream', 'content-security-policy': CSP, 'cache-control': 'no-store' });
    answer.end(body);
  } catch {
    json(answer, 404, { title: 'Not Found', detail: `nothing is at ${path}` });
  }
}

const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (request, socket, head) => {
  const url = new URL(request.url, 'http://x');
  if (!/^\/api\/v1\/stock\/real-?time$/.test(url.pathname) || !isAllowed(request, url)) return socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n');
  sockets.handleUpgrade(request, socket, head, (s) => new Client(s));
});

for (let i = 0; i < 2500 && running; i++) {
  const row = trade(Date.now() - (2500 - i) * 60);
  ticks.push(row);
}
server.listen(PORT, '127.0.0.1', () => process.stdout.write(`mock of mulgil on http://127.0.0.1:${PORT}, development only\n`));
