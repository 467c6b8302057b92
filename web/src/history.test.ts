import { expect, it } from 'vitest';
import { readBars, readBaselines, tradeRow } from './history';
import { hopOf, readLags, readReadiness, readTotals } from './pipeline';
import { readCandle } from './realtime';
import { readTrade } from './ticks';

const bar = (ticker: string, start: string, open: number, close: number, revision = 0) => ({ ticker, start, open, high: Math.max(open, close), low: Math.min(open, close), close, volume: 1, revision });

it('bars come in order of time, the latest revision wins', () => {
  const rows = [bar('A', '2026-01-01T00:02:00Z', 3, 4), bar('A', '2026-01-01T00:01:00Z', 9, 9, 1), bar('A', '2026-01-01T00:01:00Z', 1, 2, 0), bar('A', 'x', 1, 1)];
  expect(readBars(rows).map((c) => [c.time % 3600, c.close])).toEqual([[60, 9], [120, 4]]);
});

it('the change counts from the last close before today, else from the first price of today', () => {
  const now = Date.parse('2026-11-21T03:00:00Z');
  const rows = [bar('A', '2026-11-20T15:00:00Z', 10, 11), bar('A', '2026-11-19T15:00:00Z', 7, 8), bar('A', '2026-11-18T15:00:00Z', 5, 6), bar('B', '2026-11-20T15:00:00Z', 3, 4)];
  expect(readBaselines(rows, now)).toEqual([{ symbol: 'A', value: 8, kind: 'close' }, { symbol: 'B', value: 3, kind: 'open' }]);
});

it('the server’s candle frame', () => {
  const frame = JSON.parse('{"type":"candle_tick","ticker":"005930","data":{"open":1,"high":3,"low":0.5,"close":2,"volume":7},"current_tick":5,"start":"2026-11-21T00:00:00Z","end":"2026-11-21T00:00:05Z","count":2,"closed":false,"revision":0,"id":"c"}');
  expect(readCandle(frame)).toEqual({ ticker: '005930', open: 1, high: 3, low: 0.5, close: 2, volume: 7, start: '2026-11-21T00:00:00Z' });
  expect(readCandle({ ticker: 'A', data: { open: 1 } })).toBeNull();
});

it('lags and checks find their hop', () => {
  const lags = readLags([{ stream: 'trades', hop: 'receive', seconds: 0.1 }, { stream: 'trades', hop: 'processed', seconds: 0.3 }, { stream: 'alerts', hop: 'log', seconds: 9 }, { stream: 'trades', hop: 'odd', seconds: 1 }]);
  expect([...lags]).toEqual([['source', 0.1], ['engine', 0.3]]);
  expect(['log', 'history', 'shards', 'source.sim', 'x'].map(hopOf)).toEqual(['log', 'history', 'engine', 'source', null]);
  expect(readReadiness({ ready: false, checks: [{ name: 'log', ok: false, detail: 'd' }] })).toEqual({ ready: false, checks: [{ name: 'log', ok: false, detail: 'd' }] });
  expect(readReadiness({ status: 'ready', checks: [] }).ready).toBe(true);
  expect(readReadiness({ status: 'waiting', checks: [] }).ready).toBe(false);
  const streams = [{ kind: 'bar', partitions: [{ next: 5 }, { next: 7 }] }, { kind: 'bar', partitions: [{ next: 1 }] }, { kind: 'trade', partitions: [] }];
  expect([...readTotals({ epoch: 'e', streams })]).toEqual([['bar', 13], ['trade', 0]]);
  expect(readReadiness(null)).toEqual({ ready: false, checks: [] });
});

it('a trade as search spells it', () => {
  const row = { event_time: '2026-11-21T00:00:00Z', event_id: null, ticker: 'BRK.B', price: 478.25, volume: 3, trade_type: 'SELL', trade_id: null, market_code: 'NYSE', currency_code: 'USD' };
  expect(readTrade(tradeRow(row))).toEqual({ symbol: 'BRK.B', ms: Date.parse(row.event_time), price: 478.25, quantity: 3, side: 'sell' });
});
