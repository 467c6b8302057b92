//! One flipped bit somewhere on the disk: the program must refuse and name the file, or nothing of what it says may change.

use crate::hands::Hands;
use crate::mirror::Mirror;
use crate::past;
use crate::program::Program;
use crate::random::Random;
use crate::scenario::{DATA, Scenario};
use anyhow::{Context, Result, ensure};
use mulgil::pipeline::plan::Plan;
use mulgil_disk::MemDisk;
use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Flip {
    path: PathBuf,
    byte: u64,
    bit: u8,
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bit {} of byte {} of {} flips", self.bit, self.byte, self.path.display())
    }
}

/// A bit of a file of the journal or the history. The state's store is another library's, and has sums of its own. Of the journal's last
/// file the last write is left out: after a power cut nobody can tell damage to it from a write that was torn.
pub fn choose(disk: &MemDisk, r: &mut Random) -> Option<Flip> {
    let ours = |path: &Path| ["journal", "history"].iter().any(|dir| path.starts_with(Path::new(DATA).join(dir)));
    let files: Vec<_> = disk.files().into_iter().filter(|(path, size, _)| *size > 0 && ours(path)).collect();
    let last = files.iter().filter(|(path, ..)| path.extension().is_some_and(|e| e == "log")).map(|(path, ..)| path.clone()).max();
    let choices: Vec<(PathBuf, u64)> = files
        .into_iter()
        .map(|(path, size, last_append)| if Some(&path) == last.as_ref() { (path, last_append) } else { (path, size) })
        .filter(|(_, size)| *size > 0)
        .collect();
    if choices.is_empty() {
        return None;
    }
    let (path, size) = choices[r.below(choices.len() as u64) as usize].clone();
    Some(Flip { path, byte: r.below(size), bit: r.below(8) as u8 })
}

/// What the program says about a copy with the flip: refused, with words that name the file, or unharmed.
pub fn try_out(disk: &MemDisk, flip: &Flip, scenario: &Scenario, plan: &Plan) -> Result<String> {
    let before = look(&disk.copy(), scenario, plan)?;
    let Look::Read(before) = before else { return Ok("not tried, the disk does not open as it is".to_owned()) };
    let copy = disk.copy();
    copy.flip_bit(&flip.path, flip.byte, flip.bit)?;
    match look(&copy, scenario, plan)? {
        Look::Refused(said) => {
            let name = flip.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stem = flip.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            ensure!(said.contains(&name) || said.contains(&stem), "refused, but the words do not name {name}: {said}");
            Ok(format!("refused: {said}"))
        }
        Look::Read(after) => {
            ensure!(before.log == after.log, "read without a word, and what the log says has changed");
            ensure!(before.past == after.past, "read without a word, and what the history says has changed");
            Ok("unharmed".to_owned())
        }
    }
}

enum Look {
    Refused(String),
    Read(Box<Seen>),
}

struct Seen {
    log: String,
    past: past::Held,
}

/// Opens the disk and reads all of it.
fn look(disk: &MemDisk, scenario: &Scenario, plan: &Plan) -> Result<Look> {
    let program = match Program::start(disk, scenario, &Hands::new()) {
        Ok(program) => program,
        Err(error) => return Ok(Look::Refused(format!("{error:#}"))),
    };
    let verified = program.folder.journal.verify(&mut |_| {})?;
    if let Some(damage) = verified.damage.first() {
        return Ok(Look::Refused(format!("{} byte {}: {}", damage.file.display(), damage.byte, damage.reason)));
    }
    let mut mirror = Mirror::default();
    if let Err(error) = mirror.compare(&program.folder.journal) {
        return Ok(Look::Refused(format!("{error:#}")));
    }
    let history = program.folder.history.verify()?;
    if let Some(problem) = history.problems.first() {
        return Ok(Look::Refused(problem.clone()));
    }
    let log = format!("{:?}", mirror.topics().collect::<Vec<_>>());
    // The archivist may have opened it, but nothing was flushed: the files are as they were.
    let read = past::read(disk, &Path::new(DATA).join("history"), plan);
    let (past, _) = read.context("the program finds nothing wrong with the history, but it cannot be read")?;
    Ok(Look::Read(Box::new(Seen { log, past })))
}
