//! `mulgil version`

use anyhow::Result;

pub fn version() -> Result<()> {
    println!("mulgil {} ({}-{})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS);
    Ok(())
}
