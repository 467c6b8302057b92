// Candles: folding trades into them, folding small ones into larger ones, merging history with what is live. Pure.

export interface Candle {
  /** Start of the window, seconds since the epoch. */
  time: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
}

export type Change = 'appended' | 'updated' | 'stale';

/** Candles kept for one chart. */
export const CANDLES_MAX = 3000;

const KST_OFFSET_S = 9 * 3600;

/** The start of the window that `ms` falls into. Days begin at midnight in Seoul; shorter windows are the same in every hour-aligned zone. */
export function windowStart(ms: number, seconds: number): number {
  const local = Math.floor(ms / 1000) + KST_OFFSET_S;
  return local - (((local % seconds) + seconds) % seconds) - KST_OFFSET_S;
}

export function candleOf(time: number, price: number, quantity: number): Candle {
  return { time, open: price, high: price, low: price, close: price, volume: quantity };
}

/** A candle series in order of time, bounded; the oldest are forgotten. */
export class CandleSeries {
  private list: Candle[] = [];

  constructor(readonly seconds: number) {}

  get all(): readonly Candle[] {
    return this.list;
  }

  get last(): Candle | undefined {
    return this.list[this.list.length - 1];
  }

  at(time: number): Candle | undefined {
    const found = this.list[lowerBound(this.list, time)];
    return found?.time === time ? found : undefined;
  }

  /** A trade joins the candle of its time. One for a candle older than the newest is `stale`: the chart redraws whole, or not at all. */
  trade(ms: number, price: number, quantity: number): Change {
    const time = windowStart(ms, this.seconds);
    const last = this.last;
    if (!last || time > last.time) return this.put(candleOf(time, price, quantity));
    const candle = this.at(time);
    if (!candle) return 'stale';
    candle.high = Math.max(candle.high, price);
    candle.low = Math.min(candle.low, price);
    candle.volume += quantity;
    if (candle !== last) return 'stale';
    candle.close = price;
    return 'updated';
  }

  /** A whole candle replaces the one of its time. */
  put(candle: Candle): Change {
    const last = this.last;
    if (!last || candle.time > last.time) {
      this.list.push(candle);
      if (this.list.length > CANDLES_MAX) this.list.splice(0, this.list.length - CANDLES_MAX);
      return 'appended';
    }
    if (candle.time === last.time) {
      this.list[this.list.length - 1] = candle;
      return 'updated';
    }
    const at = lowerBound(this.list, candle.time);
    this.list.splice(at, this.list[at]?.time === candle.time ? 1 : 0, candle);
    return 'stale';
  }

  /** History behind what is already live: the closed past comes from history, the newest live candle stays, joined with what was missed. */
  mergeHistory(history: readonly Candle[]): void {
    const live = this.list;
    const merged = new Map<number, Candle>();
    for (const candle of live) merged.set(candle.time, candle);
    const newest = live[live.length - 1]?.time ?? Infinity;
    for (const candle of history) {
      if (!isCandle(candle)) continue;
      const own = merged.get(candle.time);
      merged.set(candle.time, own && candle.time >= newest ? joined(candle, own) : candle);
    }
    this.list = [...merged.values()].sort((a, b) => a.time - b.time).slice(-CANDLES_MAX);
  }
}

/** History's part of a running candle with the live part: both saw trades of the same window, so sums are not added. */
function joined(past: Candle, live: Candle): Candle {
  return {
    time: past.time,
    open: past.open,
    high: Math.max(past.high, live.high),
    low: Math.min(past.low, live.low),
    close: live.close,
    volume: Math.max(past.volume, live.volume),
  };
}

/** Smaller candles, in order of time, folded into windows of `seconds`. */
export function fold(candles: readonly Candle[], seconds: number): Candle[] {
  const out: Candle[] = [];
  for (const candle of candles) {
    const time = windowStart(candle.time * 1000, seconds);
    const last = out[out.length - 1];
    if (last?.time === time) {
      last.high = Math.max(last.high, candle.high);
      last.low = Math.min(last.low, candle.low);
      last.close = candle.close;
      last.volume += candle.volume;
    } else {
      out.push({ ...candle, time });
    }
  }
  return out;
}

export function isCandle(c: Candle): boolean {
  return [c.time, c.open, c.high, c.low, c.close, c.volume].every(Number.isFinite);
}

function lowerBound(list: readonly Candle[], time: number): number {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle]!.time < time) low = middle + 1;
    else high = middle;
  }
  return low;
}
