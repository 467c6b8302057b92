CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS ltree; CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN price AS numeric(12,4);
CREATE TABLE every_type (
  id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer NOT NULL DEFAULT 7, i8 bigint, f4 real, f8 double precision,
  n numeric, n15_2 numeric(15,2), n38_10 numeric(38,10), n5_0 numeric(5), n3_m2 numeric(3,-2), m money,
  t text, v varchar(20), c char(5), ci citext, nm name,
  by bytea, d date, t0 time(0), t3 time(3), t6 time, tz6 timetz, ts0 timestamp(0), ts3 timestamp(3), ts6 timestamp, tstz timestamptz, tstz3 timestamptz(3), iv interval,
  u uuid, j json, jb jsonb, x xml, mo mood, po positive, pr price, bit1 bit(1), bit5 bit(5), vb bit varying(12), vbu bit varying,
  ip inet, ci4 cidr, ma macaddr, oi oid, r4 int4range, rn numrange, rt tstzrange, rd daterange, pt point, hs hstore, lt ltree, ts tsvector,
  ai integer[], ai8 bigint[], at text[], an numeric(10,2)[], au uuid[], ats timestamp[], atz timestamptz[], ad date[], ab boolean[], aj jsonb[], am mood[], abt bytea[], big text, ln line, bx box, ma8 macaddr8, vvv "char", atm time[], af real[], anv numeric[]
);
CREATE TABLE no_key (a integer, b text);
ALTER TABLE no_key REPLICA IDENTITY FULL;
CREATE TABLE two_keys (k1 text, k2 integer, v numeric(8,3) NOT NULL, PRIMARY KEY (k2, k1));
CREATE TABLE "Odd Näme" ("Colümn-1" integer PRIMARY KEY, "2nd" text);
INSERT INTO every_type (id) VALUES (1);
INSERT INTO two_keys VALUES ('snap', 1, 1.5), ('snap', 2, -0.125);
