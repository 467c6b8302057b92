SELECT symbol, start, event_time, open, high, low, close, volume, count FROM "trades.bars.1d" ORDER BY start, symbol
SELECT symbol, start, event_time, n, first_price, last_price, total, mean FROM "trades.sessions" ORDER BY symbol, start
