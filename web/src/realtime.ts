// The WebSocket: subscribes, resumes after a loss, and hands rows on. It knows frames, not what they mean for the page.

import { isRecord } from './api';
import { backoffMs, Place } from './resume';
import type { TradeRow } from './ticks';

export type Link = { kind: 'connecting' } | { kind: 'live' } | { kind: 'lost'; retryAtMs: number };

export interface CandleFrame {
  ticker: string;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  /** RFC 3339 start of the candle, where the frame says so. */
  start: string | null;
}

export interface Listener {
  onLink(link: Link): void;
  onRows(rows: TradeRow[]): void;
  onCandle(frame: CandleFrame): void;
  /** Rows may be missing on the page: read history again. */
  onGap(): void;
  onRefusal(code: string, message: string): void;
}

const TRADES_ID = 'trades';
/** The server tells the cursor at least every 25 s. */
const SILENCE_MAX_MS = 70_000;

interface CandleWish {
  id: string;
  symbol: string;
  seconds: number;
}

export class Realtime {
  private socket: WebSocket | null = null;
  private place = new Place();
  private askedToResume = false;
  private n_failures = 0;
  private n_wishes = 0;
  private wish: CandleWish | null = null;
  private timer: number | undefined;
  private heardMs = NaN;

  constructor(
    private readonly url: () => string,
    private readonly listener: Listener,
  ) {}

  /** Connects now, also when a retry was waiting or a connection stood. */
  connect(): void {
    clearTimeout(this.timer);
    this.drop();
    this.listener.onLink({ kind: 'connecting' });
    const socket = new WebSocket(this.url());
    this.socket = socket;
    this.heardMs = Date.now();
    socket.onopen = () => this.subscribeAll();
    socket.onmessage = (event) => this.receive(event.data);
    socket.onclose = () => {
      if (this.socket === socket) this.lost();
    };
  }

  /** Chooses what the live candle shows; null for none. */
  watch(symbol: string | null, seconds: number): void {
    if (this.wish) this.send({ op: 'unsubscribe', id: this.wish.id });
    this.n_wishes += 1;
    this.wish = symbol === null ? null : { id: `candle-${this.n_wishes}`, symbol, seconds };
    this.subscribeCandles();
  }

  /** To be called now and then: a connection that is silent for too long is dead, though the browser may not know it yet. */
  check(nowMs: number): void {
    if (this.socket && nowMs - this.heardMs > SILENCE_MAX_MS) this.connect();
  }

  private drop(): void {
    const old = this.socket;
    this.socket = null;
    old?.close();
  }

  private lost(): void {
    this.socket = null;
    this.n_failures += 1;
    const waitMs = backoffMs(this.n_failures, Math.random());
    this.listener.onLink({ kind: 'lost', retryAtMs: Date.now() + waitMs });
    this.timer = window.setTimeout(() => this.connect(), waitMs);
  }

  private subscribeAll(): void {
    this.subscribeTrades();
    this.subscribeCandles();
  }

  private subscribeTrades(): void {
    const token = this.place.resumeToken(Date.now());
    this.askedToResume = token !== null;
    this.send({ op: 'subscribe', id: TRADES_ID, streams: ['trades'], symbols: 'all', mode: 'trades', ...(token !== null && { resume: token }) });
  }

  private subscribeCandles(): void {
    const wish = this.wish;
    if (wish) this.send({ op: 'subscribe', id: wish.id, streams: ['trades'], symbols: [wish.symbol], mode: 'candles', tick: wish.seconds });
  }

  private send(message: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  private receive(data: unknown): void {
    this.heardMs = Date.now();
    const frame = parseFrame(data);
    if (!frame) return;
    switch (frame['type']) {
      case 'subscribed':
        return this.acknowledged(frame);
      case 'trades': {
        this.place.advance(frame['cursor'], Date.now());
        const rows = frame['rows'];
        if (Array.isArray(rows)) this.listener.onRows(rows as TradeRow[]);
        return;
      }
      case 'candle_tick': {
        // Frames of a subscription that was just replaced may still be under way.
        const isWanted = typeof frame['id'] !== 'string' || frame['id'] === this.wish?.id;
        const candle = isWanted ? readCandle(frame) : null;
        if (candle) this.listener.onCandle(candle);
        return;
      }
      case 'cursor':
        if (frame['id'] === TRADES_ID) this.place.advance(frame['cursor'], Date.now());
        return;
      case 'slow':
        return this.listener.onRefusal('slow', 'This browser reads more slowly than trades arrive');
      case 'error':
        return this.refused(frame);
    }
  }

  private acknowledged(frame: Record<string, unknown>): void {
    if (frame['id'] !== TRADES_ID) return;
    this.n_failures = 0;
    const { gap } = this.place.acknowledged(frame['epoch'], frame['recovered'], this.askedToResume);
    this.place.advance(frame['cursor'], Date.now());
    this.listener.onLink({ kind: 'live' });
    if (gap) this.listener.onGap();
  }

  private refused(frame: Record<string, unknown>): void {
    if (frame['id'] === TRADES_ID && this.askedToResume) {
      this.place.forget();
      this.subscribeTrades();
      return;
    }
    this.listener.onRefusal(String(frame['code'] ?? ''), String(frame['message'] ?? 'the server refused the subscription'));
  }
}

function parseFrame(data: unknown): Record<string, unknown> | null {
  if (typeof data !== 'string') return null;
  try {
    const frame: unknown = JSON.parse(data);
    return isRecord(frame) ? frame : null;
  } catch {
    return null;
  }
}

export function readCandle(frame: Record<string, unknown>): CandleFrame | null {
  const data = frame['data'];
  if (!isRecord(data)) return null;
  const ticker = frame['ticker'] ?? frame['symbol'];
  const [open, high, low, close, volume] = ['open', 'high', 'low', 'close', 'volume'].map((name) => Number(data[name] ?? NaN));
  if (typeof ticker !== 'string' || ![open, high, low, close, volume].every(Number.isFinite)) return null;
  const start = frame['start'];
  return {
    ticker,
    open: open!,
    high: high!,
    low: low!,
    close: close!,
    volume: volume!,
    start: typeof start === 'string' ? start : null,
  };
}
