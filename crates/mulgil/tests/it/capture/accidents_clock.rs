//! The clock of mulgil's machine jumps, by days and in both directions, while a database is captured: changes come once and in order, and what
//! seems to be of the future is kept with its reason.

use super::accident::{Accident, MARIADB, POSTGRES, mariadb, postgres};
use crate::program::{Server, file, ok, text, until};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Before the C library's: the wall clock with so many seconds on it as a file has.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *seconds;

__attribute__((constructor)) static void open_file(void) {
    void *page = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, open(getenv("TEST_CLOCK"), O_RDONLY), 0);
    if (page == MAP_FAILED) abort();
    seconds = page;
}

int clock_gettime(clockid_t id, struct timespec *out) {
    int failed = syscall(SYS_clock_gettime, id, out);
    if (!failed && seconds && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec += *seconds;
    return failed;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"#;

const DAY: i64 = 86_400;

/// The clock of the processes that are started with it.
struct Clock {
    shim: PathBuf,
    path: PathBuf,
    seconds: File,
}

impl Clock {
    fn new(dir: &Path) -> Self {
        let (source, shim, path) = (file(dir, "clock.c", SHIM), dir.join("clock.so"), dir.join("clock"));
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o", text(&shim), text(&source)]).status().unwrap();
        assert!(made.success(), "cc makes a library");
        let seconds = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
        let clock = Self { shim, path, seconds };
        clock.set(0);
        clock
    }

    fn set(&self, seconds: i64) {
        self.seconds.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    fn start(&self, accident: &Accident) -> Server {
        let world = &accident.world;
        let env = [("DATABASE_URL", world.url.as_str()), ("LD_PRELOAD", text(&self.shim)), ("TEST_CLOCK", text(&self.path))];
        Server::start_with(&world.config, &world.data(), &[], &env)
    }
}

#[test]
fn clock_jumps_under_postgres() {
    let accident = postgres(&POSTGRES, "clock_jumps", &rows_of("public.t"));
    clock_jumps(&accident, |sql| drop(POSTGRES.sql_in("clock_jumps", sql).unwrap()));
}

#[test]
fn clock_jumps_under_mariadb() {
    let accident = mariadb(&MARIADB, "clock_jumps", &rows_of("clock_jumps.t"));
    clock_jumps(&accident, |sql| drop(MARIADB.sql_in("clock_jumps", sql).unwrap()));
}

/// Rows of the time at which the database committed them.
fn rows_of(table: &str) -> String {
    format!(
        "\n[stream.rows]\nfrom = \"exchange.{table}\"\nchanges = \"inserts\"\nkind = \"plain\"\npartitions = 1\nkey = \"id\"\nevent_time = \"committed\"\n\
         columns = {{ committed = \"@committed\" }}\ntypes = {{ id = \"text\", committed = \"timestamp\", v = \"text?\" }}\n"
    )
}

fn clock_jumps(accident: &Accident, sql: impl Fn(&str)) {
    let world = &accident.world;
    let clock = Clock::new(world.dir.path());
    let insert = |id: usize, seen: &str| {
        sql(&format!("INSERT INTO t VALUES ({id}, 'x')"));
        accident.until_seen(seen);
    };
    let running = clock.start(accident);
    accident.until_seen("r1");
    insert(2, "r1 c2");
    clock.set(DAY);
    insert(3, "r1 c2 c3");
    clock.set(-DAY);
    insert(4, "r1 c2 c3 c4");
    // It comes back into a time before all that it has written.
    running.kill();
    let running = clock.start(accident);
    insert(5, "r1 c2 c3 c4 c5");
    clock.set(2 * DAY);
    insert(6, "r1 c2 c3 c4 c5 c6");
    running.kill();
    clock.set(0);
    let running = clock.start(accident);
    insert(7, "r1 c2 c3 c4 c5 c6 c7");
    let ids = |topic: &str| world.cat(topic).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ");
    until("the rows that are not of the future", || (ids("rows") == "1 2 3 6 7").then_some(()));
    running.stop();
    let place = ["-c", text(&world.config), "--data", text(&world.data)];
    let ask = |words: &[&str]| ok(&[words, &place[..]].concat());
    let listed = ask(&["dlq", "list"]);
    assert_eq!(listed.matches("in the future of its receipt").count(), 2, "{listed}");
    // Which they are no longer.
    ask(&["dlq", "replay"]);
    assert_eq!(ids("rows"), "1 2 3 6 7 4 5");
    ask(&["log", "verify"]);
}
