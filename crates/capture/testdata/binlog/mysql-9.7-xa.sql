-- How mysql-9.7-xa.binlog was made: MySQL 9.7.4, gtid_mode=ON, binlog_row_metadata=FULL, binlog_rows_query_log_events=ON; each line a session.
create database t; create table t.x(id int primary key, v text); XA START 'a'; INSERT INTO t.x VALUES (1,'a'); SAVEPOINT s; INSERT INTO t.x VALUES(2,'b'); ROLLBACK TO s; XA END 'a'; XA PREPARE 'a'
XA COMMIT 'a'
XA START 'one'; INSERT INTO t.x VALUES (8, 'one phase'); XA END 'one'; XA COMMIT 'one' ONE PHASE
XA START 'e'; SELECT * FROM t.x; XA END 'e'; XA PREPARE 'e'
XA COMMIT 'e'
XA START 'e2'; XA END 'e2'; XA PREPARE 'e2'
XA ROLLBACK 'e2'
set binlog_transaction_compression=ON; XA START 'c'; INSERT INTO t.x SELECT 100+help_topic_id, repeat('x',50) from mysql.help_topic limit 20; XA END 'c'; XA PREPARE 'c'
XA ROLLBACK 'c'
FLUSH BINARY LOGS
