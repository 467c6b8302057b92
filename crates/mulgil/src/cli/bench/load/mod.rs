//! The load that measurements put on a server, from a process of its own: trades posted at a steady rate, and clients that cost so little
//! that they are not what is measured.

pub mod poster;
pub mod socket;
pub mod trades;

/// CPU seconds that a process has used so far, in user and kernel together.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    use anyhow::Context as _;
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name, in brackets, may hold spaces; user and kernel ticks are the 12th and 13th field behind it.
    let behind = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<f64> = behind.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    anyhow::ensure!(ticks.len() == 2, "{path} is not as expected");
    // 100 ticks a second on every Linux that we run on (USER_HZ).
    Ok((ticks[0] + ticks[1]) / 100.0)
}
