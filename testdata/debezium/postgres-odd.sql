CREATE TABLE odd_values (id integer PRIMARY KEY, n numeric, n5_2 numeric(5,2), f4 real, f8 double precision, d date, ts timestamp, tstz timestamptz, ts3 timestamp(3), iv interval);
