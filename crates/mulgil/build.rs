//! Has the linker pack the program's relocations where this machine's C library can read them so (glibc 2.36): they are 8 MB otherwise,
//! which every start reads and keeps resident. A machine with an older one refuses a program that was linked so by name.

use std::process::Command;

const PACKED_SINCE: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name| std::env::var(name).unwrap_or_default();
    let is_for_here = var("TARGET") == var("HOST") && var("CARGO_CFG_TARGET_ENV") == "gnu" && var("CARGO_CFG_TARGET_OS") == "linux";
    if is_for_here && glibc().is_some_and(|version| version >= PACKED_SINCE) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// `getconf` answers `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?.stdout;
    let (major, minor) = std::str::from_utf8(&said).ok()?.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
