//! Every seed, every input of the committed corpora and every input that once broke something, through its target.
#![allow(clippy::unwrap_used)]

use mulgil_fuzz::memory::{Counting, HARD_LIMIT_BYTES};
use mulgil_fuzz::{TARGETS, Target, runner, target};
use std::path::{Path, PathBuf};

#[global_allocator]
static MEMORY: Counting = Counting;

/// All committed inputs together.
const CORPUS_BYTES_MAX: u64 = 2_000_000;

fn files(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(folder).join(target);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// One test, so that nothing else takes memory while an input is measured.
#[test]
fn every_known_input_keeps_its_property() {
    let mut broken = Vec::new();
    for target in &TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (i, seed) in seeds.iter().enumerate() {
            broken.extend(runner::run(target, seed).err().map(|e| format!("{} seed {i}: {e}", target.name)));
        }
        for file in files("corpus", target.name).into_iter().chain(files("regressions", target.name)) {
            let input = std::fs::read(&file).unwrap();
            broken.extend(runner::run(target, &input).err().map(|e| format!("{}: {e}", file.display())));
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    a_broken_property_is_told();
}

fn a_broken_property_is_told() {
    let probe = |run: fn(&[u8])| Target { run, ..*target("values").unwrap() };
    let told = |run: fn(&[u8])| runner::run(&probe(run), b"x").unwrap_err();
    assert!(told(|_| assert_eq!(1, 2, "one is not two")).contains("one is not two"));
    let grasping = told(|_| drop(std::hint::black_box(vec![0u8; 100 << 20])));
    assert!(grasping.contains("an input of 1 bytes took 1048"), "{grasping}");
    let mut refused = Vec::<u8>::new();
    assert!(refused.try_reserve(2 * HARD_LIMIT_BYTES).is_err(), "the allocator refuses what no machine should give");
}

#[test]
fn corpora_belong_to_targets_and_stay_small() {
    let mut bytes = 0;
    for folder in ["corpus", "regressions"] {
        let Ok(entries) = std::fs::read_dir(Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(folder)) else { continue };
        for name in entries.map(|e| e.unwrap().file_name().into_string().unwrap()) {
            assert!(target(&name).is_some(), "{folder}/{name} belongs to no target");
            bytes += files(folder, &name).iter().map(|f| f.metadata().unwrap().len()).sum::<u64>();
        }
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes of corpora: minimise them with `cargo xtask fuzz --keep`");
}
