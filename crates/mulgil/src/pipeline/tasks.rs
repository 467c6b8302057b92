//! Named threads that belong together: each with a stop signal and a join; the first that fails tells all of them to stop.

use super::stop::Stop;
use anyhow::{Context, Result, anyhow};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A group of threads with one stop signal. The order in which groups are stopped is the pipeline's business.
pub struct Tasks {
    stop: Stop,
    /// Has those who wait for something else look whether they were told to stop.
    wake: Box<dyn Fn() + Send>,
    /// Asked when any thread of any group fails.
    failed: Stop,
    first_error: Arc<Mutex<Option<anyhow::Error>>>,
    threads: Vec<(String, JoinHandle<()>)>,
}

impl Tasks {
    pub fn new(failed: Stop) -> Self {
        Self { stop: Stop::default(), wake: Box::new(|| ()), failed, first_error: Arc::default(), threads: Vec::new() }
    }

    pub fn woken_by(self, wake: impl Fn() + Send + 'static) -> Self {
        Self { wake: Box::new(wake), ..self }
    }

    pub fn spawn(&mut self, name: &str, work: impl FnOnce(&Stop) -> Result<()> + Send + 'static) -> Result<()> {
        let (stop, failed, first_error, task) = (self.stop.clone(), self.failed.clone(), Arc::clone(&self.first_error), name.to_owned());
        let body = move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&stop)));
            let error = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.context(format!("{task} failed")),
                Err(panic) => anyhow!("{task} broke: {}", panic_text(&*panic)),
            };
            tracing::error!(error = format!("{error:#}"), "stopping");
            first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            failed.ask();
        };
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(body).with_context(|| format!("cannot start the thread {name}"))?;
        self.threads.push((name.to_owned(), thread));
        Ok(())
    }

    /// Tells all threads to stop, waits for them, and gives the first error there was.
    pub fn join(&mut self) -> Result<()> {
        self.stop.ask();
        (self.wake)();
        for (name, thread) in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("{name} broke while stopping"))?;
        }
        let error = self.first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        error.map_or(Ok(()), Err)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}
