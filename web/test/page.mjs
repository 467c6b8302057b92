// Drives the page in a real Chromium against a running server, and photographs it.
//
//   node web/test/page.mjs <base-url> <out-dir>
//
// Prints one JSON object: {ok, checks: [{name, ok, ms, detail}], problems, screenshots}. Exit code 0 when all is well, 1 when a check
// failed, 2 when the browser could not be started. Every wait is on a condition and ends after WAIT_S seconds (default 60).
// CHROMIUM names the browser (default /usr/bin/chromium), MULGIL_KEY an API key if the server asks for one.
// Needs `npm ci` in web/.

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [base, out] = process.argv.slice(2);
if (!base || !out) fail(2, 'usage: node web/test/page.mjs <base-url> <out-dir>');

const WAIT_MS = Number(process.env.WAIT_S ?? 60) * 1000;
const WIDE = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

function fail(code, message) {
  process.stderr.write(`page test: ${message}\n`);
  process.exit(code);
}

const { chromium } = await import('playwright-core').catch(() => fail(2, 'playwright-core is missing: run `npm ci` in web/ first'));
mkdirSync(out, { recursive: true });
const profile = mkdtempSync(join(tmpdir(), 'mulgil-page-'));

const checks = [];
const problems = [];
const screenshots = [];
const origin = new URL(base).origin;

async function check(name, run) {
  const begin = Date.now();
  try {
    const detail = await run();
    checks.push({ name, ok: true, ms: Date.now() - begin, detail: detail ?? '' });
  } catch (error) {
    checks.push({ name, ok: false, ms: Date.now() - begin, detail: String(error.message ?? error).split('\n')[0] });
    throw error;
  }
}

const text = (page, selector) => page.locator(selector).first().innerText({ timeout: WAIT_MS });
const until = (page, condition, argument) => page.waitForFunction(condition, argument, { timeout: WAIT_MS, polling: 100 }).then((handle) => handle.jsonValue());

function watchForProblems(page) {
  page.on('console', (message) => {
    // Not being ready yet is an answer, not an error.
    const isWaiting = message.location().url.endsWith('/health/ready') && message.text().includes('503');
    if (message.type() === 'error' && !isWaiting) problems.push(`console: ${message.text()} ${message.location().url}`.trim());
  });
  page.on('pageerror', (error) => problems.push(`uncaught: ${error.message}`));
  page.on('requestfailed', (request) => {
    const reason = request.failure()?.errorText ?? '';
    if (reason !== 'net::ERR_ABORTED') problems.push(`request failed: ${request.url()} ${reason}`);
  });
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !url.startsWith('blob:')) problems.push(`request to another server: ${url}`);
  });
}

async function shoot(page, name, viewport, colorScheme) {
  await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme });
  const before = (await page.evaluate(() => window.__canvasState())).hash;
  await until(page, (hash) => { const s = window.__canvasState(); return s.painted > 1000 && s.hash !== hash; }, before).catch(() => {
    throw new Error(`the chart was not redrawn for ${name}`);
  });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (overflow > 0) throw new Error(`${name}: the page is ${overflow} px wider than its window`);
  const path = join(out, `${name}.png`);
  await page.screenshot({ path, fullPage: viewport === PHONE });
  screenshots.push(path);
}

async function run(page) {
  await check('page opens under its content security policy', async () => {
    const answer = await page.goto(base, { waitUntil: 'load', timeout: WAIT_MS });
    if (!answer?.ok()) throw new Error(`GET ${base} answered ${answer?.status()}`);
    const policy = answer.headers()['content-security-policy'] ?? '';
    const directives = new Map(policy.split(';').map((d) => d.trim().split(/\s+/)).map(([name, ...values]) => [name, values]));
    const scripts = directives.get('script-src') ?? directives.get('default-src') ?? ['nothing'];
    if (!["'self'", "'none'"].includes(directives.get('default-src')?.join(' '))) throw new Error(`the policy '${policy}' lets other servers in`);
    if (scripts.join(' ') !== "'self'" || policy.includes('unsafe-eval')) throw new Error(`the policy '${policy}' lets other scripts in`);
    return policy;
  });

  await check('connection is live', () => until(page, () => document.getElementById('link').dataset.state === 'live' && document.getElementById('link-text').textContent));

  await check('watch list has prices', () =>
    until(page, () => {
      const rows = document.querySelectorAll('#quotes .quote');
      return rows.length >= 2 && [...rows].every((row) => /\d/.test(row.querySelector('.quote-last').textContent)) && `${rows.length} symbols`;
    }));

  await check('tape grows', async () => {
    await until(page, () => document.querySelectorAll('#tape .tape-row:not([hidden])').length >= 3);
    const top = await text(page, '#tape .tape-row');
    await until(page, (before) => document.querySelector('#tape .tape-row').innerText !== before, top);
    return (await text(page, '#tape .tape-row')).replaceAll('\n', ' ');
  });

  await check('chart is drawn', () => until(page, () => { const s = window.__canvasState(); return s.painted > 1000 && `${s.painted} pixels`; }));

  await check('last candle changes', async () => {
    const legend = () => page.locator('.ohlc').innerText();
    const [before, canvas] = [await legend(), await page.evaluate(() => window.__canvasState())];
    await until(page, ([ohlc, hash]) => document.querySelector('.ohlc').innerText !== ohlc && window.__canvasState().hash !== hash, [before, canvas.hash]);
    return (await legend()).replaceAll('\n', ' ');
  });

  await check('throughput and lag are numbers', () =>
    until(page, () => {
      const [rate, lag] = ['rate', 'lag'].map((id) => document.getElementById(id).textContent);
      const client = document.querySelector('.hop[data-hop="client"] .hop-value').textContent;
      return /^[\d,.]+$/.test(rate) && rate !== '0' && /\d/.test(lag) && /\d/.test(client) && `${rate} rows/s, lag ${lag}`;
    }));

  await check('readiness is told', () => until(page, () => document.getElementById('ready').dataset.state === 'ok' && document.querySelectorAll('#checks .check').length > 0 && document.getElementById('ready').textContent));

  await check('alert shows its evidence', async () => {
    await until(page, () => document.querySelector('#alerts .alert'));
    const id = await page.locator('#alerts .alert').first().getAttribute('data-id');
    const alert = page.locator(`#alerts .alert[data-id="${id}"]`);
    await alert.locator('.alert-head').click({ timeout: WAIT_MS });
    await until(page, (id) => {
      const node = [...document.querySelectorAll('#alerts .alert')].find((a) => a.dataset.id === id);
      return node?.open && node.querySelectorAll('.evidence td').length >= 3 && node.querySelector('.facts').innerText.includes(id);
    }, id);
    return (await alert.locator('.alert-head').innerText()).replaceAll('\n', ' ');
  });

  await check('screenshot of the evidence', () => shootAsIs(page, 'evidence'));

  await check('another symbol can be chosen', async () => {
    const before = await text(page, '#focus-name');
    const other = page.locator('#quotes .quote[aria-pressed="false"]').first();
    const symbol = await other.getAttribute('data-symbol');
    await other.click({ timeout: WAIT_MS });
    await until(page, ([name, symbol]) => {
      const chosen = document.querySelector('#quotes .quote[aria-pressed="true"]');
      return document.getElementById('focus-name').textContent !== name && chosen?.dataset.symbol === symbol && decodeURIComponent(location.hash) === `#${symbol}`;
    }, [before, symbol]);
    const top = await text(page, '#focus-last');
    await until(page, () => document.querySelectorAll('#tape .tape-row:not([hidden])').length > 0 && /\d/.test(document.getElementById('ohlc-close').textContent));
    return `${symbol} ${top}`;
  });

  for (const [label, value] of [['1m', '60'], ['1h', '3600'], ['1d', '86400'], ['1s', '1']]) {
    await check(`interval ${label} draws a chart`, async () => {
      await page.locator(`#intervals label:has(input[value="${value}"])`).click({ timeout: WAIT_MS });
      await until(page, (value) => document.querySelector('#intervals input:checked').value === value && /\d/.test(document.getElementById('ohlc-close').textContent) && window.__canvasState().painted > 500, value);
      const note = await page.locator('#chart-note').innerText();
      if (note) throw new Error(note);
    });
  }

  await page.locator('#intervals label:has(input[value="5"])').click();
  for (const [name, viewport, scheme] of [['wide-light', WIDE, 'light'], ['wide-dark', WIDE, 'dark'], ['phone-light', PHONE, 'light'], ['phone-dark', PHONE, 'dark']]) {
    await check(`screenshot ${name}`, () => shoot(page, name, viewport, scheme));
  }

  await check('no errors and no policy violations', async () => {
    const violations = await page.evaluate(() => window.__violations);
    problems.push(...violations.map((v) => `policy violation: ${v}`));
    if (problems.length > 0) throw new Error(problems.join(' | '));
  });
}

async function shootAsIs(page, name) {
  const path = join(out, `${name}.png`);
  await page.screenshot({ path });
  screenshots.push(path);
}

let context;
try {
  const options = { executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS, viewport: WIDE, colorScheme: 'light', reducedMotion: 'reduce' };
  context = await chromium.launchPersistentContext(profile, options);
} catch (error) {
  fail(2, `the browser did not start: ${error.message}`);
}
let isGood = true;
try {
  // Runs before the page's own scripts; the DevTools protocol evaluates it outside the page's policy.
  await context.addInitScript((key) => {
    window.__violations = [];
    document.addEventListener('securitypolicyviolation', (e) => window.__violations.push(`${e.violatedDirective} ${e.blockedURI} ${e.sourceFile ?? ''}`));
    // What the chart's two largest canvases show: how many of their pixels are painted, and a hash of them.
    window.__canvasState = () => {
      const canvases = [...document.querySelectorAll('#chart canvas')].sort((a, b) => b.width * b.height - a.width * a.height);
      let painted = 0;
      let hash = 0;
      for (const canvas of canvases.slice(0, 2)) {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4) {
          if (data[i + 3] === 0) continue;
          painted += 1;
          hash = (hash * 31 + i + data[i] * 7 + data[i + 1] * 5 + data[i + 2] * 3) | 0;
        }
      }
      return { painted, hash };
    };
    if (key) sessionStorage.setItem('mulgil.key', key);
  }, process.env.MULGIL_KEY ?? null);
  const page = context.pages()[0] ?? (await context.newPage());
  watchForProblems(page);
  await run(page);
} catch (error) {
  isGood = false;
  const bad = checks.find((c) => !c.ok);
  process.stderr.write(`page test: ${bad ? `'${bad.name}' failed: ${bad.detail}` : error.message}\n`);
  for (const problem of problems.slice(0, 20)) process.stderr.write(`page test: seen: ${problem}\n`);
  await context.pages()[0]?.screenshot({ path: join(out, 'failed.png') }).catch(() => {});
} finally {
  await context.close().catch(() => {});
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
process.stdout.write(`${JSON.stringify({ ok: isGood, checks, problems, screenshots }, null, 2)}\n`);
process.exit(isGood ? 0 : 1);
