// Candles of the past, through search. Closed bars come from history; what is not closed yet is folded from smaller pieces.

import { rowsOf, type Api } from './api';
import { CandleSeries, fold, isCandle, windowStart, type Candle } from './candle';
import { parseTime } from './format';
import { readTrade, type BaselineKind, type Trade, type TradeRow } from './ticks';

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

const SEARCH = '/api/v1/stock/search';
const TICKS_MAX = 1000;
const BARS_MAX = 500;

/** How far back each kind of bar is asked for. */
const REACH_S: Record<BarInterval, number> = { minute: 8 * HOUR, hour: 30 * DAY, day: 400 * DAY };
type BarInterval = 'minute' | 'hour' | 'day';

export async function loadCandles(api: Api, symbol: string, seconds: number, nowMs: number): Promise<Candle[]> {
  if (seconds < MINUTE) return loadTicks(api, symbol, seconds);
  if (seconds === MINUTE) {
    const [bars, ticks] = await Promise.all([loadBars(api, symbol, 'minute', nowMs), loadTicks(api, symbol, MINUTE)]);
    return overlay(ticks, bars);
  }
  const bars = await loadBars(api, symbol, seconds === HOUR ? 'hour' : 'day', nowMs);
  return [...bars, ...(await loadRunning(api, symbol, seconds, nowMs))];
}

/** The newest closed bars alone: what a chart that is already drawn may still miss. */
export function loadRecent(api: Api, symbol: string, seconds: number, nowMs: number): Promise<Candle[]> {
  if (seconds < MINUTE) return Promise.resolve([]);
  return askBars(api, symbol, seconds === MINUTE ? 'minute' : seconds === HOUR ? 'hour' : 'day', nowMs - 4 * seconds * 1000, 5);
}

/** The window that is not closed yet, folded from minutes (and whole hours for a day). */
async function loadRunning(api: Api, symbol: string, seconds: number, nowMs: number): Promise<Candle[]> {
  const start = windowStart(nowMs, seconds);
  if (seconds === HOUR) return fold(await askBars(api, symbol, 'minute', start * 1000, 60), HOUR);
  const hours = await askBars(api, symbol, 'hour', start * 1000, 24);
  const hourStart = windowStart(nowMs, HOUR);
  const closed = hours.filter((bar) => bar.time < hourStart);
  const minutes = await askBars(api, symbol, 'minute', hourStart * 1000, 60);
  return fold([...closed, ...minutes], DAY);
}

function loadBars(api: Api, symbol: string, interval: BarInterval, nowMs: number): Promise<Candle[]> {
  return askBars(api, symbol, interval, nowMs - REACH_S[interval] * 1000, BARS_MAX);
}

async function askBars(api: Api, symbol: string, interval: BarInterval, fromMs: number, limit: number): Promise<Candle[]> {
  const query = { ticker: symbol, interval, from: new Date(fromMs).toISOString(), limit };
  return readBars(rowsOf(await api.get(SEARCH, query)));
}

async function loadTicks(api: Api, symbol: string, seconds: number): Promise<Candle[]> {
  const trades = await loadTrades(api, symbol, TICKS_MAX);
  const series = new CandleSeries(seconds);
  for (const trade of trades) series.trade(trade.ms, trade.price, trade.quantity);
  // A full page was cut somewhere inside its oldest window.
  return series.all.slice(trades.length >= TICKS_MAX ? 1 : 0);
}

/** The latest trades of the last hour, oldest first. */
export async function loadTrades(api: Api, symbol: string, limit: number): Promise<Trade[]> {
  const rows = rowsOf(await api.get(SEARCH, { ticker: symbol, interval: 'tick', duration: 60, limit }));
  return rows.map((row) => readTrade(tradeRow(row))).filter((trade) => trade !== null).reverse();
}

/** Search answers in the names of the stock interface: ticker, volume, trade_type, market_code, currency_code. */
export function tradeRow(row: Record<string, unknown>): TradeRow {
  return {
    symbol: row['ticker'] ?? row['symbol'],
    event_time: row['event_time'],
    price: row['price'],
    quantity: row['volume'] ?? row['quantity'],
    side: row['trade_type'] ?? row['side'],
    market: row['market_code'] ?? row['market'],
    currency: row['currency_code'] ?? row['currency'],
  } as TradeRow;
}

/** Bars as rows of search, newest first or not, to candles in order of time. A later revision of a window replaces an earlier one. */
export function readBars(rows: readonly Record<string, unknown>[]): Candle[] {
  const best = new Map<number, { candle: Candle; revision: number }>();
  for (const row of rows) {
    const candle: Candle = {
      time: parseTime(row['start'] ?? row['event_time']) / 1000,
      open: Number(row['open']),
      high: Number(row['high']),
      low: Number(row['low']),
      close: Number(row['close']),
      volume: Number(row['volume'] ?? 0),
    };
    const revision = Number(row['revision'] ?? 0);
    const known = best.get(candle.time);
    if (isCandle(candle) && !(known && known.revision > revision)) best.set(candle.time, { candle, revision });
  }
  return [...best.values()].map((b) => b.candle).sort((a, b) => a.time - b.time);
}

/** `above` wins where both have a candle. */
function overlay(below: readonly Candle[], above: readonly Candle[]): Candle[] {
  const merged = new Map<number, Candle>();
  for (const candle of [...below, ...above]) merged.set(candle.time, candle);
  return [...merged.values()].sort((a, b) => a.time - b.time);
}

export interface Baseline {
  symbol: string;
  value: number;
  kind: BaselineKind;
}

/** What each symbol's change is measured against: the last close before today (in Seoul), else today's first price. */
export async function loadBaselines(api: Api, nowMs: number): Promise<Baseline[]> {
  const from = new Date(nowMs - 7 * DAY * 1000).toISOString();
  return readBaselines(rowsOf(await api.get(SEARCH, { interval: 'day', from, limit: 1000 })), nowMs);
}

export function readBaselines(rows: readonly Record<string, unknown>[], nowMs: number): Baseline[] {
  const today = windowStart(nowMs, DAY);
  const bySymbol = new Map<string, Record<string, unknown>[]>();
  for (const row of rows) {
    const symbol = row['ticker'] ?? row['symbol'];
    if (typeof symbol === 'string') bySymbol.set(symbol, [...(bySymbol.get(symbol) ?? []), row]);
  }
  return [...bySymbol].flatMap(([symbol, own]): Baseline[] => {
    const bars = readBars(own);
    const before = bars.filter((bar) => bar.time < today).at(-1);
    if (before) return [{ symbol, value: before.close, kind: 'close' }];
    const first = bars[0];
    return first ? [{ symbol, value: first.open, kind: 'open' }] : [];
  });
}
