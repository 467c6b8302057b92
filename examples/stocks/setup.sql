-- What a PostgreSQL database needs for examples/stocks/mulgil.toml. Run it as a superuser, in the database of the trades:
--     psql -d exchange -v password="'change me'" -f setup.sql
-- The server must decode its WAL: wal_level = logical (then a restart). `mulgil check -c mulgil.toml` names whatever is still missing.

CREATE TABLE IF NOT EXISTS public.stock_trades (
    event_time    timestamptz   NOT NULL,
    event_id      uuid          NOT NULL,
    ticker        text          NOT NULL CHECK (ticker ~ '^[A-Z0-9.]{1,10}$'),
    price         numeric(18,2) NOT NULL CHECK (price > 0),
    volume        int           NOT NULL CHECK (volume > 0),
    trade_type    text          NOT NULL CHECK (trade_type IN ('BUY', 'SELL')),
    trade_id      uuid          NOT NULL,
    market_code   text          NOT NULL CHECK (length(market_code) BETWEEN 1 AND 20),
    currency_code char(3)       NOT NULL,
    PRIMARY KEY (event_time, event_id)
);
-- With TimescaleDB: SELECT create_hypertable('public.stock_trades', 'event_time'); its chunks are captured as the one table.

-- The role may log in, stream changes and read this table: nothing else.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mulgil') THEN
        CREATE ROLE mulgil LOGIN REPLICATION;
    END IF;
END $$;
ALTER ROLE mulgil PASSWORD :password;
GRANT USAGE ON SCHEMA public TO mulgil;
GRANT SELECT ON public.stock_trades TO mulgil;
-- Only for allow_generate = true, in a database for trying things out: GRANT INSERT ON public.stock_trades TO mulgil;

-- Made here, so that the role need not own the table. mulgil makes its replication slot, mulgil_exchange, by itself.
DROP PUBLICATION IF EXISTS mulgil_exchange;
CREATE PUBLICATION mulgil_exchange FOR TABLE public.stock_trades WITH (publish_via_partition_root = true);
