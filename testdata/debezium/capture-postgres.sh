#!/bin/bash
# usage: run-pg.sh NAME SETUP STREAM [extra properties...]
set -e
cd "$(dirname "$0")"; mkdir -p out
name=$1 setup=$2 stream=$3; shift 3
d=$(mktemp -d /tmp/dbz-pg.XXXX); chown postgres $d
port=$((20000 + RANDOM % 20000))
B=/usr/lib/postgresql/15/bin
runuser -u postgres -- $B/initdb -D $d/data -E UTF8 --locale=C.UTF-8 -A trust >/dev/null
cat >> $d/data/postgresql.conf <<C
wal_level=logical
fsync=off
timezone='UTC'
unix_socket_directories='$d'
listen_addresses='127.0.0.1'
port=$port
C
runuser -u postgres -- nice -n 19 $B/pg_ctl -D $d/data -w -l $d/log start >/dev/null
trap "runuser -u postgres -- $B/pg_ctl -D $d/data -m immediate stop >/dev/null; rm -rf $d" EXIT
P="psql -q -h 127.0.0.1 -p $port -U postgres -v ON_ERROR_STOP=1"
$P -d postgres -c 'create database market'
$P -d market -f $setup
cat > $d/p.properties <<C
name=engine
connector.class=io.debezium.connector.postgresql.PostgresConnector
offset.storage=org.apache.kafka.connect.storage.MemoryOffsetBackingStore
offset.flush.interval.ms=0
database.hostname=127.0.0.1
database.port=$port
database.user=postgres
database.password=x
database.dbname=market
topic.prefix=dbz
plugin.name=pgoutput
snapshot.mode=initial
skipped.operations=none
poll.interval.ms=50
C
for x in "$@"; do echo "$x" >> $d/p.properties; done
chmod -R a+rX $d/p.properties; rm -f out/$name.raw
nice -n 10 java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "lib/*:." Capture $d/p.properties out/$name.raw $d/ready 6 > out/$name.log 2>&1 &
j=$!
for i in $(seq 200); do
  n=$($P -d market -At -c "select count(*) from pg_replication_slots where active" || true)
  [ "$n" = 1 ] && break; sleep 0.3; kill -0 $j || break
done
$P -d market -f $stream
$P -d market -At -c "select * from pg_class limit 0"
touch $d/ready
wait $j || echo "rc $?"
wc -l out/$name.raw
