INSERT INTO every_type VALUES (2, true, -32768, 2147483647, -9223372036854775808, 1.5, 0.1,
  12345.678900, -1234567890123.45, 1234567890123456789012345678.0123456789, 99999, 12300, 1234.56,
  E'text "quoted" \\ \n\t물\u0001€', 'varchar', 'ch', 'CiText', 'name',
  '\x0001feff', '2026-11-22', '12:34:56', '12:34:56.789', '12:34:56.789012', '12:34:56.789012+09', '2026-11-22 12:34:56', '2026-11-22 12:34:56.789', '2026-11-22 12:34:56.789012', '2026-11-22 12:34:56.789012+09', '2026-11-22 12:34:56.789+09', '1 year 2 mons 3 days 04:05:06.789012',
  '01234567-89ab-cdef-0123-456789abcdef', '{"a": [1, 2.50, null]}', '{"b": {"c": "d"}, "n": 1.10}', '<a>b</a>', 'happy', 42, 12.3456, B'1', B'10110', B'101', B'1111000011110',
  '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', 4294967295, '[1,10)', '(1.5,2.5]', '["2026-01-01 00:00:00+00","2026-12-31 00:00:00+00")', '[2026-01-01,2026-02-01)', '(1.5,-2)', 'a=>1, b=>NULL', 'a.b.c', 'fat & rat',
  '{1,NULL,3}', '{9223372036854775807}', '{a,"b c",NULL,"q\"uote"}', '{1.10,2.25}', '{01234567-89ab-cdef-0123-456789abcdef}', '{"2026-11-22 12:34:56.789012"}', '{"2026-11-22 12:34:56+09"}', '{2026-11-22}', '{t,f}', '{"{\"a\": 1}"}', '{sad,happy}', '{"\\x00ff"}', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) i), '{1,2,3}', '(1,1),(0,0)', '08:00:2b:01:02:03:04:05', 'x', '{12:34:56.5}', '{1.5,2.25}', '{1.5,22.125}');
UPDATE every_type SET i4 = 8 WHERE id = 2;
UPDATE every_type SET id = 3 WHERE id = 2;
DELETE FROM every_type WHERE id = 3;
INSERT INTO every_type (id, f4, f8, n15_2, d, ts6, tstz, t6) VALUES (4, 1e-10, 1e300, 0, '0001-01-01', '0001-01-01 00:00:00', '0001-01-01 00:00:00+00', '24:00:00');
INSERT INTO every_type (id, f4, f8, n15_2, d, ts6, tstz, t6, ts3, tstz3) VALUES (5, 3.4028235e38, -0.0, -0.01, '1969-12-31', '1969-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00', '00:00:00', '9999-12-31 23:59:59.999', '2026-11-22 00:00:00+00');
INSERT INTO no_key VALUES (1, 'x'), (NULL, NULL);
UPDATE no_key SET b = 'y' WHERE a = 1;
DELETE FROM no_key WHERE a = 1;
BEGIN; INSERT INTO two_keys VALUES ('a', 3, 1); INSERT INTO "Odd Näme" VALUES (1, 'one'); INSERT INTO two_keys VALUES ('b', 3, 2); COMMIT;
SELECT pg_logical_emit_message(true, 'mulgil', 'in a transaction');
SELECT pg_logical_emit_message(false, 'mulgil', E'\\x0001ff'::bytea);
TRUNCATE two_keys, no_key RESTART IDENTITY CASCADE;
