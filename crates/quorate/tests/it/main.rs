//! The built process over real sockets: what it acknowledges survives it, it starts and stops as it should, and no
//! client can harm it or the others.

mod durability;
mod harness;
mod client;
mod random;
mod storm;
