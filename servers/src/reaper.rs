//! Ends a server and removes its folder when the process that started it is gone, however it went: a test that is killed runs no `drop`.
//!
//! A shell waits at the end of a pipe whose other end is ours. It reads which process is the server now; when the pipe closes without a
//! word that all is tidied up, it does that itself.

use anyhow::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// The children of a killed PostgreSQL notice by themselves that it is gone, and may write until then: hence the second look.
const SCRIPT: &str = r#"
last=0
while read -r pid; do last=$pid; done
[ "$last" = done ] && exit 0
[ "$last" = 0 ] || kill -9 "$last" 2>/dev/null
rm -rf -- "$1" 2>/dev/null
sleep 2
rm -rf -- "$1"
"#;

pub struct Reaper {
    shell: Child,
    /// `None`: told that there is nothing left to do.
    pipe: Option<ChildStdin>,
}

impl Reaper {
    pub fn start(folder: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "reaper"]).arg(folder).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut shell = command.spawn().context("start sh")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Which process is to be ended; 0: none.
    pub fn watch(&mut self, pid: u32) -> Result<()> {
        let pipe = self.pipe.as_mut().context("the reaper was dismissed")?;
        writeln!(pipe, "{pid}").context("tell the reaper which server to watch")
    }

    /// Everything is tidied up.
    pub fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            writeln!(pipe, "done").ok();
        }
        self.shell.wait().ok();
    }
}
