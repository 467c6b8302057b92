import { describe, expect, it } from 'vitest';
import { AlertBook, ALERTS_MAX, readAlert, readPairs } from './alerts';

const sent = {
  id: 'a1', key: '005930', event_time: '2026-11-21T00:00:00Z', stream: 'trades', rule: 'volume_surge', rule_version: 'v', severity: 'high', mode: 'live',
  state: 'fired', score: 71.5, message: 'much', condition: 'quantity >= 50 * volume_ema', evidence: '{"quantity":5000,"volume_ema":14.28371,"first":null}',
  thresholds: { quantity: 714.1855 }, input_partition: 2, input_offset: 77, first_offset: null,
};

describe('reading', () => {
  it('takes evidence as text and as an object', () => {
    const alert = readAlert(sent)!;
    expect(alert.evidence).toEqual([['quantity', '5,000'], ['volume_ema', '14.28371'], ['first', 'none']]);
    expect(alert.thresholds).toEqual([['quantity', '714.1855']]);
    expect([alert.place, alert.firstOffset, alert.severity]).toEqual(['2 / 77', null, 'high']);
  });

  it('survives what it does not know', () => {
    expect(readAlert({ ...sent, id: '' })).toBeNull();
    expect(readAlert('x')).toBeNull();
    expect(readAlert({ ...sent, event_time: 'soon' })).toBeNull();
    expect(readAlert({ ...sent, severity: 'odd' })!.severity).toBe('low');
    expect(readPairs('not json')).toEqual([['', 'not json']]);
    expect(readPairs(null)).toEqual([]);
  });
});

it('the book is newest first, bounded, and holds each alert once', () => {
  const book = new AlertBook();
  const make = (i: number) => readAlert({ ...sent, id: `a${i}`, event_time: new Date(i * 1000).toISOString() })!;
  for (const i of [5, 3, 9, 5]) book.add(make(i));
  expect(book.list.map((a) => a.id)).toEqual(['a9', 'a5', 'a3']);
  expect(book.add(make(9))).toBe(false);
  for (let i = 10; i < 300; i++) expect(book.add(make(i))).toBe(true);
  expect([book.list.length, book.list[0]!.id]).toEqual([ALERTS_MAX, 'a299']);
  expect(book.add(make(1))).toBe(false);
});
