//! Tests of the machine as a whole: against a naive model, by script, and against values of a real
//! etcd.

mod corners;
pub(crate) mod lab;
mod model;
mod property;
mod races;
mod scripts;
