//! The world around the program: it decides from the seed who takes the next step and what goes wrong, and compares what the program says
//! with what the world knows.

use crate::hands::Hands;
use crate::market::Market;
use crate::mirror::Mirror;
use crate::oracle::Oracle;
use crate::program::Program;
use crate::random::Random;
use crate::scenario::{DATA, Scenario};
use crate::source::{Done, Player, Poster};
use crate::trace::Trace;
use crate::viewer::{Lost, Viewer};
use crate::{damage, past, reference};
use anyhow::{Context, Result, bail, ensure};
use mulgil::pipeline::plan::Plan;
use mulgil_disk::{Crash, Fault, MemDisk, Op};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::DEAD_LETTERS;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// Restarts that may fail one after the other before somebody looks after the machine.
const RESTARTS_MAX: u64 = 20;

/// What a run amounted to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub n_rows: usize,
    pub n_crashes: u64,
    pub n_refused_starts: u64,
    pub n_struck: u64,
    pub n_full: u64,
    pub n_flips: u64,
    pub n_flips_refused: u64,
    pub n_derived: usize,
    pub n_past: usize,
    pub n_viewed: u64,
    pub n_resumed: u64,
    /// Operations of the disk that changed something, before the end began.
    pub n_ops: u64,
    pub digest: (u64, u64),
}

pub struct World {
    scenario: Scenario,
    disk: MemDisk,
    hands: Hands,
    pub trace: Trace,
    r: Random,
    /// Microseconds that each operation of the disk takes at present.
    delay_us: Arc<AtomicU64>,
    oracle: Oracle,
    mirror: Mirror,
    inputs: BTreeMap<TopicPartition, Option<Arc<StreamSchema>>>,
    plan: Plan,
    market: Market,
    posters: Vec<Poster>,
    player: Player,
    viewers: Vec<Viewer>,
    program: Option<Program>,
    /// Faults that had struck when the program was started.
    struck_before: u64,
    is_full: bool,
    n_failed_starts: u64,
    outcome: Outcome,
    _files: TempDir,
}

impl World {
    pub fn new(scenario: Scenario, trace: Trace) -> Result<Self> {
        let mut r = Random::new(scenario.seed ^ 0x5157);
        let (disk, hands, files) = (MemDisk::new(r.next()), Hands::new(), TempDir::new()?);
        let plan = Plan::new(&scenario.config()?)?;
        let delay_us = Arc::new(AtomicU64::new(20));
        let (delay, passing, told) = (Arc::clone(&delay_us), hands.clone(), trace.clone());
        disk.watch(Arc::new(move |op, path| {
            passing.pass(delay.load(Ordering::Relaxed));
            if op != Op::Open && op != Op::Read {
                told.say(&format!("    disk: {op:?} {}", path.display()));
            }
        }));
        let posters = (0..scenario.n_posters).map(Poster::new).collect();
        let player = Player::new(files.path(), scenario.file_rows, &mut r.fork())?;
        let viewers = (0..scenario.n_viewers).map(|_| Viewer::new(&mut r)).collect();
        Ok(Self {
            inputs: inputs(&plan)?,
            plan,
            scenario,
            disk,
            hands,
            trace,
            r,
            delay_us,
            oracle: Oracle::default(),
            mirror: Mirror::default(),
            market: Market::new(),
            posters,
            player,
            viewers,
            program: None,
            struck_before: 0,
            is_full: false,
            n_failed_starts: 0,
            outcome: Outcome::default(),
            _files: files,
        })
    }

    /// Crashes at the `nth` operation that changes something.
    pub fn crash_at(&self, nth: u64, how: Crash, half_done: bool) {
        self.disk.plan(|faults| faults.at_change(nth, Fault::Crash { how, half_done }));
    }

    pub fn run(mut self) -> Result<Outcome> {
        for step in 0..self.scenario.n_steps {
            self.trace.say(&format!("step {step} at {}", self.hands.wall_us()));
            self.step().with_context(|| format!("in step {step}"))?;
        }
        self.outcome.n_ops = self.disk.n_ops().0;
        self.trace.say("the end: everything works again and is brought to its end");
        self.settle().context("at the end")?;
        self.outcome.n_rows = self.mirror.n_rows();
        self.outcome.n_struck = self.disk.n_struck();
        self.outcome.digest = self.trace.digest();
        Ok(self.outcome)
    }

    fn step(&mut self) -> Result<()> {
        let pause_us = self.r.pick(&[10, 1_000, 50_000, 700_000]);
        self.hands.pass(pause_us);
        self.misfortune()?;
        let Some(mut program) = self.program.take() else { return self.start() };
        let result = self.act(&mut program);
        let down = self.disk.is_down();
        match result {
            Ok(()) if !down => {
                self.program = Some(program);
                Ok(())
            }
            Ok(()) => self.died(program, "the machine stopped"),
            Err(Failure::Program(error)) => {
                self.excused(&format!("{error:#}"))?;
                self.died(program, &format!("{error:#}"))
            }
            Err(Failure::Proof(error)) => Err(error),
        }
    }

    /// A program that fails needs a reason: an injected fault since its start, or a full disk.
    fn excused(&self, said: &str) -> Result<()> {
        let excused = self.disk.is_down() || self.disk.n_struck() > self.struck_before || self.is_full;
        ensure!(excused, "the program failed although nothing was done to it: {said}");
        Ok(())
    }

    fn died(&mut self, program: Program, why: &str) -> Result<()> {
        self.outcome.n_crashes += 1;
        self.trace.say(&format!("  died: {why}"));
        self.viewers.iter_mut().for_each(Viewer::disconnect);
        self.player.program_died();
        if !self.disk.is_down() && self.r.percent(50) {
            // The other parts are told to stop, and do it in order as far as they can.
            if let Err(error) = program.end() {
                self.trace.say(&format!("  and could not end in order: {error:#}"));
            }
            return Ok(());
        }
        let how = self.how();
        program.kill(&self.disk, how);
        Ok(())
    }

    /// Told to end, or stopped by force.
    fn stop(&mut self, how: Option<Crash>) -> Result<()> {
        let Some(program) = self.program.take() else { return Ok(()) };
        self.trace.say(&format!("  stopped from outside: {how:?}"));
        self.viewers.iter_mut().for_each(Viewer::disconnect);
        self.player.program_died();
        self.outcome.n_crashes += 1;
        let Some(how) = how else {
            let ended = program.end();
            return ended.or_else(|error| self.excused(&format!("{error:#}")));
        };
        program.kill(&self.disk, how);
        Ok(())
    }

    fn how(&mut self) -> Crash {
        self.r.pick(&[Crash::DropUnsynced, Crash::TearUnsynced, Crash::KeepUnsynced])
    }

    /// What goes wrong from outside.
    fn misfortune(&mut self) -> Result<()> {
        let faults = self.scenario.faults;
        let how = self.how();
        let r = &mut self.r;
        if r.percent(faults.crash) {
            if r.percent(50) {
                let in_order = r.percent(30);
                self.stop(if in_order { None } else { Some(how) })?;
            } else {
                let (nth, half_done) = (r.below(30), r.percent(50));
                self.disk.plan(|f| f.at_change(nth, Fault::Crash { how, half_done }));
            }
        }
        let r = &mut self.r;
        if r.percent(faults.fail) {
            let (nth, half_done) = (r.below(40), r.percent(50));
            self.disk.plan(|f| f.at_change(nth, Fault::Fail { half_done }));
        }
        if r.percent(faults.fail_read) {
            let (nth, fault) = (r.below(40), r.pick(&[Fault::Fail { half_done: false }, Fault::Short]));
            self.disk.plan(|f| f.at_read(nth, fault));
        }
        if r.percent(faults.clock_jump) {
            let us = r.between(0, 7_200_000_000) as i64 - 3_600_000_000;
            self.trace.say(&format!("  the clock jumps by {us}"));
            self.hands.jump(us);
        }
        if r.percent(faults.slow) {
            self.delay_us.store(r.pick(&[20, 20, 5_000, 300_000]), Ordering::Relaxed);
        }
        if self.is_full && r.percent(20) {
            self.trace.say("  there is room on the disk again");
            self.disk.set_capacity(None);
            self.is_full = false;
        } else if !self.is_full && r.percent(faults.full) {
            let room = r.below(3_000);
            self.trace.say(&format!("  the disk has room for {room} more bytes"));
            self.disk.set_capacity(Some(self.disk.used_bytes() + room));
            self.is_full = true;
            self.outcome.n_full += 1;
        }
        Ok(())
    }

    fn act(&mut self, program: &mut Program) -> Result<(), Failure> {
        let n_workers = program.n_workers() as u64;
        match self.r.below(100) {
            0..25 => self.post(program)?,
            25..35 => {
                let done = self.player.step(program, &mut self.oracle, self.hands.wall_us()).map_err(Failure::Proof)?;
                self.trace.say(&format!("  file: {done:?}"));
                Failure::of(done)?;
            }
            35..60 => {
                let worker = self.r.below(n_workers) as usize;
                let moved = program.work(worker).map_err(Failure::Program)?;
                self.trace.say(&format!("  shards-{worker}: {moved}"));
            }
            60..68 => {
                let moved = program.archive().map_err(Failure::Program)?;
                self.trace.say(&format!("  history takes {moved} rows"));
            }
            68..72 => program.flush_history().map_err(Failure::Program)?,
            72..74 => program.merge_history().map_err(Failure::Program)?,
            74..76 => self.retain(program)?,
            76..96 => self.view(program)?,
            _ => self.compare(program).map_err(Failure::Proof)?,
        }
        Ok(())
    }

    fn post(&mut self, program: &Program) -> Result<(), Failure> {
        let i = self.r.below(self.posters.len() as u64) as usize;
        let (now, lost) = (self.hands.wall_us(), self.scenario.faults.network);
        let done = self.posters[i].post(program, &mut self.oracle, &mut self.market, now, lost, &mut self.r).map_err(Failure::Proof)?;
        self.trace.say(&format!("  poster {i}: {done:?}"));
        if done == Done::Full && !self.is_full {
            return Err(Failure::Proof(anyhow::anyhow!("a request was told that the disk is full, which it is not")));
        }
        Failure::of(done)
    }

    fn retain(&mut self, program: &mut Program) -> Result<(), Failure> {
        if self.scenario.retention_bytes.is_none() {
            return Ok(());
        }
        // What goes must have been seen before.
        self.compare(program).map_err(Failure::Proof)?;
        let n = program.retain().map_err(Failure::Program)?;
        self.trace.say(&format!("  the log drops {n} segments"));
        Ok(())
    }

    fn view(&mut self, program: &mut Program) -> Result<(), Failure> {
        let i = self.r.below(self.viewers.len() as u64) as usize;
        let retained = self.scenario.retention_bytes.is_some();
        let viewer = &mut self.viewers[i];
        let network = self.scenario.faults.network;
        let lost = if !viewer.is_connected() {
            viewer.connect(program, retained)
        } else if self.r.percent(network / 3) {
            viewer.disconnect();
            Ok(None)
        } else {
            viewer.pull(program, retained)
        };
        let lost = lost.map_err(Failure::Proof)?;
        let n = self.r.below(5);
        let n = viewer.take(n, &program.plan).map_err(Failure::Proof)?;
        self.trace.say(&format!("  viewer {i} takes {n} frames"));
        if let Some(Lost::Refused(message)) = lost {
            self.trace.say(&format!("  viewer {i} is refused: {message}"));
            self.excused(&message).map_err(Failure::Proof)?;
        }
        Ok(())
    }

    /// Where every try of the note about a failed sync fails, too, or the process is killed before, the log needs a restart of the machine
    /// (doubt.rs): whoever looks after it does that.
    fn restart_machine_if_told(&mut self) {
        let shows = self.disk.shows_lost();
        let of_log = |file: &&PathBuf| file.extension().is_some_and(|ending| ending == "log");
        let note = |file: &PathBuf| file.with_file_name("doubtful");
        if shows.iter().filter(of_log).any(|file| !self.disk.has(&note(file))) {
            self.trace.say("  the machine is restarted, too: it shows what a failed sync gave up, and no note of it was left");
            self.disk.crash(Crash::DropUnsynced);
        }
    }

    /// Starts the program on what the disk holds.
    fn start(&mut self) -> Result<()> {
        self.disk.restart();
        self.restart_machine_if_told();
        if self.n_failed_starts > RESTARTS_MAX {
            self.heal();
        }
        if self.r.percent(self.scenario.faults.flip) {
            self.flip()?;
        }
        self.struck_before = self.disk.n_struck();
        if self.r.percent(self.scenario.faults.while_recovering) {
            let (nth, how, half_done) = (self.r.below(12), self.how(), self.r.percent(50));
            let fault = self.r.pick(&[Fault::Crash { how, half_done }, Fault::Fail { half_done }]);
            self.disk.plan(|f| f.at_change(nth, fault));
        }
        match Program::start(&self.disk, &self.scenario, &self.hands) {
            Ok(program) => {
                self.trace.say(&format!("  started; repaired: {:?}", program.folder.repaired));
                self.n_failed_starts = 0;
                if self.disk.is_down() {
                    return self.died(program, "the machine stopped while starting");
                }
                self.compare(&program)?;
                if self.r.percent(30) {
                    self.compare_derived(&program)?;
                }
                self.program = Some(program);
            }
            Err(error) => {
                self.n_failed_starts += 1;
                self.outcome.n_refused_starts += 1;
                self.trace.say(&format!("  does not start: {error:#}"));
                self.excused(&format!("{error:#}"))?;
            }
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.disk.set_capacity(None);
        self.is_full = false;
        self.disk.plan(mulgil_disk::Faults::clear);
        self.delay_us.store(20, Ordering::Relaxed);
        self.disk.restart();
    }

    /// One bit of a copy of the disk flips: whoever opens and reads the copy is told, or reads the same as before.
    fn flip(&mut self) -> Result<()> {
        let Some(flip) = damage::choose(&self.disk, &mut self.r) else { return Ok(()) };
        self.outcome.n_flips += 1;
        let said = damage::try_out(&self.disk, &flip, &self.scenario, &self.plan).with_context(|| format!("{flip}"))?;
        self.trace.say(&format!("  on a copy of the disk, {flip}: {said}"));
        self.outcome.n_flips_refused += u64::from(said.starts_with("refused"));
        Ok(())
    }

    /// Everything in the log is what was seen before and what was sent. What still waits to go wrong strikes nobody who looks: what is in
    /// doubt is settled before anything else happens.
    fn compare(&mut self, program: &Program) -> Result<()> {
        if program.has_stopped() {
            return Ok(());
        }
        self.disk.plan(|f| f.hold(true));
        self.mirror.compare(&program.folder.journal)?;
        self.disk.plan(|f| f.hold(false));
        self.oracle.compare(&self.mirror, &self.inputs)?;
        for name in std::mem::take(&mut self.oracle.found) {
            self.trace.say(&format!("  {name}: was committed although nobody was told"));
            self.posters.iter_mut().for_each(|p| p.found(&name));
            self.player.found(&name);
        }
        self.viewers.iter().try_for_each(|v| v.compare(&self.plan, &self.mirror, false))
    }

    fn compare_derived(&mut self, program: &Program) -> Result<()> {
        self.disk.plan(|f| f.hold(true));
        self.outcome.n_derived = reference::compare(&program.config, &program.plan, &self.mirror, &*program.folder.journal)?;
        self.disk.plan(|f| f.hold(false));
        Ok(())
    }

    /// No more faults: everything that was begun is brought to its end, and all of it is compared.
    fn settle(&mut self) -> Result<()> {
        self.heal();
        self.scenario.faults = crate::scenario::FaultKinds::default();
        let mut program = match self.program.take() {
            // One that has stopped, or whose state is in doubt, is started again.
            Some(program) if !program.has_stopped() => program,
            dying => {
                if let Some(program) = dying {
                    self.viewers.iter_mut().for_each(Viewer::disconnect);
                    self.player.program_died();
                    program.kill(&self.disk, Crash::KeepUnsynced);
                }
                self.start()?;
                self.program.take().context("the program does not start although everything works")?
            }
        };
        self.send_the_rest(&mut program)?;
        self.work_off(&mut program)?;
        if self.scenario.finish {
            for level in 1..=program.levels() {
                program.finish_below(level);
                self.work_off(&mut program)?;
            }
        }
        while program.archive()? > 0 {}
        self.compare(&program)?;
        let retained = self.scenario.retention_bytes.is_some();
        for viewer in &mut self.viewers {
            viewer.catch_up(&mut program, retained)?;
            viewer.compare(&self.plan, &self.mirror, true)?;
            self.outcome.n_viewed += viewer.n_received;
            self.outcome.n_resumed += viewer.n_resumed;
        }
        self.compare_derived(&program)?;
        self.compare_once_each()?;
        let verified = program.folder.journal.verify(&mut |_| {})?;
        ensure!(verified.damage.is_empty() && verified.torn.is_none(), "the log says of itself: {verified:?}");
        program.end().context("ending in order")?;
        self.outcome.n_past = past::compare(&self.disk, &Path::new(DATA).join("history"), &self.plan, &self.mirror, true)?;
        Ok(())
    }

    fn send_the_rest(&mut self, program: &mut Program) -> Result<()> {
        for poster in &mut self.posters {
            while poster.is_waiting() {
                let done = poster.post(program, &mut self.oracle, &mut self.market, self.hands.wall_us(), 0, &mut self.r)?;
                ensure!(done == Done::Committed, "a request at the end: {done:?}");
            }
        }
        while !self.player.is_over() {
            let done = self.player.step(program, &mut self.oracle, self.hands.wall_us())?;
            ensure!(done == Done::Committed, "the file at the end: {done:?}");
        }
        Ok(())
    }

    fn work_off(&mut self, program: &mut Program) -> Result<()> {
        for _ in 0..1_000_000 {
            let mut moved = false;
            for worker in 0..program.n_workers() {
                moved |= program.work(worker)?;
            }
            if !moved {
                return Ok(());
            }
        }
        bail!("the shards never come to an end")
    }

    /// The de-duplicated stream has each event once, in the order of the first time it was sent.
    fn compare_once_each(&self) -> Result<()> {
        for p in 0..2 {
            let sent = TopicPartition::new(Topic::new("orders.in")?, Partition(p));
            let at = TopicPartition::new(Topic::new("orders")?, Partition(p));
            let mut want: Vec<&String> = Vec::new();
            for row in self.oracle.rows(&sent) {
                if !want.contains(&row) {
                    want.push(row);
                }
            }
            let schema = &self.plan.streams.iter().find(|s| s.schema.stream == at.topic).context("no orders")?.schema;
            let got = crate::oracle::texts(&self.mirror.rows(schema, &at, mulgil_model::ids::Offset::ZERO, usize::MAX)?)?;
            ensure!(want.iter().copied().eq(got.iter()), "{at} should be each row of {sent} once: {want:?}, but is {got:?}");
        }
        Ok(())
    }
}

/// Whose fault an interrupted step is.
enum Failure {
    /// The program's own words: it ends.
    Program(anyhow::Error),
    /// The program did what it must not do.
    Proof(anyhow::Error),
}

impl Failure {
    fn of(done: Done) -> Result<(), Self> {
        match done {
            Done::Nothing | Done::Committed | Done::Full | Done::Refused(_) => Ok(()),
            Done::Doubt(why) => Err(Self::Program(anyhow::anyhow!(why))),
        }
    }
}

/// The topics into which the world sends rows, with their schemas.
fn inputs(plan: &Plan) -> Result<BTreeMap<TopicPartition, Option<Arc<StreamSchema>>>> {
    let mut inputs = BTreeMap::new();
    for name in ["trades", "orders"] {
        let (schema, n) = plan.input_of(&Topic::new(name)?).context("a stream of the scenario is not planned")?;
        for p in 0..n {
            inputs.insert(TopicPartition::new(schema.stream.clone(), Partition(p)), Some(Arc::clone(&schema)));
        }
    }
    inputs.insert(TopicPartition::new(Topic::new(DEAD_LETTERS)?, Partition(0)), None);
    Ok(inputs)
}
