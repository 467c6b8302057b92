INSERT INTO odd_values VALUES (2, NULL, NULL, 'NaN', 'NaN', 'infinity', 'infinity', 'infinity', 'infinity', '-1 days');
INSERT INTO odd_values VALUES (3, NULL, NULL, 'Infinity', '-Infinity', '-infinity', '-infinity', '-infinity', '-infinity', '-1 mons +2 days -00:00:00.000001');
INSERT INTO odd_values VALUES (4, NULL, NULL, NULL, NULL, '4713-01-01 BC', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC', NULL, '00:00:00');
INSERT INTO odd_values VALUES (5, NULL, NULL, NULL, NULL, '5874897-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', NULL, NULL);
INSERT INTO odd_values (id, n) VALUES (6, 'NaN');
INSERT INTO odd_values (id, n) VALUES (7, 'Infinity');
INSERT INTO odd_values (id, n5_2) VALUES (8, 'NaN');
