//! What arrives from the node: answers for callers, events for watchers.

use std::future::poll_fn;
use std::rc::Rc;

use node::Failure;

use super::Services;
use crate::mailbox::Mailbox;

impl Services {
    /// Delivers the thread's mail until the node has ended.
    pub async fn deliver_mail(self: &Rc<Self>, mailbox: &Mailbox) {
        loop {
            let mail = poll_fn(|context| mailbox.poll_take(context)).await;
            // Events first: whoever is told that a write is applied may ask a watch for it at once.
            if !mail.events.is_empty() || mail.lost {
                self.watches.borrow_mut().publish(&mail.events, mail.lost);
                self.pump_watches();
            }
            for completion in mail.completions {
                self.handle.complete(completion);
            }
            if mail.closed {
                self.handle.end();
                self.handle.fail_all(Failure::Stopped);
                return;
            }
        }
    }
}
