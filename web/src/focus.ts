// The chosen symbol at the chosen interval: its candles from history, joined with what is live. The server's live candles lead for 1 to
// 60 seconds; until they come, and for longer intervals, trades are folded here.

import type { Api } from './api';
import { CandleSeries, windowStart, type Candle, type Change } from './candle';
import { parseTime } from './format';
import { loadCandles, loadRecent } from './history';
import type { CandleFrame } from './realtime';
import type { Trade } from './ticks';

/** The longest interval for which the server sends live candles. */
export const LIVE_SECONDS_MAX = 60;
/** A window closes on the server this much later: the watermark's bound, and a little. */
const CLOSE_DELAY_MS = 8000;

export interface FocusListener {
  /** Draw everything anew. `isNew` when it is another symbol or interval. */
  onCandles(isNew: boolean): void;
  onHistoryError(message: string): void;
}

export class Focus {
  symbol: string | null = null;
  seconds = 5;
  series = new CandleSeries(5);
  private lastMs = NaN;
  private hasServerCandles = false;
  private n_loads = 0;
  private recentTimer: number | undefined;

  constructor(
    private readonly api: Api,
    private readonly listener: FocusListener,
  ) {}

  choose(symbol: string | null, seconds: number): void {
    this.symbol = symbol;
    this.seconds = seconds;
    this.series = new CandleSeries(seconds);
    this.lastMs = NaN;
    this.hasServerCandles = false;
    clearTimeout(this.recentTimer);
    this.listener.onCandles(true);
    void this.reload(true);
  }

  /** Reads history again and joins it with what is live. */
  async reload(isNew = false): Promise<void> {
    const symbol = this.symbol;
    const load = ++this.n_loads;
    if (symbol === null) return;
    try {
      const candles = await loadCandles(this.api, symbol, this.seconds, Date.now());
      if (load !== this.n_loads) return;
      this.series.mergeHistory(candles);
      this.listener.onCandles(isNew);
    } catch (error) {
      if (load === this.n_loads) this.listener.onHistoryError(error instanceof Error ? error.message : String(error));
    }
  }

  /** The candle that the trade changed, if it did. */
  trade(trade: Trade): Candle | null {
    this.lastMs = trade.ms;
    if (this.hasServerCandles) return null;
    this.noticed(this.series.trade(trade.ms, trade.price, trade.quantity));
    return this.series.at(windowStart(trade.ms, this.seconds)) ?? null;
  }

  /** A candle of the server is whole: it replaces what was seen of its window here. Late trades may change an older one. */
  candle(frame: CandleFrame): Candle | null {
    const ms = frame.start === null ? this.lastMs : parseTime(frame.start);
    if (frame.ticker !== this.symbol || !Number.isFinite(ms)) return null;
    this.hasServerCandles = true;
    const { open, high, low, close, volume } = frame;
    const candle = { time: windowStart(ms, this.seconds), open, high, low, close, volume };
    this.noticed(this.series.put(candle));
    return candle;
  }

  /** Some time after a window ended its bar is in history, whole: it replaces what was seen of it here. */
  private noticed(change: Change): void {
    if (change !== 'appended' || this.seconds < LIVE_SECONDS_MAX) return;
    clearTimeout(this.recentTimer);
    this.recentTimer = window.setTimeout(() => void this.readClosed(), CLOSE_DELAY_MS);
  }

  private async readClosed(): Promise<void> {
    const series = this.series;
    const symbol = this.symbol;
    if (symbol === null) return;
    const recent = await loadRecent(this.api, symbol, this.seconds, Date.now()).catch(() => []);
    if (series !== this.series || recent.length === 0) return;
    series.mergeHistory(recent.filter((c) => c.time < (series.last?.time ?? 0)));
    this.listener.onCandles(false);
  }
}
