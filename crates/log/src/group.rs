//! Group commit without a thread of its own: whoever finds nobody at work leads, does the work of all who wait, and hands over.
//!
//! ```text
//! submit ──▶ waiting ──(nobody leads)──▶ lead: takes the queue, runs it, answers everyone ──▶ done
//!               │ ▲                        │
//!               │ └── chosen to lead next ◀┘ (the first who still waits)
//!               └──── answered by another leader ──▶ done
//! ```
//!
//! Jobs run in the order of their submission. The queue is bounded by the number of threads: each waits for its own job.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// What one leader takes at most in one go, beyond the first job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupLimit {
    pub jobs: usize,
    pub weight: usize,
}

#[derive(Debug)]
pub(crate) struct GroupQueue<J, R> {
    limit: GroupLimit,
    queue: Mutex<Queue<J, R>>,
}

#[derive(Debug)]
struct Queue<J, R> {
    waiting: VecDeque<Waiting<J, R>>,
    has_leader: bool,
}

#[derive(Debug)]
struct Waiting<J, R> {
    job: J,
    weight: usize,
    seat: Arc<Seat<R>>,
}

#[derive(Debug)]
struct Seat<R> {
    state: Mutex<SeatState<R>>,
    changed: Condvar,
}

#[derive(Debug)]
enum SeatState<R> {
    Waiting,
    Leading,
    Answered(R),
}

impl<J, R> GroupQueue<J, R> {
    pub fn new(limit: GroupLimit) -> Self {
        Self { limit, queue: Mutex::new(Queue { waiting: VecDeque::new(), has_leader: false }) }
    }

    /// Jobs that nobody has taken up yet.
    pub fn n_waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Has the job done by this thread or another. `run` answers each job it is given, in order.
    pub fn submit(&self, job: J, weight: usize, run: impl FnOnce(Vec<J>) -> Vec<R>) -> R {
        let seat = Arc::new(Seat { state: Mutex::new(SeatState::Waiting), changed: Condvar::new() });
        let must_wait = {
            let mut queue = self.queue.lock();
            queue.waiting.push_back(Waiting { job, weight, seat: Arc::clone(&seat) });
            std::mem::replace(&mut queue.has_leader, true)
        };
        if must_wait && let Some(answer) = seat.wait() {
            return answer;
        }
        self.lead(run)
    }

    /// Runs the front of the queue, which is the leader's own job and those behind it.
    fn lead(&self, run: impl FnOnce(Vec<J>) -> Vec<R>) -> R {
        let (jobs, seats): (Vec<J>, Vec<Arc<Seat<R>>>) = self.take_group().into_iter().map(|w| (w.job, w.seat)).unzip();
        let n_jobs = jobs.len();
        let mut answers = run(jobs).into_iter();
        assert_eq!(answers.len(), n_jobs, "invariant: every job is answered");
        let own = answers.next().expect("invariant: a leader's own job is the first of its group");
        for (seat, answer) in seats.iter().skip(1).zip(answers) {
            seat.set(SeatState::Answered(answer));
        }
        self.hand_over();
        own
    }

    fn take_group(&self) -> Vec<Waiting<J, R>> {
        let mut queue = self.queue.lock();
        let mut weight = 0usize;
        let fits = |(i, waiting): &(usize, &Waiting<J, R>)| {
            weight = weight.saturating_add(waiting.weight);
            *i == 0 || (weight <= self.limit.weight && *i < self.limit.jobs)
        };
        let n = queue.waiting.iter().enumerate().take_while(fits).count();
        queue.waiting.drain(..n).collect()
    }

    fn hand_over(&self) {
        let mut queue = self.queue.lock();
        match queue.waiting.front() {
            Some(next) => next.seat.set(SeatState::Leading),
            None => queue.has_leader = false,
        }
    }
}

impl<R> Seat<R> {
    fn set(&self, state: SeatState<R>) {
        *self.state.lock() = state;
        self.changed.notify_one();
    }

    /// The answer, or `None` when it is this thread's turn to lead.
    fn wait(&self) -> Option<R> {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut *state, SeatState::Waiting) {
                SeatState::Waiting => self.changed.wait(&mut state),
                SeatState::Leading => return None,
                SeatState::Answered(answer) => return Some(answer),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_gather_while_a_leader_works_and_keep_their_order() {
        let group: &'static GroupQueue<usize, (usize, usize)> = Box::leak(Box::new(GroupQueue::new(GroupLimit { jobs: 3, weight: 100 })));
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (began, has_begun) = mpsc::channel::<Vec<usize>>();
        let mut threads = Vec::new();
        for job in 0..6 {
            let (held, began) = (Arc::clone(&held), began.clone());
            let run = move |jobs: Vec<usize>| {
                began.send(jobs.clone()).unwrap();
                held.lock().recv().unwrap();
                let n = jobs.len();
                jobs.into_iter().map(|job| (job, n)).collect()
            };
            threads.push(std::thread::spawn(move || group.submit(job, if job == 5 { 99 } else { 1 }, run)));
            if job == 0 {
                assert_eq!(has_begun.recv().unwrap(), [0]);
            }
            while group.n_waiting() < job {
                std::thread::yield_now();
            }
        }
        let mut groups = Vec::new();
        for _ in 0..3 {
            release.send(()).unwrap();
            groups.extend(has_begun.recv_timeout(std::time::Duration::from_secs(10)).ok());
            if groups.last() == Some(&vec![4, 5]) {
                break;
            }
        }
        release.send(()).unwrap();
        assert_eq!(groups, [vec![1, 2, 3], vec![4, 5]]);
        let answers: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(answers, [(0, 1), (1, 3), (2, 3), (3, 3), (4, 2), (5, 2)]);
        assert_eq!(group.submit(9, 1, |jobs| jobs.into_iter().map(|j| (j, 1)).collect()), (9, 1));
    }

    #[test]
    fn weight_bounds_a_group_but_never_starves_a_heavy_job() {
        let group = GroupQueue::<usize, usize>::new(GroupLimit { jobs: 10, weight: 5 });
        assert_eq!(group.submit(7, 1_000, |jobs| jobs), 7);
        for (weight, expected) in [(4, 1), (5, 1), (2, 2)] {
            for job in 0..2 {
                let seat = Arc::new(Seat { state: Mutex::new(SeatState::Waiting), changed: Condvar::new() });
                group.queue.lock().waiting.push_back(Waiting { job, weight, seat });
            }
            assert_eq!(group.take_group().len(), expected);
            group.queue.lock().waiting.clear();
        }
    }
}
