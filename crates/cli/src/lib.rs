//! The command line tools: `ctl` talks to a cluster as etcdctl does.
//!
//! [`ctl::main`] is the whole tool: it is given the arguments after the program's name and returns the
//! status to exit with. Options, texts and outputs are etcdctl's, so that scripts do not notice.

pub mod ctl;

mod command;
mod exit;
mod go;
pub mod printer;
