#!/bin/bash
# usage: run-maria.sh NAME SETUP STREAM [extra properties...]
set -e
cd "$(dirname "$0")"; mkdir -p out
name=$1 setup=$2 stream=$3; shift 3
d=$(mktemp -d /tmp/dbz-my.XXXX); chown mysql $d
port=$((20000 + RANDOM % 20000))
mariadb-install-db --no-defaults --user=mysql --datadir=$d/data --auth-root-authentication-method=normal > $d/install.log 2>&1
nice -n 19 mariadbd --no-defaults --user=mysql --datadir=$d/data --socket=$d/s --port=$port --bind-address=127.0.0.1 --log-bin=mariadb-bin --binlog-format=ROW --binlog-row-image=FULL --binlog-annotate-row-events=1 --server-id=184 --pid-file=$d/pid > $d/log 2>&1 &
m=$!
trap "kill $m; wait $m; rm -rf $d" EXIT
M="mariadb -u root -S $d/s"
for i in $(seq 100); do $M -e 'select 1' >/dev/null 2>&1 && break; sleep 0.2; done
$M --default-character-set=utf8mb4 < $setup
$M -e "create user dbz@'%' identified by 'x'; grant all on *.* to dbz@'%'; create user dbz@localhost identified by 'x'; grant all on *.* to dbz@localhost;"
cat > $d/p.properties <<C
name=engine
connector.class=io.debezium.connector.mariadb.MariaDbConnector
offset.storage=org.apache.kafka.connect.storage.MemoryOffsetBackingStore
offset.flush.interval.ms=0
schema.history.internal=io.debezium.relational.history.MemorySchemaHistory
database.hostname=127.0.0.1
database.port=$port
database.user=dbz
database.password=x
database.server.id=5400
topic.prefix=dbz
database.include.list=shop
snapshot.mode=initial
skipped.operations=none
include.query=true
include.schema.changes=false
poll.interval.ms=50
C
for x in "$@"; do echo "$x" >> $d/p.properties; done
rm -f out/$name.raw
nice -n 10 java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "lib/*:." Capture $d/p.properties out/$name.raw $d/ready 6 > out/$name.log 2>&1 &
j=$!
for i in $(seq 200); do
  n=$($M -N -e "select count(*) from information_schema.processlist where command like 'Binlog Dump%'" || true)
  [ "$n" = 1 ] && break; sleep 0.3; kill -0 $j || break
done
$M --default-character-set=utf8mb4 < $stream
touch $d/ready
wait $j || echo "rc $?"
wc -l out/$name.raw
