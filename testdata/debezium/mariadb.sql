CREATE DATABASE shop CHARACTER SET utf8mb4; USE shop;
CREATE TABLE every_type (
  id bigint unsigned NOT NULL PRIMARY KEY, bo boolean, t1 tinyint, t1u tinyint unsigned, t11 tinyint(1), i2 smallint, i2u smallint unsigned, i3 mediumint, i3u mediumint unsigned, i4 int NOT NULL DEFAULT 7, i4u int unsigned, i8 bigint, i8u bigint unsigned,
  f float, dbl double, d10_2 decimal(10,2), d65_30 decimal(65,30), d5 decimal(5), du decimal(10,2) unsigned, b1 bit(1), b5 bit(5), b64 bit(64),
  c char(5), v varchar(20), v1 varchar(20) CHARACTER SET latin1, tx text, mt mediumtext, bi binary(4), vb varbinary(10), bl blob, lb longblob,
  dt date, t time, t3 time(3), t6 time(6), dt0 datetime, dt3 datetime(3), dt6 datetime(6), ts timestamp NULL, ts3 timestamp(3) NULL, ts6 timestamp(6) NULL, y year,
  e enum('BUY','SELL','it''s, "odd"'), s set('a','b','c'), j json, g geometry, po point, u uuid
);
CREATE TABLE two_keys (k1 varchar(10), k2 int, v decimal(8,3) NOT NULL, PRIMARY KEY (k2, k1));
CREATE TABLE no_key (a int, b varchar(10));
INSERT INTO every_type (id) VALUES (1);
INSERT INTO two_keys VALUES ('snap', 1, 1.5), ('snap', 2, -0.125);
