//! A progress bar on a terminal, and nothing elsewhere. Shows only; counts nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Args;

const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// A count that a load moves and a bar shows until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    done: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    drawer: Option<JoinHandle<()>>,
}

impl Progress {
    pub(crate) fn start(args: &Args) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        // Indicatif draws to stderr, and hides itself where that is no terminal.
        let bar = args
            .message_count
            .map_or_else(ProgressBar::no_length, ProgressBar::new);
        let drawer = (!bar.is_hidden()).then(|| {
            let template = if args.message_count.is_some() {
                "{bar:40} {human_pos}/{human_len} {per_sec} eta {eta}"
            } else {
                "{spinner} {human_pos} records {per_sec} {elapsed}"
            };
            bar.set_style(ProgressStyle::with_template(template).expect("the template is ours"));
            let (done, over) = (Arc::clone(&done), Arc::clone(&over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    bar.set_position(done.load(Ordering::Relaxed));
                    std::thread::sleep(REDRAW_EVERY);
                }
                bar.finish_and_clear();
            })
        });
        Self { done, over, drawer }
    }

    /// The count; add to it.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.done)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(drawer) = self.drawer.take() {
            // A panic of the drawer costs the bar only.
            let _ = drawer.join();
        }
    }
}
