//! `mulgil init`

use crate::config::STOCKS;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to write it.
    #[arg(default_value = "mulgil.toml")]
    file: PathBuf,
}

pub fn init(args: &InitArgs) -> Result<()> {
    let file = args.file.display();
    if args.file.exists() {
        bail!("{file} exists already: move it away, or name another file");
    }
    std::fs::write(&args.file, STOCKS).with_context(|| format!("cannot write {file}"))?;
    println!("wrote {file}\n\n  mulgil check -c {file}      to have it read back\n  mulgil run -c {file}        to run it");
    Ok(())
}
