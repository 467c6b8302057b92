import { describe, expect, it } from 'vitest';
import { changeOf, Market, Spark, SPARK_MAX, SYMBOLS_MAX, TAPE_MAX, type TradeRow } from './ticks';

const row = (symbol: string, price: number, quantity = 1, second = 0): TradeRow => ({
  symbol, event_time: new Date(1_700_000_000_000 + second * 1000).toISOString(), price, quantity, side: 'BUY', market: 'KRX', currency: 'KRW',
});

describe('market', () => {
  it('keeps a quote per symbol and says which changed', () => {
    const market = new Market();
    market.add(row('005930', 100), 0);
    market.add(row('005930', 110, 3, 1), 10);
    market.add(row('AAPL', 5), 10);
    const quote = market.quotes.get('005930')!;
    expect([quote.last, quote.volume, quote.n_trades, quote.direction, quote.name]).toEqual([110, 4, 2, 1, '삼성전자']);
    expect(changeOf(quote)).toBeCloseTo(0.1);
    expect([...market.dirty]).toEqual(['005930', 'AAPL']);
  });

  it('measures the change against the baseline, whenever it comes', () => {
    const market = new Market();
    market.setBaseline('A', 50, 'close');
    market.setBaseline('B', 0, 'close');
    market.add(row('A', 100), 0);
    market.add(row('B', 10), 0);
    expect(changeOf(market.quotes.get('A')!)).toBe(1);
    expect(market.quotes.get('B')!.baselineKind).toBe('first');
    market.setBaseline('B', 8, 'open');
    expect(changeOf(market.quotes.get('B')!)).toBe(0.25);
  });

  it('refuses what is no trade', () => {
    const market = new Market();
    const bad = [{ ...row('A', 1), price: 'x' }, { ...row('A', 1), event_time: 'now' }, { ...row('A', 1), symbol: 5 }, {}];
    for (const b of bad) expect(market.add(b as unknown as TradeRow, 0)).toBeNull();
    expect(market.quotes.size).toBe(0);
  });

  it('the tape holds the chosen symbol only, is bounded, and remembers what was seen before', () => {
    const market = new Market();
    for (let i = 0; i < 5; i++) market.add(row(i % 2 ? 'A' : 'B', i + 1, 1, i), 0);
    market.choose('A');
    expect(market.tape.map((t) => t.price)).toEqual([2, 4]);
    for (let i = 0; i < 5000; i++) market.add(row('A', i, 1, 10 + i), 0);
    expect(market.tape.length).toBeLessThanOrEqual(2 * TAPE_MAX);
    expect([market.tape.at(-1)!.price, market.n_tape]).toEqual([4999, 5002]);
  });

  it('older trades join the tape before the live ones, none twice', () => {
    const market = new Market();
    market.choose('A');
    market.add(row('A', 3, 1, 30), 0);
    const past = [row('A', 1, 1, 10), row('A', 2, 1, 20), row('A', 3, 1, 30), row('B', 9, 1, 5)];
    market.prepend(past.map((r) => ({ symbol: r.symbol, ms: Date.parse(r.event_time), price: r.price, quantity: r.quantity, side: 'buy' })));
    expect(market.tape.map((t) => t.price)).toEqual([1, 2, 3]);
  });

  it('a market of too many symbols is cut, and counted', () => {
    const market = new Market();
    for (let i = 0; i < SYMBOLS_MAX + 7; i++) market.add(row(`S${i}`, 1), 0);
    expect([market.quotes.size, market.n_hidden]).toEqual([SYMBOLS_MAX, 7]);
  });
});

describe('spark', () => {
  it('covers any time with a bounded number of points', () => {
    const spark = new Spark();
    for (let s = 0; s < 4000; s++) spark.add(s * 1000, s);
    expect(spark.points.length).toBeLessThanOrEqual(SPARK_MAX);
    expect(spark.points.at(-1)).toBeGreaterThan(3900);
    expect(spark.points[0]).toBeLessThan(200);
  });

  it('draws nothing from one point and a level line from equal ones', () => {
    const spark = new Spark();
    spark.add(0, 5);
    expect(spark.path(10, 10)).toBe('');
    spark.add(1000, 5);
    expect(spark.path(10, 10)).toBe('M0.0 5.0L10.0 5.0');
  });
});
