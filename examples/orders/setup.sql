-- What a MySQL 8 or MariaDB 10.5+ server needs for examples/orders/mulgil.toml. Run it as an administrator:
--     mariadb < setup.sql        (then: ALTER USER 'mulgil'@'%' IDENTIFIED BY '…';)
-- The server must write a row binlog: log_bin, binlog_format = ROW; binlog_row_image = FULL and binlog_row_metadata = FULL are better.
-- `mulgil check -c mulgil.toml` names whatever is still missing.

CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4;

CREATE TABLE IF NOT EXISTS shop.orders (
    order_id   bigint        NOT NULL AUTO_INCREMENT PRIMARY KEY,
    user_id    bigint        NOT NULL,
    symbol     varchar(20)   NOT NULL,
    order_type enum('BUY','SELL') NOT NULL,
    quantity   int           NOT NULL,
    price      decimal(15,2) NOT NULL,
    status     enum('PENDING','FILLED','CANCELLED','PARTIAL') NOT NULL DEFAULT 'PENDING',
    created_at datetime(3)   NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    updated_at datetime(3)   NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)
);

CREATE TABLE IF NOT EXISTS shop.order_executions (
    execution_id   bigint        NOT NULL AUTO_INCREMENT PRIMARY KEY,
    order_id       bigint        NOT NULL,
    executed_qty   int           NOT NULL,
    executed_price decimal(15,2) NOT NULL,
    executed_at    datetime(3)   NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
    FOREIGN KEY (order_id) REFERENCES shop.orders (order_id)
);

-- The account may read these two tables, follow the binlog and ask where it ends: nothing else.
CREATE USER IF NOT EXISTS 'mulgil'@'%' IDENTIFIED BY 'change me';
GRANT SELECT ON shop.orders TO 'mulgil'@'%';
GRANT SELECT ON shop.order_executions TO 'mulgil'@'%';
-- Only for allow_generate = true, on a server for trying things out:
--     GRANT SELECT, INSERT, UPDATE, DELETE ON shop.orders TO 'mulgil'@'%'; GRANT INSERT ON shop.order_executions TO 'mulgil'@'%';
GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'mulgil'@'%';
