//! Checks that passed and failed, and the closing line that sums them.

use anyhow::Result;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub n_passed: u64,
    pub n_failed: u64,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.n_passed += other.n_passed;
        self.n_failed += other.n_failed;
    }

    /// Counts one named check and prints its line; a failure's reason follows, indented.
    pub fn check(&mut self, name: &str, outcome: Result<String>) {
        match outcome {
            Ok(detail) => {
                self.n_passed += 1;
                println!("{}", format!("ok    {name:<44} {detail}").trim_end());
            }
            Err(error) => {
                self.n_failed += 1;
                println!("FAIL  {name}");
                format!("{error:#}").lines().for_each(|l| println!("      {l}"));
            }
        }
    }

    /// The line CI looks for.
    pub fn close(&self) {
        println!("\n{} passed, {} failed", self.n_passed, self.n_failed);
    }
}
