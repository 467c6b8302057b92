//! What libFuzzer prints, read.

/// What libFuzzer said about a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    n_executions: u64,
    /// Edges of the workspace's crates that were taken.
    n_edges: u64,
    n_inputs: u64,
    /// The file of the input that broke something.
    pub artifact: Option<String>,
    /// What broke, in the words of the target or of libFuzzer.
    pub finding: String,
    /// That input itself where it is short enough for a log: CI's files may be gone when somebody looks.
    pub base64: Option<String>,
}

impl Report {
    pub fn of(said: &str) -> Self {
        let lines = said.lines().skip_while(|l| !is_finding(l)).take_while(|l| !l.starts_with("NOTE:"));
        let mut report = Self { finding: lines.take(FINDING_LINES_MAX).collect::<Vec<_>>().join("\n"), ..Self::default() };
        for line in said.lines() {
            let after = |name: &str| line.split_once(name).and_then(|(_, rest)| rest.trim_start().split([' ', '/']).next());
            let number = |name: &str| after(name).and_then(|word| word.parse().ok());
            if let Some(counted) = line.strip_prefix('#') {
                let n_done = counted.split(['\t', ' ', ':']).next().and_then(|n| n.parse().ok());
                report.n_executions = n_done.unwrap_or(report.n_executions);
                report.n_edges = number("cov:").unwrap_or(report.n_edges);
                report.n_inputs = number("corp:").unwrap_or(report.n_inputs);
            }
            report.artifact = line.split_once("Test unit written to ").map(|(_, path)| path.trim().to_owned()).or(report.artifact);
            report.base64 = line.strip_prefix("Base64: ").map(|text| text.trim().to_owned()).or(report.base64);
        }
        report
    }

    pub fn line(&self) -> String {
        format!("{:>9} executions  {:>6} edges  {:>5} inputs", self.n_executions, self.n_edges, self.n_inputs)
    }
}

/// Lines of a finding that say what it is; behind them stand addresses.
const FINDING_LINES_MAX: usize = 12;

fn is_finding(line: &str) -> bool {
    line.starts_with("FINDING")
        || line.starts_with("==")
        || line.starts_with("memory allocation of")
        || line.contains("has overflowed its stack")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read() {
        let said = "INFO: Seed: 1\n#2\tINITED cov: 9 ft: 9 corp: 1/1b\n#28085\tDONE   cov: 236 ft: 298 corp: 10/33b lim: 254 exec/s: 2553 rss: 57Mb\n";
        assert_eq!(Report::of(said), Report { n_executions: 28_085, n_edges: 236, n_inputs: 10, ..Report::default() });
        let crash = "#7\tNEW    cov: 3 ft: 1 corp: 2/9b\n\nFINDING json: it broke\n==7== ERROR: libFuzzer: deadly signal\nNOTE: x\nartifact_prefix='/x/'; Test unit written to /x/crash-1\nBase64: YQ==\n";
        let report = Report::of(crash);
        assert_eq!((report.artifact.as_deref(), report.base64.as_deref()), (Some("/x/crash-1"), Some("YQ==")));
        assert_eq!(report.finding, "FINDING json: it broke\n==7== ERROR: libFuzzer: deadly signal");
    }
}
