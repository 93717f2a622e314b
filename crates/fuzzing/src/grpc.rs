//! gRPC messages through the services' door: any calls with any payloads, one after another, on a member that works.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use server::grpc::method::{Kind, Method};
use server::grpc::status::Status;
use server::service::payload::Payload;
use server::service::stream::{Gone, Inbound, Outbound};
use server::service::{Caller, Services};

use crate::input::Input;
use crate::world::World;

const CALLS_MAX: usize = 16;
const MESSAGES_MAX: u8 = 8;
/// Answers that a client takes from one stream.
const ANSWERS_MAX: usize = 64;

/// A call: its method and the messages of its client.
type Call = (Method, VecDeque<Bytes>);

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut calls = Vec::new();
    while !input.is_empty() && calls.len() < CALLS_MAX {
        let method = Method::ALL[usize::from(input.byte()) % Method::ALL.len()];
        let count = if method.kind() == Kind::BidiStream { input.byte() % MESSAGES_MAX } else { 1 };
        let messages = (0..count).map(|_| Bytes::copy_from_slice(input.piece())).collect();
        calls.push((method, messages));
    }
    let world = World::new();
    let services = Rc::clone(&world.services);
    world.run(async move {
        for call in calls {
            // Streams that go on forever are left to themselves.
            let is_stream = call.0.kind() != Kind::Unary;
            let served = serve(Rc::clone(&services), call);
            if is_stream {
                drop(tokio::task::spawn_local(served));
                tokio::task::yield_now().await;
            } else {
                served.await;
            }
        }
    });
}

async fn serve(services: Rc<Services>, (method, mut messages): Call) {
    let caller = Caller::default();
    let mut out = Answers { left: ANSWERS_MAX };
    // Refusals are answers.
    match method.kind() {
        Kind::Unary => {
            let message = messages.pop_front().unwrap_or_default();
            if let Ok(payload) = services.unary(method, &caller, message).await {
                // A client that has gone is no matter.
                let _: Result<(), Gone> = out.send(payload).await;
            }
        }
        Kind::ServerStream => {
            let message = messages.pop_front().unwrap_or_default();
            drop(services.server_stream(method, &caller, message, &mut out).await);
        }
        Kind::BidiStream => {
            drop(services.bidi_stream(method, &caller, Requests { messages }, &mut out).await);
        }
    }
}

/// The client's messages.
struct Requests {
    messages: VecDeque<Bytes>,
}

impl Inbound for Requests {
    async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        // One message a turn, so that answers come in between.
        tokio::task::yield_now().await;
        match self.messages.pop_front() {
            Some(message) => Ok(Some(message)),
            None => std::future::pending().await,
        }
    }
}

/// A client that takes some answers and goes.
struct Answers {
    left: usize,
}

impl Outbound for Answers {
    async fn send(&mut self, mut payload: Payload) -> Result<(), Gone> {
        let expected = payload.message_len();
        let mut len = 0;
        while let Some(piece) = payload.next_piece().await.map_err(|_failed| Gone)? {
            len += piece.len();
        }
        assert_eq!(
            len,
            expected + server::service::payload::FRAME_LEN,
            "the announced length is kept"
        );
        self.left = self.left.checked_sub(1).ok_or(Gone)?;
        Ok(())
    }

    async fn gone(&mut self) {
        std::future::pending().await
    }
}
