-- What mysql-9.7-payload.binlog holds: partial JSON, compressed transactions, tagged GTIDs; mysql-9.7-payload.txt is what SELECT said in the end.
CREATE DATABASE docs; USE docs;
SET NAMES utf8mb4; SET SESSION binlog_row_value_options = 'PARTIAL_JSON'; SET SESSION binlog_transaction_compression = ON;
CREATE TABLE d (id INT PRIMARY KEY, a JSON, b JSON, n INT UNSIGNED, t TEXT);
INSERT INTO d VALUES (1, '{"name": "물길", "price": 10.5, "tags": ["a", "b", "c"], "deep": {"x": {"y": [1, 2, {"z": "zzzzzzzzzzzzzzzzzzzz"}]}}, "key with \\"quotes\\" and space": 1}', '[1, 2, 3]', 4000000000, REPEAT('t', 500)), (2, '{"k": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}', NULL, 1, 'x');
UPDATE d SET a = JSON_SET(a, '$.price', 11) WHERE id = 1;
UPDATE d SET a = JSON_SET(a, '$.deep.x.y[2].z', 'short') WHERE id = 1;
UPDATE d SET a = JSON_REPLACE(a, '$.name', '강'), b = JSON_SET(b, '$[1]', 22), n = 7 WHERE id = 1;
UPDATE d SET a = JSON_REMOVE(a, '$.tags[1]', '$.deep.x.y[0]') WHERE id = 1;
UPDATE d SET a = JSON_SET(a, '$."key with \\"quotes\\" and space"', 2) WHERE id = 1;
UPDATE d SET a = JSON_SET(a, '$.k', 'b') WHERE id = 2;
UPDATE d SET a = JSON_SET(a, '$.added', CAST('1.50' AS DECIMAL(10,2))), b = '[9]' WHERE id = 2;
UPDATE d SET a = JSON_SET(a, '$.price', 12.25, '$.tags', JSON_ARRAY()) WHERE id = 1;
SET SESSION gtid_next = 'AUTOMATIC:blue';
BEGIN; INSERT INTO d VALUES (3, '1', '2', 3, 'tagged'); UPDATE d SET n = 4 WHERE id = 3; DELETE FROM d WHERE id = 3; INSERT INTO d VALUES (4, '{}', '[]', 0, ''); COMMIT;
SET SESSION gtid_next = 'AUTOMATIC'; SET SESSION binlog_row_image = 'MINIMAL'; SET SESSION binlog_transaction_compression = OFF;
UPDATE d SET n = 5 WHERE id = 4;
