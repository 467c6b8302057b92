//! One input through one target: the target's own property, then its memory.

use crate::memory::peak_of;
use crate::targets::Target;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs an input; an error says what was wrong, and where.
pub fn run(target: &Target, input: &[u8]) -> Result<(), String> {
    quiet_panics();
    let (ran, peak_bytes) = peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    if ran.is_err() {
        return Err(LAST_PANIC.with_borrow(Clone::clone));
    }
    let allowed_bytes = target.base_bytes + target.bytes_per_byte * input.len();
    if peak_bytes > allowed_bytes {
        return Err(format!("an input of {} bytes took {peak_bytes} bytes of memory; {allowed_bytes} are allowed", input.len()));
    }
    Ok(())
}

/// Decoders of others may panic behind a guard, and that is no finding: a panic is told by whoever meets it, not by the hook.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let trace =
                std::env::var_os("MULGIL_FUZZ_TRACE").map_or_else(String::new, |_| std::backtrace::Backtrace::force_capture().to_string());
            LAST_PANIC.set(format!("{info}\n{trace}").trim_end().to_owned());
        }));
    });
}
