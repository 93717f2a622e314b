//! The built process over real sockets: what it acknowledges survives it, it starts and stops as it should, and no
//! client can harm it or the others.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "numbers that tests make are small"
)]

mod bystander;
mod calls;
mod client;
mod cluster;
mod corruption;
mod damage;
mod discovery;
mod downgrade;
mod durability;
mod fakes;
mod floods;
mod frames;
mod full;
mod harness;
mod http1;
mod leaderless;
mod lifecycle;
mod listeners;
mod lists;
mod metrics;
mod random;
mod slow;
mod storm;
mod strangers;
mod told;
mod watch;
