//! The one-way signal that ends serving: connections finish what they have and take nothing new.

use tokio::sync::watch;

/// Gives the signal. Dropping it gives it too.
#[derive(Debug)]
pub struct Drain {
    sender: watch::Sender<bool>,
}

/// Waits for the signal; clones wait for the same.
#[derive(Debug, Clone)]
pub struct Draining {
    receiver: watch::Receiver<bool>,
}

/// Makes a signal and a first waiter.
pub fn channel() -> (Drain, Draining) {
    let (sender, receiver) = watch::channel(false);
    (Drain { sender }, Draining { receiver })
}

impl Drain {
    /// Gives the signal.
    pub fn begin(&self) {
        self.sender.send_replace(true);
    }
}

impl Draining {
    /// Returns once the signal is given.
    pub async fn wait(mut self) {
        // An error means that the giver is gone, which is the signal as well.
        drop(self.receiver.wait_for(|begun| *begun).await);
    }

    /// Tells whether the signal is given.
    pub fn has_begun(&self) -> bool {
        *self.receiver.borrow()
    }
}
