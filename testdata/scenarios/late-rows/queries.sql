SELECT symbol, start, open, high, low, close, volume, amount, vwap, count, buy_volume, sell_volume, revision FROM trades_bars_1m ORDER BY start, symbol, revision
SELECT symbol, event_time, price FROM trades_late ORDER BY symbol
SELECT key, event_time, rule, severity, state, evidence, input_offset FROM alerts ORDER BY event_time
SELECT count(*) AS n FROM trades
