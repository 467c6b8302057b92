import { describe, expect, it } from 'vitest';
import { CANDLES_MAX, CandleSeries, fold, windowStart, type Candle } from './candle';

const candle = (time: number, open: number, high: number, low: number, close: number, volume: number): Candle => ({ time, open, high, low, close, volume });
const at = (text: string) => Date.parse(text);

describe('windows', () => {
  it('days begin at midnight in Seoul', () => {
    expect(windowStart(at('2026-11-21T14:59:59.999Z'), 86_400) * 1000).toBe(at('2026-11-20T15:00:00Z'));
    expect(windowStart(at('2026-11-21T15:00:00Z'), 86_400) * 1000).toBe(at('2026-11-21T15:00:00Z'));
  });

  it('shorter ones are aligned to the epoch, as the server aligns them', () => {
    for (const seconds of [1, 5, 15, 60, 3600]) expect(windowStart(1_763_712_345_678, seconds)).toBe(Math.floor(1_763_712_345 / seconds) * seconds);
  });
});

describe('series', () => {
  it('folds trades', () => {
    const series = new CandleSeries(5);
    const changes = [[10_000, 100, 1], [11_000, 120, 2], [14_999, 90, 3], [15_000, 95, 4]].map(([ms, p, q]) => series.trade(ms!, p!, q!));
    expect(changes).toEqual(['appended', 'updated', 'updated', 'appended']);
    expect(series.all).toEqual([candle(10, 100, 120, 90, 90, 6), candle(15, 95, 95, 95, 95, 4)]);
  });

  it('a late trade changes its own candle and never the newest', () => {
    const series = new CandleSeries(5);
    [[10_000, 100, 1], [15_000, 95, 4]].forEach(([ms, p, q]) => series.trade(ms!, p!, q!));
    expect(series.trade(12_000, 130, 1)).toBe('stale');
    expect(series.trade(3000, 1, 1)).toBe('stale');
    expect(series.all).toEqual([candle(10, 100, 130, 100, 100, 2), candle(15, 95, 95, 95, 95, 4)]);
  });

  it('a whole candle replaces the one of its time, wherever it stands', () => {
    const series = new CandleSeries(5);
    for (const time of [10, 20, 25]) series.put(candle(time, 1, 1, 1, 1, 1));
    expect(series.put(candle(25, 2, 2, 2, 2, 2))).toBe('updated');
    expect(series.put(candle(15, 3, 3, 3, 3, 3))).toBe('stale');
    expect(series.put(candle(10, 4, 4, 4, 4, 4))).toBe('stale');
    expect(series.all.map((c) => [c.time, c.close])).toEqual([[10, 4], [15, 3], [20, 1], [25, 2]]);
  });

  it('is bounded', () => {
    const series = new CandleSeries(1);
    for (let t = 0; t < CANDLES_MAX + 10; t++) series.put(candle(t, 1, 1, 1, 1, 1));
    expect([series.all.length, series.all[0]?.time]).toEqual([CANDLES_MAX, 10]);
  });
});

describe('history joins what is live', () => {
  it('closed candles come from history, the running one keeps its live close', () => {
    const series = new CandleSeries(60);
    series.put(candle(120, 10, 11, 9, 10, 5));
    series.put(candle(180, 20, 21, 19, 20.5, 7));
    series.mergeHistory([candle(60, 1, 2, 1, 2, 1), candle(120, 8, 12, 8, 10, 50), candle(180, 18, 20, 17, 18, 3)]);
    expect(series.all).toEqual([candle(60, 1, 2, 1, 2, 1), candle(120, 8, 12, 8, 10, 50), candle(180, 18, 21, 17, 20.5, 7)]);
  });

  it('merging twice changes nothing, and what is no candle is left out', () => {
    const series = new CandleSeries(60);
    const history = [candle(60, 1, 2, 1, 2, 1), candle(NaN, 1, 1, 1, 1, 1), candle(120, 3, NaN, 3, 3, 3)];
    series.mergeHistory(history);
    const once = [...series.all];
    series.mergeHistory(history);
    expect(series.all).toEqual(once);
    expect(once).toHaveLength(1);
  });

  it('small candles fold into large ones', () => {
    const minutes = [candle(3600, 1, 5, 1, 4, 10), candle(3660, 4, 6, 2, 3, 5), candle(7200, 3, 3, 3, 3, 1)];
    expect(fold(minutes, 3600)).toEqual([candle(3600, 1, 6, 1, 3, 15), candle(7200, 3, 3, 3, 3, 1)]);
    expect(minutes[0]?.high).toBe(5);
  });
});
