// The market as the page knows it: one quote per symbol, one bounded tape. Rows are folded in as they arrive; drawing happens elsewhere,
// once per frame, however many rows came.

import { parseTime } from './format';
import { nameOf } from './names';

/** A row of a trade stream, as it stands in a `trades` frame. `search` spells some columns differently: see history.ts. */
export interface TradeRow {
  symbol: string;
  event_time: string;
  price: number;
  quantity: number;
  side?: string | null;
  market?: string | null;
  currency?: string | null;
  name?: string | null;
}

export interface Trade {
  symbol: string;
  ms: number;
  price: number;
  quantity: number;
  side: Side;
}

export type Side = 'buy' | 'sell' | 'unknown';

/** What a change is measured against. */
export type BaselineKind = 'close' | 'open' | 'first';

export interface Quote {
  symbol: string;
  name: string | null;
  market: string | null;
  currency: string | null;
  last: number;
  lastMs: number;
  /** Of the last trade that moved the price. */
  direction: -1 | 0 | 1;
  baseline: number;
  baselineKind: BaselineKind;
  volume: number;
  n_trades: number;
  spark: Spark;
}

/** Symbols shown; a market with more is for the search box of a later page. */
export const SYMBOLS_MAX = 400;
/** Trades kept for the tape of the chosen symbol. */
export const TAPE_MAX = 300;
/** Trades of all symbols kept, so that a tape is not empty when another symbol is chosen. */
export const RECENT_MAX = 4000;

export class Market {
  readonly quotes = new Map<string, Quote>();
  /** Newest last. */
  readonly tape: Trade[] = [];
  /** Quotes that changed since they were last drawn. */
  readonly dirty = new Set<string>();
  n_tape = 0;
  n_hidden = 0;
  private baselines = new Map<string, { value: number; kind: BaselineKind }>();
  private chosen: string | null = null;
  private recent: Trade[] = [];

  /** The tape starts anew for another symbol, with what is still remembered of it. */
  choose(symbol: string | null): void {
    this.chosen = symbol;
    const known = this.recent.filter((trade) => trade.symbol === symbol).slice(-TAPE_MAX);
    this.tape.splice(0, this.tape.length, ...known);
    this.n_tape = known.length;
  }

  /** Trades from history, oldest first, join the tape before the first one that was seen live. */
  prepend(older: readonly Trade[]): void {
    const first = this.tape[0]?.ms ?? Infinity;
    const joining = older.filter((trade) => trade.symbol === this.chosen && trade.ms < first);
    this.tape.unshift(...joining.slice(-TAPE_MAX));
    this.n_tape += joining.length;
  }

  /** Folds a row in; null when it is not a trade that can be shown. */
  add(row: TradeRow, nowMs: number): Trade | null {
    const trade = readTrade(row);
    if (!trade) return null;
    const quote = this.quotes.get(trade.symbol) ?? this.open(row, trade);
    if (!quote) return null;
    if (trade.price !== quote.last) quote.direction = trade.price > quote.last ? 1 : -1;
    quote.last = trade.price;
    quote.lastMs = trade.ms;
    quote.volume += trade.quantity;
    quote.n_trades += 1;
    quote.spark.add(nowMs, trade.price);
    this.dirty.add(trade.symbol);
    this.recent.push(trade);
    if (this.recent.length > 2 * RECENT_MAX) this.recent = this.recent.slice(-RECENT_MAX);
    if (trade.symbol === this.chosen) this.keep(trade);
    return trade;
  }

  setBaseline(symbol: string, value: number, kind: BaselineKind): void {
    if (!(value > 0)) return;
    this.baselines.set(symbol, { value, kind });
    const quote = this.quotes.get(symbol);
    if (!quote) return;
    quote.baseline = value;
    quote.baselineKind = kind;
    this.dirty.add(symbol);
  }

  private keep(trade: Trade): void {
    this.tape.push(trade);
    this.n_tape += 1;
    if (this.tape.length > 2 * TAPE_MAX) this.tape.splice(0, this.tape.length - TAPE_MAX);
  }

  private open(row: TradeRow, trade: Trade): Quote | null {
    if (this.quotes.size >= SYMBOLS_MAX) {
      this.n_hidden += 1;
      return null;
    }
    const known = this.baselines.get(trade.symbol);
    const quote: Quote = {
      symbol: trade.symbol,
      name: row.name ?? nameOf(trade.symbol),
      market: row.market ?? null,
      currency: row.currency ?? null,
      last: trade.price,
      lastMs: trade.ms,
      direction: 0,
      baseline: known?.value ?? trade.price,
      baselineKind: known?.kind ?? 'first',
      volume: 0,
      n_trades: 0,
      spark: new Spark(),
    };
    this.quotes.set(trade.symbol, quote);
    return quote;
  }
}

/** The change against the baseline, as a ratio. */
export function changeOf(quote: Quote): number {
  return quote.baseline > 0 ? quote.last / quote.baseline - 1 : NaN;
}

export function readTrade(row: TradeRow): Trade | null {
  const ms = parseTime(row.event_time);
  const price = Number(row.price);
  const quantity = Number(row.quantity);
  if (typeof row.symbol !== 'string' || !Number.isFinite(ms) || !Number.isFinite(price) || !Number.isFinite(quantity)) return null;
  return { symbol: row.symbol, ms, price, quantity, side: readSide(row.side) };
}

function readSide(side: string | null | undefined): Side {
  if (side === 'BUY') return 'buy';
  return side === 'SELL' ? 'sell' : 'unknown';
}

/** Points of a sparkline. */
export const SPARK_MAX = 60;
const SPARK_STEP_MS = 1000;

/** The price since the page was opened, in at most 60 points: when they are used up, every second one goes and the step doubles. */
export class Spark {
  readonly points: number[] = [];
  private stepMs = SPARK_STEP_MS;
  private nextMs = -Infinity;

  add(nowMs: number, price: number): void {
    if (nowMs < this.nextMs) {
      this.points[this.points.length - 1] = price;
      return;
    }
    if (this.points.length >= SPARK_MAX) {
      const kept = this.points.filter((_, i) => i % 2 === 1);
      this.points.splice(0, this.points.length, ...kept);
      this.stepMs *= 2;
    }
    this.points.push(price);
    this.nextMs = nowMs + this.stepMs;
  }

  /** An SVG path in a box of `width` x `height`; empty while there is nothing to see. */
  path(width: number, height: number): string {
    const n = this.points.length;
    if (n < 2) return '';
    const low = Math.min(...this.points);
    const span = Math.max(...this.points) - low;
    return this.points
      .map((p, i) => {
        const x = (i / (n - 1)) * width;
        const y = span === 0 ? height / 2 : height - ((p - low) / span) * height;
        return `${i === 0 ? 'M' : 'L'}${x.toFixed(1)} ${y.toFixed(1)}`;
      })
      .join('');
  }
}
