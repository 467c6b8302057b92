//! The fuzzer of one target, which `MULGIL_FUZZ_TARGET` names; everything else are libFuzzer's own flags and folders.
//! It must never know a target: they are the library's, and the suite runs them too.
//!
//! `MULGIL_FUZZ_TARGET=list` prints the names of all targets. Before it starts, the fuzzer writes the target's seeds into the folder that
//! `MULGIL_FUZZ_SEEDS` names.

#![no_main]
#![allow(unsafe_code, clippy::print_stdout, clippy::print_stderr)]

use mulgil_fuzz::memory::Counting;
use mulgil_fuzz::{TARGETS, Target, runner, target};
use std::sync::LazyLock;

#[global_allocator]
static MEMORY: Counting = Counting;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("MULGIL_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        TARGETS.iter().for_each(|t| println!("{}", t.name));
        std::process::exit(if name == "list" { 0 } else { 2 })
    })
});

fn write_seeds() {
    let target = *TARGET;
    let Some(folder) = std::env::var_os("MULGIL_FUZZ_SEEDS").map(std::path::PathBuf::from) else { return };
    for (i, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{i}")), seed).expect("the folder for seeds can be written");
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |input: &[u8]| {
    if let Err(what) = runner::run(*TARGET, input) {
        eprintln!("\nFINDING {}: {what}", TARGET.name);
        std::process::abort();
    }
});
