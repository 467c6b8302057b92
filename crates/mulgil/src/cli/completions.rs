//! `mulgil completions`

use super::Cli;
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For example: `mulgil completions bash > /etc/bash_completion.d/mulgil`
    shell: Shell,
}

pub fn completions(args: &CompletionsArgs) -> Result<()> {
    clap_complete::generate(args.shell, &mut Cli::command(), "mulgil", &mut std::io::stdout());
    Ok(())
}
