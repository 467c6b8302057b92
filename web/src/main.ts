// Where everything meets: rows come in, models change, and once per frame what changed is drawn.

import './style.css';
import { AlertBook, AlertFeed } from './alerts';
import { AlertList } from './alertlist';
import { Api, ApiError } from './api';
import { Chart } from './chart';
import { byId, setText } from './dom';
import { Focus } from './focus';
import * as format from './format';
import { loadBaselines, loadTrades } from './history';
import { LagMeter, RateMeter } from './lag';
import { Notice } from './notice';
import { Pipeline } from './pipeline';
import { Realtime, type Link } from './realtime';
import { convention, onSchemeChange, palette, setConvention } from './theme';
import { changeOf, Market, type TradeRow } from './ticks';
import { Tape } from './tape';
import { WatchList, type Order } from './watch';
import type { Candle } from './candle';

const LIST_EVERY_MS = 120;
const CHART_EVERY_MS = 50;
const ALERTS_EVERY_MS = 400;
const CLOCK_EVERY_MS = 500;
/** Without a trade for this long the page says so. */
const QUIET_MS = 60_000;
const EMPTY_AFTER_MS = 2000;
/** How long the page waits for the symbol it would like to show first. */
const FIRST_WAIT_MS = 1500;
const TAPE_FILL = 60;
/** A committed row is in history this much later at most. */
const HISTORY_DELAY_MS = 1500;
const FAVOURITE = '005930';
const INTERVAL_SLOT = 'mulgil.interval';

setConvention(convention());

const api = new Api();
const market = new Market();
const book = new AlertBook();
const rows = new RateMeter();
const lags = new LagMeter();
const openedMs = Date.now();

let link: Link = { kind: 'connecting' };
let chosen: string | null = null;
let pointed: Candle | null = null;
let firstRowMs = NaN;
let lastRowMs = NaN;
/** Candles that changed since the chart was drawn, by start. */
const changed = new Map<number, Candle>();
let isAlertsStale = false;
let onlyChosen = false;

const chart = new Chart(byId('chart'), palette(), (candle) => {
  pointed = candle;
  drawLegend();
});
const watch = new WatchList(byId('quotes'), market, choose);
const tape = new Tape(byId('tape'), byId('tape-note'), market);
const alertList = new AlertList(byId('alerts'), byId('alerts-empty'), book);
const notice = new Notice(api, () => realtime.connect(), connectAll);
const pipeline = new Pipeline(byId('hops'), byId('ready'), byId('checks'), api);

const focus = new Focus(api, {
  onCandles: (isNew) => {
    setText(byId('chart-note'), '');
    changed.clear();
    if (isNew) chart.show(focus.series.all, focus.seconds, currency());
    else chart.redraw(focus.series.all);
    drawMarks();
    drawLegend();
  },
  onHistoryError: (message) => setText(byId('chart-note'), `History could not be read: ${message}`),
});

const realtime = new Realtime(() => api.socketUrl('/api/v1/stock/realtime'), {
  onLink: (next) => {
    if (next.kind === 'lost') void probe();
    // Trades of the interruption are sent again, candles are not: history has them a moment later.
    if (next.kind === 'live' && chosen !== null) setTimeout(() => void focus.reload(), HISTORY_DELAY_MS);
    link = next;
    drawClock();
  },
  onRows: receive,
  onCandle: (frame) => {
    noteCandle(focus.candle(frame));
  },
  onGap: () => void focus.reload(),
  onRefusal: (code, message) => setText(byId('chart-note'), `${message}${code ? ` (${code})` : ''}`),
});

const alertFeed = new AlertFeed(
  api,
  (alert) => {
    isAlertsStale = book.add(alert) || isAlertsStale;
  },
  (message) => setText(byId('alerts-note'), message ?? ''),
);

function receive(batch: TradeRow[]): void {
  const nowMs = Date.now();
  rows.add(nowMs, batch.length);
  for (const row of batch) {
    const trade = market.add(row, nowMs);
    if (!trade) continue;
    if (trade.symbol === chosen) noteCandle(focus.trade(trade));
  }
  const newest = batch.at(-1);
  if (newest) lags.add(nowMs, (nowMs - format.parseTime(newest.event_time)) / 1000);
  if (Number.isNaN(firstRowMs)) firstRowMs = nowMs;
  lastRowMs = nowMs;
  if (chosen === null) chooseFirst();
}

function noteCandle(candle: Candle | null): void {
  if (candle) changed.set(candle.time, candle);
}

function drawCandles(): void {
  const inOrder = [...changed.values()].sort((a, b) => a.time - b.time);
  changed.clear();
  const isDrawn = inOrder.map((candle) => chart.update(candle)).every(Boolean);
  if (!isDrawn) chart.redraw(focus.series.all);
  if (!pointed) drawLegend();
}

/** The link in the address decides, else the favourite, else the first of all; the first two are waited for a moment. */
function chooseFirst(): void {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const liked = [wanted || FAVOURITE, FAVOURITE];
  const first = liked.slice(0, isLate() ? 2 : 1).find((symbol) => market.quotes.has(symbol));
  if (first !== undefined) return choose(first);
  const any = [...market.quotes.keys()].sort()[0];
  if (isLate() && any !== undefined) choose(any);
}

function isLate(): boolean {
  return Date.now() - firstRowMs > FIRST_WAIT_MS;
}

function choose(symbol: string): void {
  if (symbol === chosen) return;
  chosen = symbol;
  history.replaceState(null, '', `#${encodeURIComponent(symbol)}`);
  market.choose(symbol);
  tape.restart();
  watch.choose(symbol);
  refocus();
  void fillTape(symbol);
  if (onlyChosen) alertList.filter(symbol);
}

async function fillTape(symbol: string): Promise<void> {
  const older = await loadTrades(api, symbol, TAPE_FILL).catch(() => []);
  if (symbol !== chosen) return;
  market.prepend(older);
  tape.restart();
  tape.draw(currency());
}

function refocus(): void {
  realtime.watch(focusSeconds() <= 60 ? chosen : null, focusSeconds());
  focus.choose(chosen, focusSeconds());
  drawHead();
}

function focusSeconds(): number {
  return Number(byId('intervals').querySelector<HTMLInputElement>('input:checked')?.value ?? 5);
}

function currency(): string | null {
  return (chosen !== null && market.quotes.get(chosen)?.currency) || null;
}

function drawMarks(): void {
  const own = book.list.filter((alert) => alert.key === chosen);
  chart.mark(
    own.map((a) => ({ ms: a.ms, isSevere: a.severity === 'high' || a.severity === 'critical' })),
    focus.seconds,
  );
}

function drawHead(): void {
  const quote = chosen === null ? undefined : market.quotes.get(chosen);
  if (!quote) return;
  const ratio = changeOf(quote);
  setText(byId('focus-name'), quote.name ?? quote.symbol);
  setText(byId('focus-code'), [quote.name === null ? null : quote.symbol, quote.market, quote.currency].filter(Boolean).join(' · '));
  setText(byId('focus-last'), format.price(quote.last, quote.currency));
  setText(byId('focus-change'), format.change(ratio));
  byId('focus').dataset['trend'] = ratio > 0 ? 'up' : ratio < 0 ? 'down' : 'flat';
  document.title = `${format.price(quote.last, quote.currency)} ${quote.name ?? quote.symbol} · mulgil`;
}

function drawLegend(): void {
  const candle = pointed ?? focus.series.last;
  const value = (v: number | undefined) => (v === undefined ? '–' : format.priceDigits(v, currency()));
  setText(byId('ohlc-open'), value(candle?.open));
  setText(byId('ohlc-high'), value(candle?.high));
  setText(byId('ohlc-low'), value(candle?.low));
  setText(byId('ohlc-close'), value(candle?.close));
  setText(byId('ohlc-volume'), candle ? format.compact(candle.volume) : '–');
}

function drawClock(): void {
  const nowMs = Date.now();
  const perSecond = rows.perSecond(nowMs);
  const delay = lags.read(nowMs);
  const isQuiet = link.kind === 'live' && nowMs - lastRowMs > QUIET_MS;
  const state = link.kind === 'lost' ? 'lost' : link.kind === 'connecting' ? 'connecting' : isQuiet ? 'quiet' : 'live';
  const text = { lost: 'Reconnecting', connecting: 'Connecting', quiet: 'Quiet', live: 'Live' }[state];
  byId('link').dataset['state'] = state;
  setText(byId('link-text'), text);
  byId('link').title = isQuiet ? `No trade for ${format.lag((nowMs - lastRowMs) / 1000)}` : '';
  if (chosen === null) chooseFirst();
  setText(byId('clock'), format.clock(nowMs));
  setText(byId('rate'), format.rate(perSecond));
  setText(byId('lag'), format.lag(delay?.median ?? null));
  pipeline.showClient(perSecond, delay?.median ?? null, delay?.p95 ?? null);
  realtime.check(nowMs);
  notice.showLink(link, nowMs, market.quotes.size > 0);
  notice.showEmpty(market.quotes.size === 0 && link.kind === 'live' && nowMs - openedMs > EMPTY_AFTER_MS);
}

/** The browser does not say why a socket failed; a plain request does. */
async function probe(): Promise<void> {
  try {
    await api.get('/api/v1/streams');
  } catch (error) {
    if (error instanceof ApiError && error.isRefused) notice.askForKey(api.key ? 'The key was not accepted.' : 'This server asks for an API key.');
  }
}

function connectAll(): void {
  realtime.connect();
  alertFeed.start();
  pipeline.start();
  void loadBaselines(api, Date.now()).then(
    (found) => found.forEach(({ symbol, value, kind }) => market.setBaseline(symbol, value, kind)),
    () => {}, // Changes then count from the opening of the page, and say so.
  );
}

let listMs = 0;
let chartMs = 0;
let alertsMs = 0;

function frame(nowMs: number): void {
  requestAnimationFrame(frame);
  if (changed.size > 0 && nowMs - chartMs >= CHART_EVERY_MS) {
    chartMs = nowMs;
    drawCandles();
  }
  if (nowMs - listMs < LIST_EVERY_MS) return;
  listMs = nowMs;
  if (market.dirty.size > 0) {
    watch.draw();
    drawHead();
    tape.draw(currency());
  }
  if (isAlertsStale && nowMs - alertsMs >= ALERTS_EVERY_MS) {
    alertsMs = nowMs;
    isAlertsStale = false;
    alertList.draw();
    drawMarks();
  }
}

function restoreInterval(): void {
  const stored = localStorage.getItem(INTERVAL_SLOT);
  const inputs = [...byId('intervals').querySelectorAll<HTMLInputElement>('input')];
  const found = inputs.find((input) => input.value === stored);
  if (found) found.checked = true;
}

function wireControls(): void {
  byId('intervals').addEventListener('change', () => {
    localStorage.setItem(INTERVAL_SLOT, String(focusSeconds()));
    if (chosen !== null) refocus();
  });
  byId<HTMLInputElement>('filter').addEventListener('input', (event) => watch.setFilter((event.target as HTMLInputElement).value));
  byId<HTMLSelectElement>('order').addEventListener('change', (event) => watch.setOrder((event.target as HTMLSelectElement).value as Order));
  byId<HTMLInputElement>('only-chosen').addEventListener('change', (event) => {
    onlyChosen = (event.target as HTMLInputElement).checked;
    alertList.filter(onlyChosen ? chosen : null);
  });
  const colours = byId<HTMLButtonElement>('convention');
  const label = () => {
    const isKorean = convention() === 'korean';
    colours.title = isKorean ? 'Rises red, falls blue, as in Korea. Switch to green and red.' : 'Rises green, falls red. Switch to red and blue, as in Korea.';
    colours.setAttribute('aria-label', colours.title);
  };
  colours.addEventListener('click', () => {
    setConvention(convention() === 'korean' ? 'western' : 'korean');
    label();
    chart.recolour(palette());
  });
  label();
  onSchemeChange(() => {
    chart.recolour(palette());
    drawMarks();
  });
}

restoreInterval();
wireControls();
connectAll();
drawClock();
setInterval(drawClock, CLOCK_EVERY_MS);
setInterval(() => watch.arrange(), 4 * CLOCK_EVERY_MS);
requestAnimationFrame(frame);
