//! The messages against etcd: names, numbers, types and bytes.

// `cfg(test)` tells clippy that helpers are tests too.
#[cfg(test)]
mod bytes;
#[cfg(test)]
mod names;
